"""Pushes to registries that are not as the specification has them: the content arrives whole."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from oddregistries import (
    Azure,
    Breaking,
    DockerHub,
    Ghcr,
    Google,
    OddRegistry,
    Truncating,
    by_proxy,
)
from support import asyncpush, environment

from asyncpush import Event, Pusher, PushItem, PushOptions, PushReport
from asyncpush.engine.events import CallRetried
from asyncpush.oci import mediatypes
from asyncpush.oci.digest import compute
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter
from asyncpush.registries.distribution.ratelimit import RateLimit
from asyncpush.registries.distribution.transport import open_transport

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
LARGE = 130 * MIB
DISTRIBUTION = {"Docker-Upload-UUID": "here", "Range": "0-0"}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a layer larger than two chunks, and a small one."""
    writer = LayoutWriter(tmp_path_factory.mktemp("odd") / "layout")
    piece = os.urandom(MIB)
    large = writer.blob(b"".join(bytes([i]) + piece[1:] for i in range(130)), mediatypes.OCI_LAYER)
    small = writer.blob(os.urandom(MIB), mediatypes.OCI_LAYER)
    writer.entry(writer.image([large, small]), "v1")
    return writer.close()


async def push(layout: Path, target: str, events: list[Event], **options: object) -> PushReport:
    settings = PushOptions(plain_http=True, retry_base=0.01, **options)  # type: ignore[arg-type]
    async with Pusher(settings, on_event=events.append) as pusher:
        return await pusher.push([PushItem(str(layout), target)])


def blobs_of(layout: Path) -> dict[str, int]:
    """Size by digest of the blobs of the layout's image."""
    (entry,) = Layout(layout).entries
    path = layout / "blobs" / "sha256" / entry.digest.partition(":")[2]
    manifest = json.loads(path.read_bytes())
    return {d["digest"]: d["size"] for d in (manifest["config"], *manifest["layers"])}


def assert_whole(registry: OddRegistry, layout: Path) -> None:
    (entry,) = Layout(layout).entries
    assert registry.blobs == blobs_of(layout)
    assert registry.tags["v1"] == entry.digest


def shapes(registry: OddRegistry) -> dict[int, str]:
    """The requests of each upload, by the bytes that it carried."""
    return {
        sum(r.length for r in some): " ".join(r.method for r in some)
        for some in registry.uploads().values()
    }


@asynccontextmanager
async def named(registry: OddRegistry) -> AsyncIterator[None]:
    """Serve, and be found under any name."""
    async with registry.run() as address:
        with by_proxy(address):
            yield


@pytest.fixture
def hub_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = {"auths": {"https://index.docker.io/v1/": {"username": "user", "password": "secret"}}}
    (tmp_path / "config.json").write_text(json.dumps(auth))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)


@pytest.mark.parametrize("part_size", [None, 5 * MIB, 20 * MIB])
async def test_ghcr_gets_one_patch_without_a_range(layout: Path, part_size: int | None) -> None:
    registry = Ghcr(**DISTRIBUTION)
    async with named(registry):
        report = await push(layout, "docker://ghcr.io/team/app", [], part_size=part_size)
    assert report.ok, report
    assert_whole(registry, layout)
    assert set(shapes(registry).values()) == {"PATCH PUT"}
    assert {r.content_range for r in registry.requests} == {None}
    assert {r.host for r in registry.requests} == {"ghcr.io"}


@pytest.mark.parametrize("host", ["gcr.io", "eu.gcr.io", "europe-west3-docker.pkg.dev"])
async def test_google_gets_one_put(layout: Path, host: str) -> None:
    registry = Google(**DISTRIBUTION)
    async with named(registry):
        report = await push(layout, f"docker://{host}/team/app", [], part_size=10 * MIB)
    assert report.ok, report
    assert_whole(registry, layout)
    assert set(shapes(registry).values()) == {"PUT"}


@pytest.mark.parametrize("part_size", [None, 20 * MIB])
async def test_azure_gets_no_body_above_its_limit(layout: Path, part_size: int | None) -> None:
    registry = Azure()
    async with named(registry):
        report = await push(layout, "docker://team.azurecr.io/team/app", [], part_size=part_size)
    assert report.ok, report
    assert_whole(registry, layout)
    assert shapes(registry)[MIB] == "PUT"
    assert shapes(registry)[LARGE] == " ".join(["PATCH"] * 9 + ["PUT"])
    assert max(r.length for r in registry.requests) == 16 * MIB


@pytest.mark.parametrize("host", ["docker.io", "registry-1.docker.io"])
async def test_docker_hub_uploads_to_another_host_without_credentials(
    layout: Path, host: str, tmp_path: Path, hub_login: None
) -> None:
    if host != "docker.io":
        auth = {"auths": {host: {"username": "user", "password": "secret"}}}
        (tmp_path / "config.json").write_text(json.dumps(auth))
    registry = DockerHub()
    async with named(registry):
        report = await push(layout, f"docker://{host}/team/app", [])
    assert report.ok, report
    assert_whole(registry, layout)
    assert set(shapes(registry).values()) == {"PUT PUT"}
    posts = [r for r in registry.requests if r.method == "POST"]
    assert {(r.host, r.authorized) for r in posts} == {("registry-1.docker.io", True)}
    puts = [r for r in registry.requests if r.method == "PUT"]
    assert {(r.host, r.authorized) for r in puts} == {(DockerHub.storage, False)}


