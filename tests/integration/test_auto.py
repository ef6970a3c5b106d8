"""Transport auto: raw bytes over OCI distribution while that goes well, else ECR's own API."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from forked import Forked
from support import ACCOUNT, HOST, KEY_ID, PUSH_ACTIONS, REGION, SECRET, environment
from transports import parts

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions, PushReport
from asyncpush.engine.events import Event, Warned
from asyncpush.errors import AccessDeniedError
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
from asyncpush.registries.ecr import gate

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
REPOSITORY = "auto/app"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [f"ecr:{name}" for name in sorted(PUSH_ACTIONS)],
            "Resource": "*",
        }
    ],
}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images that share a layer of 70 MiB, which takes two chunks."""
    writer = LayoutWriter(tmp_path_factory.mktemp("auto") / "layout")
    shared = writer.blob(os.urandom(70 * MIB), mediatypes.OCI_LAYER)
    for name in ("v1", "v2"):
        own = writer.blob(f"layer of {name}".encode(), mediatypes.OCI_LAYER)
        writer.entry(writer.image([shared, own]), name)
    return writer.close()


@asynccontextmanager
async def serving(
    store: Path, faults: Callable[[CallInfo], Fault | None] | None = None
) -> AsyncIterator[RunningRegistry]:
    """A registry whose key may do the six things that a push does."""
    key = Key(KEY_ID, SECRET, ACCOUNT, policy=POLICY)
    # Without credentials the root of /v2/ answers 401 before it meets a fault.
    options = LocalRegistryOptions(
        faults=faults,
        distribution=DistributionOptions(anonymous_pull=True),
        default_registry=Registry(ACCOUNT, REGION),
    )
    async with LocalRegistry(store, [key], options).run() as server:
        await server.ensure_repository(ACCOUNT, REGION, REPOSITORY)
        yield server


def pusher_to(server: RunningRegistry, events: list[Event], **options: Any) -> Pusher:
    aws = AwsOptions(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=server.url)
    settings = PushOptions(aws=aws, transport="auto", retry_base=0.01, retry_cap=0.01, **options)
    return Pusher(settings, on_event=events.append)


