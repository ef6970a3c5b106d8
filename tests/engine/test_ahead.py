"""Targets are connected while sources are asked; what fails there is for those who need them."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from asyncpush.engine.ahead import connecting_ahead
from asyncpush.errors import AccessDeniedError, UsageError
from asyncpush.plan.items import PushItem
from asyncpush.plan.reference import AnyRegistry

pytestmark = pytest.mark.anyio

COPIES = [PushItem(f"docker://from.test/app{i}", f"docker://to{i % 2}.test/app") for i in range(4)]


async def test_each_registry_that_copies_go_to_is_connected_once() -> None:
    asked: list[str] = []

    async def connect(registry: AnyRegistry) -> None:
        asked.append(registry.host)
        raise AccessDeniedError("not for you")

    items = [*COPIES, PushItem("layouts/app", "docker://local.test/app")]
    items.append(PushItem("docker://from.test/app", "docker://"))
    async with connecting_ahead(connect) as ahead:
        assert await anyio.to_thread.run_sync(lambda: list(ahead(items))) == items
        await anyio.wait_all_tasks_blocked()
    assert sorted(asked) == ["to0.test", "to1.test"]


async def test_nothing_waits_for_a_registry_that_does_not_answer() -> None:
    async def connect(registry: AnyRegistry) -> None:
        await anyio.sleep_forever()

    async def fails() -> None:
        async with connecting_ahead(connect) as ahead:
            await anyio.to_thread.run_sync(lambda: list(ahead(COPIES)))
            raise UsageError("wrong")

    with anyio.fail_after(5):
        async with connecting_ahead(connect) as ahead:
            await anyio.to_thread.run_sync(lambda: list(ahead(COPIES)))
        with pytest.raises(UsageError, match="wrong"):
            await fails()
