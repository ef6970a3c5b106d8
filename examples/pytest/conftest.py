"""Makes the fixture ``local_ecr`` known; layouts for the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpush.testing import write_sample

pytest_plugins = ["asyncpush.testing.plugin"]


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A layout of two images, an index and an artifact, of a few KiB."""
    return write_sample(tmp_path / "app", images=2, base_bytes=5000)
