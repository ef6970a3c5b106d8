"""Blobs from another registry into targets over each API, over real sockets; nothing on a disk."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
from origins import OverHttp, layers_of, remote
from support import ACCOUNT, HOST, KEY_ID, REGION, SECRET
from transports import parts

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions, PushReport
from asyncpush.engine.journal import open_journal
from asyncpush.errors import DigestMismatchError, SourceError
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
from asyncpush.plan.graph import Plan

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
REPOSITORY = "stream/app"
ANYBODY = DistributionOptions(anonymous_push=True)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images that share a layer of 25 MiB, and one whose layer has 70 MiB."""
    writer = LayoutWriter(tmp_path_factory.mktemp("streaming") / "layout")
    shared = writer.blob(os.urandom(25 * MIB), mediatypes.OCI_LAYER)
    for i in range(3):
        own = writer.blob(os.urandom(100_000 * i + 7), mediatypes.OCI_LAYER)
        writer.entry(writer.image([shared, own]), f"v{i}")
    large = writer.blob(os.urandom(70 * MIB), mediatypes.OCI_LAYER)
    writer.entry(writer.image([large]), "large")
    return writer.close()


@asynccontextmanager
async def serving(
    store: Path, faults: Callable[[CallInfo], Fault | None] | None = None
) -> AsyncIterator[RunningRegistry]:
    """A registry of both APIs that takes pushes from anybody."""
    home = Registry(ACCOUNT, REGION)
    options = LocalRegistryOptions(distribution=ANYBODY, default_registry=home, faults=faults)
    async with LocalRegistry(store, [Key(KEY_ID, SECRET, ACCOUNT)], options).run() as server:
        await server.ensure_repository(*home, REPOSITORY)
        yield server


def options_for(server: RunningRegistry, transport: str, **options: object) -> PushOptions:
    aws = AwsOptions(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=server.url)
    ecr = None if transport == "plain" else transport
    return PushOptions(aws=aws, transport=ecr, retry_base=0.01, **options)  # type: ignore[arg-type]


def target_of(server: RunningRegistry, transport: str) -> str:
    if transport != "plain":
        return f"{HOST}/{REPOSITORY}"
    return f"docker://{server.url.removeprefix('http://')}/{REPOSITORY}"


@pytest.fixture(scope="module")
def source_store(tmp_path_factory: pytest.TempPathFactory, layout: Path) -> Path:
    """The store of a registry that has the images."""
    store = tmp_path_factory.mktemp("source")

    async def fill() -> None:
        async with serving(store) as server, Pusher(options_for(server, "plain")) as pusher:
            report = await pusher.push([PushItem(layout, target_of(server, "plain"))])
            assert report.ok, [str(image.error) for image in report.failed]

    anyio.run(fill)
    return store


@asynccontextmanager
async def source_at(store: Path) -> AsyncIterator[OverHttp]:
    async with serving(store) as server, aiohttp.ClientSession() as session:
        yield OverHttp(session, server.url, REPOSITORY)


async def plan_from(
    pusher: Pusher, origin: OverHttp, layout: Path, target: str, entry: str = ""
) -> Plan:
    plan, rejected = await pusher.plan([PushItem(f"{layout}{entry}", target)])
    assert not rejected
    return remote(plan, origin)


async def assert_complete(server: RunningRegistry, layout: Path) -> None:
    tags = await server.tags(ACCOUNT, REGION, REPOSITORY)
    assert tags == {e.ref_name: e.digest for e in Layout(layout).entries}


def failures(report: PushReport) -> list[str]:
    return [str(image.error) for image in report.failed]


