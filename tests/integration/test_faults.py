"""Faults on the way: what is asserted is the outcome, and that nothing was lost or doubled."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support import ACCOUNT, HOST, KEY_ID, PUSH_ACTIONS, SECRET

from asyncpush import (
    AwsOptions,
    CallRetried,
    Event,
    ImageStatus,
    Pusher,
    PushItem,
    PushOptions,
    PushReport,
)
from asyncpush.localregistry import CallInfo, Fault, Key, LocalRegistry, LocalRegistryOptions
from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
REPOSITORY = "faults/app"
TARGET = f"{HOST}/{REPOSITORY}"
Faults = Callable[[CallInfo], Fault | None]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images that share a layer of three parts."""
    writer = LayoutWriter(tmp_path_factory.mktemp("faults") / "layout")
    shared = writer.blob(os.urandom(25 * MIB), mediatypes.OCI_LAYER)
    for name in ("v1", "v2"):
        own = writer.blob(f"layer of {name}".encode(), mediatypes.OCI_LAYER)
        writer.entry(writer.image([shared, own]), name)
    return writer.close()


class Bench:
    """A local registry with faults, and pushes into it."""

    def __init__(self, server) -> None:  # type: ignore[no-untyped-def]
        self.server = server
        self.events: list[Event] = []

    async def push(self, layout: Path, **options: object) -> PushReport:
        aws = AwsOptions(
            access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=self.server.url
        )
        settings = PushOptions(aws=aws, retry_base=0.01, **options)  # type: ignore[arg-type]
        async with Pusher(settings, on_event=self.events.append) as pusher:
            return await pusher.push([PushItem(layout, TARGET)])

    def retried(self) -> Counter[str]:
        return Counter(e.call for e in self.events if isinstance(e, CallRetried))

    def calls(self) -> Counter[str]:
        return Counter(call.action for call in self.server.calls)

    async def assert_complete(self, layout: Path) -> None:
        """Every entry can be read back by tag; the server proved every digest."""
        tags = await self.server.tags(ACCOUNT, "eu-central-1", REPOSITORY)
        assert tags == {e.ref_name: e.digest for e in Layout(layout).entries}


@asynccontextmanager
async def bench(tmp_path: Path, faults: Faults) -> AsyncIterator[Bench]:
    registry = LocalRegistry(
        tmp_path / "store", [Key(KEY_ID, SECRET, ACCOUNT)], LocalRegistryOptions(faults=faults)
    )
    async with registry.run() as server:
        await server.ensure_repository(ACCOUNT, "eu-central-1", REPOSITORY)
        yield Bench(server)


def nth(action: str, number: int, fault: Fault) -> Faults:
    def faults(call: CallInfo) -> Fault | None:
        return fault if (call.action, call.number) == (action, number) else None

    return faults


@pytest.mark.parametrize("action", sorted(PUSH_ACTIONS))
@pytest.mark.parametrize(
    "fault",
    [
        Fault(code="ServerException", status=500),
        Fault(code="ThrottlingException"),
        Fault(drop="before"),
        Fault(drop="after"),
    ],
    ids=["server-error", "throttled", "lost-before", "lost-after"],
)
async def test_one_fault_of_any_call_is_retried(
    tmp_path: Path, layout: Path, action: str, fault: Fault
) -> None:
    async with bench(tmp_path, nth(action, 1, fault)) as it:
        report = await it.push(layout)

        assert report.ok, [str(image.error) for image in report.failed]
        assert it.retried() == {action: 1}
        assert report.retries + report.throttles == 1
        assert report.throttles == (fault.code == "ThrottlingException")
        await it.assert_complete(layout)


async def test_part_whose_acknowledgement_is_lost_is_not_doubled(
    tmp_path: Path, layout: Path
) -> None:
    async with bench(tmp_path, nth("UploadLayerPart", 2, Fault(drop="after"))) as it:
        report = await it.push(layout, layers=1)

        assert report.ok
        # The server has the part, so it names the byte behind it: every byte was taken once.
        size = sum(blob.size for blob in _blobs(layout))
        assert it.server.calls.counters.layer_bytes_acknowledged == size
        await it.assert_complete(layout)


