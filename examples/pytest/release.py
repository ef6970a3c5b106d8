"""A release script, as a project might have one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def release(layout: Path, repository: str) -> bool:
    """Push a layout.

    :return: whether there was anything to send.
    """
    command = [sys.executable, "-m", "asyncpush", "push", str(layout), repository, "--report"]
    report = layout.parent / "report.json"
    subprocess.run([*command, str(report)], check=True)
    return '"nothing-to-do"' not in report.read_text()
