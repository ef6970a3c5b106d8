"""A pytest plugin: ``pytest_plugins = ["asyncpush.testing.plugin"]`` in your conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncpush.testing.local_ecr import LocalEcr, LocalEcrSettings


@pytest.fixture
def local_ecr_settings() -> LocalEcrSettings:
    """Account, Region, policy and behaviour of ``local_ecr``; override it where they matter."""
    return LocalEcrSettings()


@pytest.fixture
def local_ecr(
    local_ecr_settings: LocalEcrSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalEcr]:
    """A local registry of this test alone, which AWS clients find through the environment."""
    with LocalEcr.running(tmp_path / "local-ecr", local_ecr_settings) as local:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name, raising=False)
        for name, value in local.environment.items():
            monkeypatch.setenv(name, value)
        # Where journals of pushes would be: in nobody's home folder.
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        yield local
