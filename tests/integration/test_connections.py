"""Connections to registries that let nobody in: closed at once, counted, and tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from support import ACCOUNT, HOST, KEY_ID, REGION, SECRET

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions
from asyncpush.engine.connections import Connections
from asyncpush.engine.options import RegistrySettings
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
from asyncpush.oci.writer import LayoutWriter
from asyncpush.plan.reference import AnyRegistry
from asyncpush.registries.base import Transport

pytestmark = pytest.mark.anyio

REPOSITORY = "connections/app"


@dataclass
class Opened:
    """The transports that are open, and how many there ever were."""

    now: int = 0
    ever: int = 0


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Counts the real transports."""
    count = Opened()
    original = Connections._open

    @asynccontextmanager
    async def counting(
        connections: Connections, registry: AnyRegistry, settings: RegistrySettings
    ) -> AsyncIterator[Transport]:
        async with original(connections, registry, settings) as transport:
            count.now += 1
            count.ever += 1
            yield transport
        # Only where closing came to its end.
        count.now -= 1

    monkeypatch.setattr(Connections, "_open", counting)
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    return count


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    writer = LayoutWriter(tmp_path / "layout")
    layer = writer.blob(b"a layer", mediatypes.OCI_LAYER)
    writer.entry(writer.image([layer]), "v1")
    return writer.close()


@asynccontextmanager
async def serving(
    root: Path, faults: Callable[[CallInfo], Fault | None]
) -> AsyncIterator[RunningRegistry]:
    home = Registry(ACCOUNT, REGION)
    open_to_all = DistributionOptions(anonymous_push=True)
    options = LocalRegistryOptions(
        faults=faults, shutdown_timeout=0, distribution=open_to_all, default_registry=home
    )
    async with LocalRegistry(root, [Key(KEY_ID, SECRET, ACCOUNT)], options).run() as server:
        await server.ensure_repository(ACCOUNT, REGION, REPOSITORY)
        yield server


def options_for(url: str, transport: Any) -> PushOptions:
    aws = AwsOptions(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=url)
    return PushOptions(aws=aws, transport=transport, attempts=2, retry_base=0.01, retry_cap=0.01)


@pytest.mark.parametrize(
    ("transport", "fault"),
    [
        ("native", Fault(drop="before")),
        ("native", Fault(code="AccessDeniedException")),
        ("hybrid", Fault(drop="before")),
        ("auto", Fault(code="AccessDeniedException")),
        ("docker", Fault(code="UNAVAILABLE", status=503)),
    ],
)
async def test_a_registry_that_lets_nobody_in_is_closed_and_tried_again_by_the_next_push(
    tmp_path: Path, layout: Path, opened: Opened, transport: str, fault: Fault
) -> None:
    faults: list[Fault] = [fault]
    action = "v2.Ping" if transport == "docker" else "GetAuthorizationToken"

    def refusing(call: CallInfo) -> Fault | None:
        return faults[0] if faults and call.action == action else None

    async with serving(tmp_path / "store", refusing) as server:
        target, api = f"{HOST}/{REPOSITORY}", transport
        if transport == "docker":
            target, api = f"docker://{server.url.removeprefix('http://')}/{REPOSITORY}", "native"
        async with Pusher(options_for(server.url, api)) as pusher:
            tried = 0
            for number in range(1, 4):
                report = await pusher.push([PushItem(layout, target)])
                assert len(report.failed) == 1
                assert opened.now == 0
                assert opened.ever >= number
                # The calls of connections that are closed count, too.
                (calls,) = report.calls.values()
                tried += calls["GetAuthorizationToken"]["calls"]
                assert tried == server.calls.counters.calls[action]
            faults.clear()
            assert (await pusher.push([PushItem(layout, target)])).ok
            assert opened.now == 1
        assert opened.now == 0


@pytest.mark.parametrize("transport", ["native", "auto"])
async def test_a_push_that_is_cancelled_while_it_connects_closes_what_it_opened(
    tmp_path: Path, layout: Path, opened: Opened, transport: str
) -> None:
    stuck = anyio.Event()

    def hanging(call: CallInfo) -> Fault | None:
        stuck.set()
        return Fault(delay=0.5)

    async with (
        serving(tmp_path / "store", hanging) as server,
        Pusher(options_for(server.url, transport)) as pusher,
    ):
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pusher.push, [PushItem(layout, f"{HOST}/{REPOSITORY}")])
                await stuck.wait()
                assert opened.now == 1
                tasks.cancel_scope.cancel()
        assert opened.now == 0
