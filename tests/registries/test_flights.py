"""Work that is shared: done once, handed over when cancelled, its failure an error for each."""

from __future__ import annotations

import anyio
import pytest

from asyncpush.errors import AsyncpushError, ThrottledError
from asyncpush.registries.flights import Flights

pytestmark = pytest.mark.anyio


class Work:
    """Work that ends when it is let."""

    def __init__(self, error: AsyncpushError | None = None) -> None:
        self.begun = 0
        self.go = anyio.Event()
        self.error = error

    async def __call__(self) -> int:
        self.begun += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return self.begun


async def test_those_who_ask_while_it_is_done_share_it_and_later_ones_do_not() -> None:
    flights: Flights[str, int] = Flights()
    work = Work()
    results: list[int] = []

    async def ask(key: str) -> None:
        results.append(await flights.do(key, work))

    async with anyio.create_task_group() as tasks:
        for key in "aaab":
            tasks.start_soon(ask, key)
        await anyio.wait_all_tasks_blocked()
        assert work.begun == 2
        work.go.set()
    assert len(results) == 4
    await ask("a")
    assert work.begun == 3


async def test_a_cancelled_leader_hands_over() -> None:
    flights: Flights[str, int] = Flights()
    work = Work()
    results: list[int] = []

    async def ask() -> None:
        results.append(await flights.do("a", work))

    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as leader:
            leader.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(ask)
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            leader.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert work.begun == 2
        work.go.set()
    assert results == [2, 2]


async def test_a_failure_is_raised_to_all_as_an_error_of_their_own() -> None:
    flights: Flights[str, int] = Flights()
    cause = ValueError("why")
    error = ThrottledError("too fast", registry="here")
    error.retry_after = 7
    error.__cause__ = cause
    work = Work(error)
    raised: list[ThrottledError] = []

    async def ask(name: str) -> None:
        try:
            await flights.do("a", work)
        except ThrottledError as exc:
            exc.at(repository=name)
            raised.append(exc)

    async with anyio.create_task_group() as tasks:
        for name in ("one", "two", "three"):
            tasks.start_soon(ask, name)
        await anyio.wait_all_tasks_blocked()
        work.go.set()
    assert work.begun == 1
    assert {exc.where["repository"] for exc in raised} == {"one", "two", "three"}
    for exc in raised:
        assert (exc.message, exc.retry_after, exc.where["registry"]) == ("too fast", 7, "here")
        assert exc.__cause__ is cause