async def test_session_that_is_gone_begins_again(tmp_path: Path, layout: Path) -> None:
    fault = Fault(code="UploadNotFoundException", message="The upload could not be found")
    async with bench(tmp_path, nth("UploadLayerPart", 2, fault)) as it:
        report = await it.push(layout, layers=1)

        assert report.ok, [str(image.error) for image in report.failed]
        assert it.calls()["InitiateLayerUpload"] == 1 + len(_blobs(layout))
        await it.assert_complete(layout)


async def test_blob_that_the_registry_lost_is_uploaded_once_more(
    tmp_path: Path, layout: Path
) -> None:
    fault = Fault(code="LayersNotFoundException", message="Layers could not be found")
    async with bench(tmp_path, nth("PutImage", 1, fault)) as it:
        report = await it.push(layout)

        assert report.ok, [str(image.error) for image in report.failed]
        assert it.calls()["PutImage"] == 3
        await it.assert_complete(layout)


async def test_failure_that_stays_ends_after_the_attempts_and_tells_them(
    tmp_path: Path, layout: Path
) -> None:
    def faults(call: CallInfo) -> Fault | None:
        if call.action == "PutImage" and call.params.get("imageTag") == "v1":
            return Fault(code="ServerException", message="not today", status=500)
        return None

    async with bench(tmp_path, faults) as it:
        report = await it.push(layout, attempts=3)

        (failed,) = report.failed
        assert failed.name == "v1"
        assert "attempts 3" in str(failed.error)
        assert "not today" in str(failed.error)
        assert report.count(ImageStatus.PUSHED) == 1
        assert it.retried() == {"PutImage": 2}


async def test_shared_blob_that_fails_for_one_image_is_tried_again_by_the_next(
    tmp_path: Path, layout: Path
) -> None:
    shared = max(_blobs(layout), key=lambda blob: blob.size)
    failures = []

    def faults(call: CallInfo) -> Fault | None:
        if call.action == "UploadLayerPart" and call.params.get("partFirstByte") == 10 * MIB:
            failures.append(call)
            if len(failures) <= 2:
                return Fault(code="ServerException", status=500)
        return None

    async with bench(tmp_path, faults) as it:
        report = await it.push(layout, attempts=2)

        assert shared.size == 25 * MIB
        assert len(report.failed) == 1
        assert report.count(ImageStatus.PUSHED) == 1
        again = await it.push(layout)
        assert again.ok
        await it.assert_complete(layout)


async def test_image_whose_blob_fails_for_good_leaves_no_manifest(
    tmp_path: Path, layout: Path
) -> None:
    def faults(call: CallInfo) -> Fault | None:
        if call.action == "UploadLayerPart" and call.params.get("partFirstByte") == 20 * MIB:
            return Fault(code="KmsException", message="the key is disabled")
        return None

    async with bench(tmp_path, faults) as it:
        report = await it.push(layout)

        assert len(report.failed) == 2
        assert all("the key is disabled" in str(image.error) for image in report.failed)
        assert it.calls()["PutImage"] == 0
        assert await it.server.tags(ACCOUNT, "eu-central-1", REPOSITORY) == {}


async def test_session_expires_for_real(tmp_path: Path, layout: Path) -> None:
    now = [1_800_000_000.0]
    jumps = iter([3600.0])

    def faults(call: CallInfo) -> Fault | None:
        if call.action == "UploadLayerPart" and call.number == 2:
            now[0] += next(jumps, 0)
        return None

    options = LocalRegistryOptions(
        faults=faults, clock=lambda: now[0], upload_lifetime=60, max_clock_skew=1e9
    )
    registry = LocalRegistry(tmp_path / "store", [Key(KEY_ID, SECRET, ACCOUNT)], options)
    async with registry.run() as server:
        await server.ensure_repository(ACCOUNT, "eu-central-1", REPOSITORY)
        it = Bench(server)
        report = await it.push(layout, layers=1)

        assert report.ok, [str(image.error) for image in report.failed]
        await it.assert_complete(layout)


def _blobs(layout: Path) -> list[os.stat_result]:
    manifests = {e.digest.split(":")[1] for e in Layout(layout).entries}
    files = (layout / "blobs" / "sha256").iterdir()
    return [_Blob(p.name, p.stat().st_size) for p in files if p.name not in manifests]


class _Blob:
    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