@pytest.fixture(params=["native", "distribution", "auto", "plain"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_images_arrive_and_each_blob_is_read_once(
    tmp_path: Path, source_store: Path, layout: Path, transport: str
) -> None:
    async with source_at(source_store) as origin, serving(tmp_path) as server:
        async with Pusher(options_for(server, transport)) as pusher:
            plan = await plan_from(pusher, origin, layout, target_of(server, transport))
            report = await pusher.push_plan(plan)
        assert report.ok, failures(report)
        await assert_complete(server, layout)
        blobs = layers_of(plan)
        assert (origin.connections, origin.given) == (len(blobs), sum(blobs.values()))
        assert report.bytes_sent == sum(blobs.values())


async def test_connections_of_the_source_that_break_are_not_noticed_by_the_target(
    tmp_path: Path, source_store: Path, layout: Path, transport: str
) -> None:
    rng = random.Random(7)
    async with source_at(source_store) as origin, serving(tmp_path) as server:
        origin.cut = lambda: rng.choice([rng.randint(0, 100_000), rng.randint(0, 20 * MIB)])
        async with Pusher(options_for(server, transport)) as pusher:
            plan = await plan_from(pusher, origin, layout, target_of(server, transport))
            report = await pusher.push_plan(plan)
        assert report.ok, failures(report)
        await assert_complete(server, layout)
        blobs = layers_of(plan)
        assert origin.connections > len(blobs) + 3
        assert origin.given == sum(blobs.values()) == report.bytes_sent
        asked = {"v2.HeadBlob", "v2.HeadManifest"}
        assert {action for action, _ in server.calls.counters.errors} <= asked


async def test_content_that_is_not_its_digests_is_never_completed(
    tmp_path: Path, source_store: Path, layout: Path, transport: str
) -> None:
    async with source_at(source_store) as origin, serving(tmp_path) as server:
        async with Pusher(options_for(server, transport)) as pusher:
            plan = await plan_from(pusher, origin, layout, target_of(server, transport))
            (graph,) = plan.repositories.values()
            shared = next(d for d, b in graph.blobs.items() if b.size == 25 * MIB)
            other = OverHttp(origin.session, origin.url, REPOSITORY)
            wrong = _Wrong(other)
            remote_blob = graph.blobs[shared]
            graph.blobs[shared] = type(remote_blob)(
                shared, remote_blob.size, type(remote_blob.source)(shared, remote_blob.size, wrong)
            )
            report = await pusher.push_plan(plan)
        assert len(report.failed) == 3
        for image in report.failed:
            assert isinstance(image.error, DigestMismatchError)
            assert image.error.where["source"] == other.name
            assert image.error.where["digest"] == shared
        assert list(await server.tags(ACCOUNT, REGION, REPOSITORY)) == ["large"]
        # The registry was never asked to complete it.
        assert not [e for e in server.calls.counters.errors if "Layer" in e[1] or "DIGEST" in e[1]]


class _Wrong:
    """Another origin's bytes, one of them changed."""

    def __init__(self, origin: OverHttp) -> None:
        self._origin = origin
        self.name = origin.name

    @asynccontextmanager
    async def read(self, digest, size, offset):  # type: ignore[no-untyped-def]
        async with self._origin.read(digest, size, offset) as pieces:
            yield self._pieces(pieces)

    async def _pieces(self, pieces):  # type: ignore[no-untyped-def]
        first = True
        async for piece in pieces:
            yield bytes([piece[0] ^ 1]) + piece[1:] if first else piece
            first = False


async def test_chunks_that_break_go_on_from_the_byte_that_the_target_names(
    tmp_path: Path, source_store: Path, layout: Path
) -> None:
    def cut(call: CallInfo) -> Fault | None:
        return Fault(drop="during") if (call.action, call.number) == ("v2.PatchUpload", 1) else None

    async with source_at(source_store) as origin, serving(tmp_path, cut) as server:
        async with Pusher(options_for(server, "plain")) as pusher:
            target = target_of(server, "plain")
            plan = await plan_from(pusher, origin, layout, target, ":large")
            report = await pusher.push_plan(plan)
        assert report.ok, failures(report)
        received: defaultdict[str | None, int] = defaultdict(int)
        for call in parts(server.calls):
            assert call.layer_bytes == call.acknowledged_bytes
            received[call.upload_id] += call.layer_bytes
        assert max(received.values()) == 70 * MIB
        size = sum(layers_of(plan).values())
        assert size < origin.given < size + 12 * MIB


async def test_parts_that_are_refused_go_again_from_memory(
    tmp_path: Path, source_store: Path, layout: Path
) -> None:
    def fail(call: CallInfo) -> Fault | None:
        if call.action == "UploadLayerPart" and call.number % 3 == 0:
            return Fault(code="ServerException", status=500)
        if call.action == "UploadLayerPart" and call.number % 5 == 0:
            return Fault(drop="after")
        return None

    async with source_at(source_store) as origin, serving(tmp_path, fail) as server:
        async with Pusher(options_for(server, "native")) as pusher:
            plan = await plan_from(pusher, origin, layout, target_of(server, "native"))
            report = await pusher.push_plan(plan)
        assert report.ok, failures(report)
        assert sum(server.calls.counters.errors.values()) > 2
        assert origin.given == sum(layers_of(plan).values())


async def test_blobs_whose_api_closes_begin_again_over_the_other_one(
    tmp_path: Path, source_store: Path, layout: Path
) -> None:
    def breaking(call: CallInfo) -> Fault | None:
        lost = call.action in ("v2.PatchUpload", "v2.PutUpload")
        return Fault(drop="before") if lost else None

    async with source_at(source_store) as origin, serving(tmp_path, breaking) as server:
        async with Pusher(options_for(server, "auto")) as pusher:
            plan = await plan_from(pusher, origin, layout, target_of(server, "auto"))
            report = await pusher.push_plan(plan)
        assert report.ok, failures(report)
        await assert_complete(server, layout)
        assert server.calls.counters.calls["UploadLayerPart"] > 8


async def test_a_source_that_is_gone_fails_its_images_with_source_and_digest(
    tmp_path: Path, source_store: Path, layout: Path, transport: str
) -> None:
    async with source_at(source_store) as origin, serving(tmp_path) as server:
        origin.cut = lambda: 1000
        async with Pusher(options_for(server, transport, attempts=3)) as pusher:
            plan = await plan_from(pusher, origin, layout, target_of(server, transport))
            report = await pusher.push_plan(plan)
        assert len(report.failed) == 4
        for image in report.failed:
            assert isinstance(image.error, SourceError)
            assert image.error.where["source"] == origin.name
            assert image.error.where["digest"] in layers_of(plan)
        assert not await server.tags(ACCOUNT, REGION, REPOSITORY)


@pytest.mark.parametrize("transport", ["native", "plain"])
async def test_a_push_that_is_stopped_goes_on_in_the_middle_of_a_layer(
    tmp_path: Path, source_store: Path, layout: Path, transport: str
) -> None:
    """The journal is what a killed process leaves; nothing else lives on."""
    async with source_at(source_store) as origin, serving(tmp_path / "store") as server:
        target = target_of(server, transport)
        half = 30 * MIB
        journal_file = tmp_path / "journal"
        with anyio.CancelScope() as scope:
            async with (
                open_journal(journal_file, "job", "job") as journal,
                Pusher(options_for(server, transport)) as pusher,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(_stop_at, origin, half, scope)
                plan = await plan_from(pusher, origin, layout, target, ":large")
                await pusher.push_plan(plan, journal=journal)
        assert scope.cancelled_caught
        first = origin.given
        assert first < 70 * MIB
        origin.given = origin.connections = 0
        async with (
            open_journal(journal_file, "job", "job") as journal,
            Pusher(options_for(server, transport)) as pusher,
        ):
            plan = await plan_from(pusher, origin, layout, target, ":large")
            report = await pusher.push_plan(plan, journal=journal)
        assert report.ok, failures(report)
        size = sum(layers_of(plan).values())
        # A part, and what of the next one came with its last piece.
        assert size <= first + origin.given <= size + 11 * MIB
        received: defaultdict[str | None, int] = defaultdict(int)
        for call in parts(server.calls):
            received[call.upload_id] += call.acknowledged_bytes
        assert max(received.values()) == 70 * MIB


async def _stop_at(origin: OverHttp, given: int, scope: anyio.CancelScope) -> None:
    while origin.given < given:
        await anyio.sleep(0.001)
    scope.cancel()