async def test_the_last_rate_limit_is_on_the_transport(hub_login: None) -> None:
    async with (
        named(DockerHub()),
        open_transport("docker.io", connections=1, user_agent="tests", plain_http=True) as hub,
    ):
        await hub.authorize()
        assert hub.rate_limit is None
        await hub.start_upload("team/app")
        assert hub.rate_limit == RateLimit(100, 76, 21600)
        # An answer without the headers says nothing.
        await hub.available("team/app", [compute(b"absent")])
        assert hub.rate_limit == RateLimit(100, 76, 21600)


async def test_a_registry_of_which_nothing_is_known_gets_one_put(layout: Path) -> None:
    registry = Google()
    async with registry.run() as address:
        report = await push(layout, f"docker://{address}/team/app", [], part_size=5 * MIB)
    assert report.ok, report
    assert_whole(registry, layout)
    assert set(shapes(registry).values()) == {"PUT"}
    # Once before the upload, once after it.
    assert sorted(registry.heads) == sorted([*blobs_of(layout)] * 2)


@pytest.mark.parametrize("evidence", [DISTRIBUTION, {"OCI-Chunk-Min-Length": str(MIB)}])
async def test_a_registry_that_shows_to_keep_chunks_gets_chunks(
    layout: Path, evidence: dict[str, str]
) -> None:
    registry = OddRegistry(**evidence)
    async with registry.run() as address:
        report = await push(layout, f"docker://{address}/team/app", [])
    assert report.ok, report
    assert_whole(registry, layout)
    assert shapes(registry)[LARGE] == "PATCH PATCH PUT"
    assert shapes(registry)[MIB] == "PUT"
    # The size of what went in chunks alone is asked for.
    (large,) = (d for d, size in blobs_of(layout).items() if size == LARGE)
    assert sorted(registry.heads) == sorted([*blobs_of(layout), large])


@pytest.mark.parametrize("evidence", [{}, DISTRIBUTION])
async def test_a_registry_that_drops_bytes_in_silence_is_found_out(
    layout: Path, evidence: dict[str, str]
) -> None:
    registry = Truncating(**evidence)
    async with registry.run() as address:
        for _ in range(2):
            # The second run meets the blob that was cut short, and does not take it for whole.
            report = await push(layout, f"docker://{address}/team/app", [], attempts=3)
            (image,) = report.images
            assert image.error is not None
            assert image.error.kind == "blob-rejected"
            assert "the registry stored" in str(image.error)
            assert not registry.tags


async def test_a_blob_that_breaks_off_starts_over_in_a_new_session(layout: Path) -> None:
    registry = Breaking(cuts=5)
    events: list[Event] = []
    async with registry.run() as address:
        report = await push(layout, f"docker://{address}/team/app", events)
    assert report.ok, report
    assert_whole(registry, layout)
    assert all(len(some) == 1 for some in registry.uploads().values())
    assert len([r for r in registry.requests if r.method == "POST"]) == 3 + 5
    retries = [e for e in events if isinstance(e, CallRetried)]
    assert len(retries) == 5


@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_blob_that_always_breaks_off_fails_after_so_many_attempts(
    layout: Path, attempts: int
) -> None:
    registry = Breaking(cuts=1000)
    async with registry.run() as address:
        report = await push(layout, f"docker://{address}/team/app", [], attempts=attempts)
    (image,) = report.images
    assert image.error is not None
    assert image.error.kind == "upload-broken"
    assert image.error.where["attempts"] == str(attempts)
    assert not registry.tags


async def test_a_blob_whose_last_answer_is_lost_is_not_sent_again(layout: Path) -> None:
    registry = Breaking(cuts=2, after=True)
    async with registry.run() as address:
        report = await push(layout, f"docker://{address}/team/app", [])
    assert report.ok, report
    assert_whole(registry, layout)
    assert len([r for r in registry.requests if r.method == "PUT"]) == 3


async def test_a_rerun_starts_a_blob_over_that_broke_off_where_it_cannot_be_resumed(
    layout: Path, tmp_path: Path
) -> None:
    registry = Breaking(cuts=2)
    async with registry.run() as address:
        target = f"docker://{address}/team/app"
        command = ("push", layout, target, "--attempts", "2", "--layers", "1")
        env = environment(None, "") | {"DOCKER_CONFIG": "/nonexistent"}
        env["XDG_STATE_HOME"] = str(tmp_path)
        first = await anyio.to_thread.run_sync(lambda: asyncpush(*command, env=env))
        assert first.returncode == 1
        assert "attempts 2" in first.stderr
        again = await anyio.to_thread.run_sync(lambda: asyncpush(*command, env=env))
        assert again.returncode == 0, again.stderr
    assert_whole(registry, layout)
    assert "GET" not in {r.method for r in registry.requests}


async def test_one_put_of_a_large_blob_holds_no_memory(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layout")
    writer.entry(writer.image([writer.blob(bytes(200 * MIB), mediatypes.OCI_LAYER)]), "v1")
    layout = writer.close()
    registry = OddRegistry()
    async with registry.run() as address:
        target = f"docker://{address}/team/app"
        # A child inherits ru_maxrss, so the process reads what it had itself.
        code = (
            "import atexit, pathlib, sys\n"
            "from asyncpush.cli.main import main\n"
            "status = pathlib.Path('/proc/self/status')\n"
            "atexit.register(lambda: print(status.read_text().split('VmHWM:')[1].split()[0]))\n"
            f"sys.argv = ['asyncpush', 'push', {str(layout)!r}, {target!r}]\n"
            "main()\n"
        )
        env = environment(None, "") | {"DOCKER_CONFIG": "/nonexistent"}
        done = await anyio.run_process([sys.executable, "-c", code], env=env)
    peak = int(done.stdout.split()[-1]) * 1024
    assert_whole(registry, layout)
    assert set(shapes(registry).values()) == {"PUT"}
    assert peak < 150 * MIB, peak
