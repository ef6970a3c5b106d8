"""A push that is killed at any moment goes on where it was: nothing is lost, nothing sent twice."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from forked import Forked
from support import ACCOUNT, HOST, KEY_ID, REGION, SECRET, environment
from tarfiles import docker_save
from transports import count, does, parts

from asyncpush.localregistry import (
    CallInfo,
    Fault,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
)
from asyncpush.oci import mediatypes
from asyncpush.oci.archive import open_archive
from asyncpush.oci.layout import Layout, read_manifest
from asyncpush.oci.manifest import ImageManifest, parse_manifest
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
REPOSITORY = "resume/app"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images that share a layer of eight parts; each has one of two parts of its own."""
    writer = LayoutWriter(tmp_path_factory.mktemp("resume") / "layout")
    shared = writer.blob(os.urandom(75 * MIB), mediatypes.OCI_LAYER)
    for i in range(6):
        own = writer.blob(os.urandom(12 * MIB), mediatypes.OCI_LAYER)
        writer.entry(writer.image([shared, own]), f"v{i}")
    return writer.close()


@pytest.fixture(params=["native", "distribution"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Push:
    """The same command, again and again."""

    def __init__(
        self, server: RunningRegistry, layout: Path | str, tmp_path: Path, transport: str
    ) -> None:
        self.server = server
        self.env = environment(server.url) | {"XDG_STATE_HOME": str(tmp_path / "state")}
        self.command = ["push", str(layout), f"{HOST}/{REPOSITORY}", "--layers", "3", "-v"]
        self.command += ["--transport", transport]
        self.journals = tmp_path / "state" / "asyncpush"

    def start(self) -> Forked:
        return Forked(*self.command, env=self.env)

    async def kill_after(self, seconds: float) -> bool:
        """Whether the push was still running when it was killed."""
        process = self.start()
        await anyio.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        await anyio.to_thread.run_sync(process.communicate)
        return process.returncode == -signal.SIGKILL

    async def kill_in_the_middle(self, received: int) -> None:
        """Kill the push when the server has acknowledged a number of bytes."""
        process = self.start()
        with anyio.fail_after(60):
            while self.server.calls.counters.layer_bytes_acknowledged < received:
                await anyio.sleep(0.02)
        process.kill()
        await anyio.to_thread.run_sync(process.communicate)
        assert process.returncode == -signal.SIGKILL

    async def finish(self) -> str:
        process = self.start()
        out, err = await anyio.to_thread.run_sync(process.communicate)
        assert process.returncode == 0, err
        return out + err


@asynccontextmanager
async def serving(tmp_path: Path, commit: float = 0.12) -> AsyncIterator[RunningRegistry]:
    """A server that takes its time, for a commit this many seconds."""

    def slowly(call: CallInfo) -> Fault | None:
        if does(call.action, "PutImage"):
            return Fault(delay=commit)
        return Fault(delay=0.12) if does(call.action, "UploadLayerPart") else None

    options = LocalRegistryOptions(faults=slowly)
    registry = LocalRegistry(tmp_path / "store", [Key(KEY_ID, SECRET, ACCOUNT)], options)
    async with registry.run() as server:
        await server.ensure_repository(ACCOUNT, REGION, REPOSITORY)
        yield server


async def assert_complete_and_nothing_twice(server: RunningRegistry, layout: Path) -> None:
    tags = await server.tags(ACCOUNT, REGION, REPOSITORY)
    assert tags == {e.ref_name: e.digest for e in Layout(layout).entries}
    acknowledged: defaultdict[str, int] = defaultdict(int)
    for call in parts(server.calls):
        acknowledged[str(call.upload_id)] += call.acknowledged_bytes
        # A part that the server has already is refused: the only such call may be the question
        # how much it has, which carries one byte.
        if call.error == "InvalidLayerPartException":
            assert call.layer_bytes <= 1
    assert max(acknowledged.values()) == 75 * MIB


@pytest.mark.parametrize(("transport", "seed"), [("native", 1), ("native", 2), ("distribution", 3)])
async def test_killed_at_random_moments_it_completes_and_sends_nothing_twice(
    tmp_path: Path, layout: Path, transport: str, seed: int
) -> None:
    rng = random.Random(seed)
    async with serving(tmp_path) as server:
        push = Push(server, layout, tmp_path, transport)
        killed = 0
        for _ in range(5):
            killed += await push.kill_after(rng.uniform(0.3, 1.3))
        assert killed
        await push.finish()

        await assert_complete_and_nothing_twice(server, layout)
        assert list(push.journals.iterdir()) == []


async def test_half_sent_layer_goes_on_in_the_same_session(
    tmp_path: Path, layout: Path, transport: str
) -> None:
    async with serving(tmp_path) as server:
        push = Push(server, layout, tmp_path, transport)
        await push.kill_in_the_middle(30 * MIB)
        # What had arrived completely may still be acknowledged after its sender is gone.
        await anyio.sleep(0.3)
        before = server.calls.counters.layer_bytes_acknowledged
        text = await push.finish()

        assert "resumed sha256:" in text
        await assert_complete_and_nothing_twice(server, layout)
        blobs = sum(p.stat().st_size for p in (layout / "blobs" / "sha256").iterdir())
        manifests = sum(e.size for e in Layout(layout).entries)
        assert server.calls.counters.layer_bytes_acknowledged == blobs - manifests
        assert before >= 30 * MIB


async def test_a_layer_that_is_compressed_on_the_way_goes_on_in_its_middle(
    tmp_path: Path, transport: str
) -> None:
    # Over /v2/ a layer of up to 64 MiB goes in one request.
    layer = os.urandom((25 if transport == "native" else 70) * MIB)
    archive = docker_save(tmp_path / "app.tar", layer=layer, diff=layer)
    content = open_archive("docker-archive", archive, compress_layers=True)
    entry = content.entries[0]
    manifest = parse_manifest(read_manifest(content.find_manifest(entry)), entry.media_type)
    assert isinstance(manifest, ImageManifest)
    async with serving(tmp_path) as server:
        push = Push(server, f"docker-archive:{archive}", tmp_path, transport)
        push.command.append("--compress-layers")
        await push.kill_in_the_middle(10 * MIB)
        assert "resumed sha256:" in await push.finish()

        tags = await server.tags(ACCOUNT, REGION, REPOSITORY)
        assert tags == {"v1": entry.digest, "v2": entry.digest}
        assert server.calls.counters.layer_bytes_acknowledged == (
            manifest.config.size + sum(blob.size for blob in manifest.layers)
        )


async def test_a_journal_is_good_for_another_transport(
    tmp_path: Path, layout: Path, transport: str
) -> None:
    async with serving(tmp_path) as server:
        await Push(server, layout, tmp_path, transport).kill_in_the_middle(30 * MIB)
        other = "native" if transport == "distribution" else "distribution"
        await Push(server, layout, tmp_path, other).finish()
        tags = await server.tags(ACCOUNT, REGION, REPOSITORY)
        assert tags == {e.ref_name: e.digest for e in Layout(layout).entries}


async def test_another_jobs_journal_is_refused_before_anything_is_sent(
    tmp_path: Path, layout: Path, transport: str
) -> None:
    async with serving(tmp_path) as server:
        push = Push(server, layout, tmp_path, transport)
        await push.kill_in_the_middle(20 * MIB)
        (journal,) = push.journals.glob("*.journal")
        calls = server.calls.counters.calls.total()
        other = Push(server, layout, tmp_path, transport)
        other.command += ["--journal", str(journal), "--platform", "linux/amd64"]
        process = other.start()
        _, err = await anyio.to_thread.run_sync(process.communicate)

        assert process.returncode == 1
        assert "the journal belongs to another job" in err
        assert server.calls.counters.calls.total() == calls


async def test_session_that_the_registry_forgot_begins_again(
    tmp_path: Path, layout: Path, transport: str
) -> None:
    async with serving(tmp_path) as server:
        push = Push(server, layout, tmp_path, transport)
        await push.kill_in_the_middle(20 * MIB)
        opened = count(server.calls, "InitiateLayerUpload")
        (journal,) = push.journals.glob("*.journal")
        with sqlite3.connect(journal) as connection:
            # Over /v2/ a session is an address that has its id in it.
            ((session,), *_) = connection.execute("SELECT session FROM uploads")
            unknown = re.sub("[0-9a-f-]{36}", str(uuid.uuid4()), session)
            connection.execute("UPDATE uploads SET session=?", (unknown,))
        connection.close()
        await push.finish()

        tags = await server.tags(ACCOUNT, REGION, REPOSITORY)
        assert tags == {e.ref_name: e.digest for e in Layout(layout).entries}
        assert count(server.calls, "InitiateLayerUpload") > opened
        asked = "UploadLayerPart" if transport == "native" else "v2.GetUpload"
        assert server.calls.counters.errors[asked, "UploadNotFoundException"]


async def test_two_runs_of_one_job_exclude_each_other(
    tmp_path: Path, layout: Path, transport: str
) -> None:
    async with serving(tmp_path, commit=2) as server:
        push = Push(server, layout, tmp_path, transport)
        first = push.start()
        with anyio.fail_after(60):
            while not count(server.calls, "InitiateLayerUpload"):
                await anyio.sleep(0.02)
        second = push.start()
        _, err = await anyio.to_thread.run_sync(second.communicate)
        assert second.returncode == 1
        assert "another run has the journal open" in err
        await anyio.to_thread.run_sync(first.communicate)
        assert first.returncode == 0