def warnings_of(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


async def push(server: RunningRegistry, layout: Path, **options: Any) -> PushReport:
    async with pusher_to(server, [], **options) as pusher:
        return await pusher.push([PushItem(layout, f"{HOST}/{REPOSITORY}")])


async def assert_complete(server: RunningRegistry, layout: Path) -> None:
    tags = await server.tags(ACCOUNT, REGION, REPOSITORY)
    assert tags == {e.ref_name: e.digest for e in Layout(layout).entries}
    assert server.calls.counters.layer_bytes_duplicate == 0


async def test_blobs_go_raw_and_all_else_by_ecrs_own_api(tmp_path: Path, layout: Path) -> None:
    async with serving(tmp_path) as server:
        report = await push(server, layout)
        assert report.ok, [str(image.error) for image in report.failed]
        await assert_complete(server, layout)
        calls = server.calls.counters.calls
        assert set(calls) == {
            *("GetAuthorizationToken", "BatchCheckLayerAvailability", "BatchGetImage", "PutImage"),
            *("v2.Ping", "v2.StartUpload", "v2.PatchUpload", "v2.PutUpload"),
        }
        assert calls["v2.PutUpload"] == 5
        assert server.calls.counters.layer_bytes_received == report.bytes_sent


def closed(call: CallInfo) -> Fault | None:
    """Nothing answers under /v2/."""
    return Fault(drop="before") if call.action.startswith("v2.") else None


def breaking(call: CallInfo) -> Fault | None:
    """Every chunk is lost, and its connection with it."""
    lost = call.action in ("v2.PatchUpload", "v2.PutUpload")
    return Fault(drop="before") if lost else None


def refusing(call: CallInfo) -> Fault | None:
    """Uploads under /v2/ are answered with an error of their own."""
    return Fault(code="SIZE_ODD", status=400) if call.action == "v2.PutUpload" else None


def failing(call: CallInfo) -> Fault | None:
    """No upload can be opened under /v2/."""
    return Fault(code="ServerException", status=500) if call.action == "v2.StartUpload" else None


def missing(call: CallInfo) -> Fault | None:
    """A gateway on the way does not know where uploads begin under /v2/."""
    return Fault(code="NOT_FOUND", status=404) if call.action == "v2.StartUpload" else None


def forgetting(call: CallInfo) -> Fault | None:
    """Sessions under /v2/ are gone as soon as they are used."""
    used = call.action in ("v2.PatchUpload", "v2.PutUpload")
    return Fault(code="BLOB_UPLOAD_UNKNOWN", status=404) if used else None


@pytest.mark.parametrize("attempts", [8, 2])
@pytest.mark.parametrize("fault", [closed, breaking, refusing, failing, missing, forgetting])
async def test_what_cannot_go_raw_goes_by_ecrs_own_api(
    tmp_path: Path, layout: Path, fault: Callable[[CallInfo], Fault | None], attempts: int
) -> None:
    async with serving(tmp_path, fault) as server:
        report = await push(server, layout, attempts=attempts)
        assert report.ok, [str(image.error) for image in report.failed]
        await assert_complete(server, layout)
        assert server.calls.counters.calls["CompleteLayerUpload"] == 5


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two layouts, each of one image with 19 layers and a config: 20 blobs."""
    layouts = []
    for name in ("v1", "v2"):
        writer = LayoutWriter(tmp_path_factory.mktemp("small") / "layout")
        layers = [writer.blob(f"{i} of {name}".encode(), mediatypes.OCI_LAYER) for i in range(19)]
        writer.entry(writer.image(layers, config={"author": name}), name)
        layouts.append(writer.close())
    return layouts


@pytest.mark.parametrize("action", ["v2.StartUpload", "v2.PutUpload", "v2.Ping"])
@pytest.mark.parametrize("fault", [Fault(drop="before"), Fault(code="Unavailable", status=503)])
async def test_a_single_failure_closes_nothing(
    tmp_path: Path, small: list[Path], action: str, fault: Fault
) -> None:
    failed: list[str] = []

    def once(call: CallInfo) -> Fault | None:
        if call.action != action or failed:
            return None
        failed.append(call.action)
        return fault

    events: list[Event] = []
    async with serving(tmp_path, once) as server, pusher_to(server, events) as pusher:
        report = await pusher.push([PushItem(small[0], f"{HOST}/{REPOSITORY}")])
        assert report.ok, [str(image.error) for image in report.failed]
        calls = server.calls.counters.calls
        # Only an upload that could not be begun goes by ECR's own API.
        assert calls["CompleteLayerUpload"] == (action == "v2.StartUpload")
    assert failed
    assert not warnings_of(events)


@pytest.mark.parametrize("fault", [failing, missing, breaking])
async def test_what_goes_on_failing_is_told_once_and_tried_again_later(
    tmp_path: Path,
    small: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[CallInfo], Fault | None],
) -> None:
    monkeypatch.setattr(gate, "_FIRST_WAIT", 0.2)
    monkeypatch.setattr(gate, "_LONGEST_WAIT", 0.2)
    broken = [True]

    def while_broken(call: CallInfo) -> Fault | None:
        return fault(call) if broken else None

    events: list[Event] = []
    async with (
        serving(tmp_path, while_broken) as server,
        pusher_to(server, events, layers=1) as pusher,
    ):
        calls = server.calls.counters.calls
        report = await pusher.push([PushItem(small[0], f"{HOST}/{REPOSITORY}")])
        assert report.ok, [str(image.error) for image in report.failed]
        assert calls["CompleteLayerUpload"] == 20
        (warning,) = warnings_of(events)
        assert "base64" in warning
        assert HOST in warning
        broken.clear()
        await anyio.sleep(0.2)
        report = await pusher.push([PushItem(small[1], f"{HOST}/{REPOSITORY}")])
        assert report.ok, [str(image.error) for image in report.failed]
        # One layer tries, and all that come after it go raw again.
        assert calls["CompleteLayerUpload"] == 20
    assert len(warnings_of(events)) == 1


async def test_what_both_apis_refuse_is_no_reason_to_close(
    tmp_path: Path, small: list[Path]
) -> None:
    def denying(call: CallInfo) -> Fault | None:
        begins = call.action in ("v2.StartUpload", "InitiateLayerUpload")
        return Fault(code="AccessDeniedException", status=403) if begins else None

    events: list[Event] = []
    async with serving(tmp_path, denying) as server, pusher_to(server, events) as pusher:
        report = await pusher.push([PushItem(small[0], f"{HOST}/{REPOSITORY}")])
    assert {type(image.error) for image in report.failed} == {AccessDeniedError}
    assert not warnings_of(events)


async def test_a_killed_push_goes_on_in_the_middle_of_its_layer(
    tmp_path: Path, layout: Path
) -> None:
    def slowly(call: CallInfo) -> Fault | None:
        return Fault(delay=0.3) if call.action == "v2.PutUpload" else None

    async with serving(tmp_path / "store", slowly) as server:
        env = environment(server.url) | {"XDG_STATE_HOME": str(tmp_path / "state")}
        command = ("push", layout, f"{HOST}/{REPOSITORY}", "--transport", "auto", "-v")
        process = Forked(*command, env=env)
        with anyio.fail_after(60):
            while server.calls.counters.layer_bytes_acknowledged < 64 * MIB:
                await anyio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await anyio.to_thread.run_sync(process.communicate)
        process = Forked(*command, env=env)
        _, err = await anyio.to_thread.run_sync(process.communicate)
        assert process.returncode == 0, err
        assert "resumed sha256:" in err
        await assert_complete(server, layout)
        acknowledged: defaultdict[str, int] = defaultdict(int)
        for call in parts(server.calls):
            acknowledged[str(call.upload_id)] += call.acknowledged_bytes
        assert max(acknowledged.values()) == 70 * MIB
