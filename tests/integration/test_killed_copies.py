"""A copy whose process is killed and whose source breaks off goes on in the middle of its layers.

``ASYNCPUSH_KILLS=20`` kills it as often; by default it is five times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from sourceproxy import SourceProxy, source_proxy
from support import ACCOUNT, HOST, KEY_ID, REGION, SECRET, environment
from transports import does, parts

from asyncpush import Pusher, PushItem
from asyncpush.localregistry import (
    CallInfo,
    DistributionOptions,
    Fault,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
)
from asyncpush.localregistry.identity import Registry
from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio

KILLS = int(os.environ.get("ASYNCPUSH_KILLS", "5"))
MIB = 1024 * 1024
PART = 5 * MIB
LAYERS = 3
# What the sockets between source and copy hold.
ON_ITS_WAY = MIB
REPOSITORY = "team/app"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images that share a layer of six parts; each has one of two parts and a bit."""
    writer = LayoutWriter(tmp_path_factory.mktemp("killed") / "layout")
    shared = writer.blob(os.urandom(6 * PART), mediatypes.OCI_LAYER)
    for i in range(3):
        own = writer.blob(os.urandom(2 * PART + 1000 * i + 1), mediatypes.OCI_LAYER)
        writer.entry(writer.image([shared, own]), f"v{i}")
    return writer.close()


@asynccontextmanager
async def source_with(layout: Path, store: Path) -> AsyncIterator[SourceProxy]:
    """A registry that has the images, behind a proxy."""
    options = LocalRegistryOptions(
        distribution=DistributionOptions(anonymous_push=True),
        default_registry=Registry(ACCOUNT, REGION),
    )
    async with LocalRegistry(store, [Key(KEY_ID, SECRET, ACCOUNT)], options).run() as server:
        await server.ensure_repository(ACCOUNT, REGION, REPOSITORY)
        address = server.url.removeprefix("http://")
        async with Pusher() as pusher:
            report = await pusher.push([PushItem(layout, f"docker://{address}/{REPOSITORY}")])
        assert report.ok
        async with source_proxy(address) as proxy:
            yield proxy


@asynccontextmanager
async def target_at(store: Path) -> AsyncIterator[RunningRegistry]:
    """A registry that takes its time for a part and for a manifest."""

    def slowly(call: CallInfo) -> Fault | None:
        return Fault(delay=0.1) if does(call.action, "UploadLayerPart", "PutImage") else None

    options = LocalRegistryOptions(faults=slowly)
    async with LocalRegistry(store, [Key(KEY_ID, SECRET, ACCOUNT)], options).run() as server:
        yield server


class Copy:
    """The same copy, again and again."""

    def __init__(
        self, source: SourceProxy, server: RunningRegistry, name: str, state: Path, transport: str
    ) -> None:
        self.server = server
        self.env = environment(server.url) | {
            "XDG_STATE_HOME": str(state),
            "DOCKER_CONFIG": "/nonexistent",
        }
        self.command = [sys.executable, "-m", "asyncpush", "copy", "-q"]
        self.command += [f"docker://{source.address}/{REPOSITORY}", f"{HOST}/{name}"]
        self.command += ["--layers", str(LAYERS), "--part-size", str(PART // MIB)]
        self.command += ["--transport", transport]

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    async def is_killed(self, rng: random.Random) -> bool:
        """Kill it some calls and a moment after it began; False if it was done before that."""
        calls = self.server.calls.counters.calls.total() + rng.randint(2, 25)
        process = self.start()
        try:
            with anyio.fail_after(120):
                while self.server.calls.counters.calls.total() < calls:
                    await anyio.sleep(0.01)
                    if process.poll() is not None:
                        break
            await anyio.sleep(rng.uniform(0, 0.1))
        finally:
            process.send_signal(signal.SIGKILL)
        _, err = await anyio.to_thread.run_sync(process.communicate)
        assert process.returncode in (0, -signal.SIGKILL), err
        return process.returncode != 0


@pytest.mark.parametrize("transport", ["native", "distribution"])
async def test_killed_and_cut_off_at_random_it_completes_and_reads_at_most_a_part_again(
    tmp_path: Path, layout: Path, transport: str
) -> None:
    rng = random.Random(f"{transport} {KILLS}")
    wanted = {entry.ref_name: entry.digest for entry in Layout(layout).entries}
    blobs = {f.name: f.stat().st_size for f in (layout / "blobs" / "sha256").iterdir()}
    async with (
        source_with(layout, tmp_path / "source") as source,
        target_at(tmp_path / "target") as server,
    ):
        source.cuts = lambda: rng.choice([None, rng.randint(0, 3 * PART)])
        kills = rounds = 0
        while kills < KILLS:
            rounds += 1
            name = f"round{rounds}"
            await server.ensure_repository(ACCOUNT, REGION, name)
            copy = Copy(source, server, name, tmp_path / "state", transport)
            source.clear()
            server.calls.clear()
            killed = 0
            while await copy.is_killed(rng):
                killed += 1
                if kills + killed >= KILLS:
                    process = copy.start()
                    _, err = await anyio.to_thread.run_sync(process.communicate)
                    assert process.returncode == 0, err
                    break
            kills += killed
            assert await server.tags(ACCOUNT, REGION, name) == wanted
            assert_no_byte_twice(server, max(blobs.values()))
            # No session is lost on the way, so that all that was acknowledged counts.
            manifests = {digest.partition(":")[2] for digest in wanted.values()}
            unique = sum(size for digest, size in blobs.items() if digest not in manifests)
            assert server.calls.counters.layer_bytes_acknowledged == unique
            again = source.bytes - unique
            assert again <= killed * LAYERS * (PART + ON_ITS_WAY)
    assert kills >= KILLS


def assert_no_byte_twice(server: RunningRegistry, largest: int) -> None:
    acknowledged: defaultdict[str, int] = defaultdict(int)
    for call in parts(server.calls):
        acknowledged[str(call.upload_id)] += call.acknowledged_bytes
        # The question how much a session has carries one byte over ECR's own API.
        if call.error == "InvalidLayerPartException":
            assert call.layer_bytes <= 1
    assert max(acknowledged.values()) <= largest
