"""Servers for the tests that talk to one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Served, asyncpush, docker_registry_at, environment, serve

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


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto's server in a process of its own; its address."""
    log = (tmp_path_factory.mktemp("moto") / "log").open("w")
    with (
        log,
        subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield f"http://127.0.0.1:{_moto_port(Path(log.name))}"
        finally:
            process.terminate()


def _moto_port(log: Path) -> int:
    for _ in range(300):
        for word in log.read_text().split():
            if word.startswith("http://127.0.0.1:"):
                return int(word.rsplit(":", 1)[1])
        time.sleep(0.1)
    pytest.fail(f"moto's server did not start: {log.read_text()}")


@pytest.fixture(scope="module")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry; its address."""
    with docker_registry_at(tmp_path_factory.mktemp("docker-registry")) as address:
        yield address


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Iterator[str]:
    """docker-registry that holds the sample layout as ``team/app``; its address."""
    with docker_registry_at(tmp_path_factory.mktemp("source")) as address:
        env = environment(None, "") | {"DOCKER_CONFIG": "/nonexistent"}
        done = asyncpush("push", sample, f"docker://{address}/team/app", env=env)
        assert done.returncode == 0, done.stderr
        yield address
