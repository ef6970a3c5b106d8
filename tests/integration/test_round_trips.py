"""What a copy between registries waits for, and what it asks: on slow links that is its time."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from gate import Gate, gate_before

from asyncpush import Pusher, PushItem, PushOptions, PushReport
from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio
KIB = 1024
TAGS = ["v0", "v1", "v2"]
LAYERS = 12


@pytest.fixture(autouse=True)
def without_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)


async def push(source: str | Path, target: str, **options: int) -> PushReport:
    settings = PushOptions(attempts=2, retry_base=0.0, **options)  # type: ignore[arg-type]
    with anyio.fail_after(20):
        async with Pusher(settings) as pusher:
            report = await pusher.push([PushItem(source, target)])
    assert report.ok, [str(image.error) for image in report.failed]
    return report


@pytest.fixture
async def copied(tmp_path: Path, docker_registry: str) -> str:
    """A repository of a registry: two images and an index, over layers of many sizes."""
    writer = LayoutWriter(tmp_path / "layout")
    shared = [
        writer.blob(os.urandom((1 + number) * KIB), mediatypes.OCI_LAYER)
        for number in range(LAYERS)
    ]
    for tag in TAGS:
        own = writer.blob(os.urandom(100 * KIB), mediatypes.OCI_LAYER)
        image = writer.image([*shared, own])
        writer.entry(writer.index([image]) if tag == TAGS[0] else image, tag)
    repository = f"{docker_registry}/from/{tmp_path.name}"
    await push(writer.close(), f"docker://{repository}")
    return repository


def split(repository: str) -> tuple[str, str]:
    host, _, name = repository.partition("/")
    return host, name


async def test_what_is_missing_is_sent_without_asking_for_it_twice(
    copied: str, docker_registry: str, tmp_path: Path
) -> None:
    async with gate_before(docker_registry) as target:
        await push(f"docker://{copied}", f"docker://{target.address}/once/{tmp_path.name}")
    assert target.count("HEAD", "/manifests/") == len(TAGS)
    assert target.count("PUT", "/manifests/") == len(TAGS) + 1
    assert target.count("GET", "/manifests/") == 0


async def test_a_tag_that_points_elsewhere_is_moved_without_asking_again(
    copied: str, docker_registry: str, tmp_path: Path
) -> None:
    where = f"moved/{tmp_path.name}"
    other = LayoutWriter(tmp_path / "other")
    other.entry(other.image([other.blob(b"other", mediatypes.OCI_LAYER)]), TAGS[1])
    await push(other.close(), f"docker://{docker_registry}/{where}")
    async with gate_before(docker_registry) as target:
        await push(f"docker://{copied}", f"docker://{target.address}/{where}")
        assert target.count("HEAD", "/manifests/") == len(TAGS)
        report = await push(f"docker://{copied}", f"docker://{target.address}/{where}")
    assert [image.status.value for image in report.images] == ["exists"] * len(TAGS)


async def test_the_target_is_connected_while_the_source_is_asked(
    copied: str, docker_registry: str, tmp_path: Path
) -> None:
    connected = anyio.Event()

    async def at_target(request: web.Request, _gate: Gate) -> None:
        if request.path == "/v2/":
            connected.set()

    async def at_source(request: web.Request, _gate: Gate) -> None:
        if request.path.endswith("/tags/list"):
            await connected.wait()

    host, name = split(copied)
    async with gate_before(host, at_source) as source, gate_before(host, at_target) as target:
        await push(
            f"docker://{source.address}/{name}", f"docker://{target.address}/ahead/{tmp_path.name}"
        )


async def test_a_blob_is_asked_for_while_its_upload_is_opened(
    copied: str, docker_registry: str, tmp_path: Path
) -> None:
    asked = anyio.Event()

    async def at_source(request: web.Request, _gate: Gate) -> None:
        if "/blobs/" in request.path:
            asked.set()

    async def at_target(request: web.Request, _gate: Gate) -> None:
        if request.method == "POST":
            await asked.wait()

    host, name = split(copied)
    async with gate_before(host, at_source) as source, gate_before(host, at_target) as target:
        await push(
            f"docker://{source.address}/{name}", f"docker://{target.address}/beside/{tmp_path.name}"
        )
        blobs = [path for _, path in source.requests if "/blobs/" in path]
    assert len(blobs) == len(set(blobs))


async def test_the_registry_is_asked_about_as_many_blobs_at_once_as_there_are_connections(
    copied: str, docker_registry: str, tmp_path: Path
) -> None:
    waiting = 0
    many = anyio.Event()

    async def at_target(request: web.Request, _gate: Gate) -> None:
        nonlocal waiting
        if request.method == "HEAD" and "/blobs/" in request.path:
            waiting += 1
            if waiting == LAYERS:
                many.set()
            await many.wait()

    async with gate_before(docker_registry, at_target) as target:
        await push(
            f"docker://{copied}",
            f"docker://{target.address}/heads/{tmp_path.name}",
            connections=LAYERS,
        )


async def test_the_largest_layers_of_an_image_go_first(
    copied: str, docker_registry: str, tmp_path: Path
) -> None:
    host, name = split(copied)
    async with gate_before(host) as source:
        await push(
            f"docker://{source.address}/{name}:{TAGS[1]}",
            f"docker://{docker_registry}/order/{tmp_path.name}",
            layers=1,
        )
        order = [path.rpartition("/")[2] for _, path in source.requests if "/blobs/" in path]
    blobs = Layout(tmp_path / "layout").root / "blobs" / "sha256"
    sizes = [(blobs / digest.removeprefix("sha256:")).stat().st_size for digest in order]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == LAYERS + 2
