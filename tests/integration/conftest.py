"""Servers for the tests that talk to one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Served, serve

from asyncpush.oci.sample import write_sample


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of 15 entries: 12 images that share two layers, an index, an artifact, Docker."""
    return write_sample(tmp_path_factory.mktemp("sample") / "layout")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A local registry that all tests share, each with repositories of its own."""
    with serve(tmp_path_factory.mktemp("registry")) as served:
        yield served
