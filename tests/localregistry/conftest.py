"""A running registry and a client for each test of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from registry_driver import SMALL_PARTS, connect

from asyncpush.localregistry import LocalRegistry, RunningRegistry


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[RunningRegistry]:
    """A registry that takes parts of 8 to 64 bytes."""
    async with LocalRegistry(tmp_path / "root", options=SMALL_PARTS).run() as server:
        yield server


@pytest.fixture
async def ecr(registry: RunningRegistry) -> AsyncIterator[Any]:
    """A client of that registry; there is a repository ``team/app``."""
    async with connect(registry) as client:
        await client.create_repository(repositoryName="team/app")
        yield client
