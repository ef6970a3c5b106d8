"""Layouts to read, written into a fresh directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpush.oci.writer import LayoutWriter


@pytest.fixture
def writer(tmp_path: Path) -> LayoutWriter:
    """A layout in the making; ``close`` finishes it."""
    return LayoutWriter(tmp_path / "layout")
