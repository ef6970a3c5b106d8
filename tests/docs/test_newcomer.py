"""The README's first line, as a newcomer pastes it: in a fresh clone, into a new environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from blocks import ROOT
from support import require_program


def test_the_demos_line_works_in_a_fresh_clone(tmp_path: Path) -> None:
    if not os.environ.get("CI"):
        pytest.skip("installs all dependencies anew: in CI alone")
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    found = re.search(
        r"<!-- demo -->\n```sh\n(.*?)```\n<!-- /demo -->",
        (ROOT / "README.md").read_text(),
        re.DOTALL,
    )
    assert found is not None
    clone = tmp_path / "clone"
    # Python as the newcomer's shell finds it, not that of the environment that runs the tests.
    outside = {
        k: v for k, v in os.environ.items() if not re.match("AWS_|PYTHON|VIRTUAL_ENV|TOX", k)
    }
    path = os.pathsep.join(p for p in outside["PATH"].split(os.pathsep) if ".tox" not in p)
    git = [require_program("git"), "-c", "safe.directory=*", "clone", "--quiet"]
    subprocess.run([*git, "--no-local", "--depth", "1", f"file://{ROOT}", str(clone)], check=True)

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", found[1]],
        cwd=clone,
        env=outside | {"PATH": path, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    shutil.rmtree(clone)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "15 images: 15 pushed" in done.stdout
    assert "read back and proved" in done.stdout
