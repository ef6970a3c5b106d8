"""Concurrent work: every bound holds, nothing is done twice, cancellation loses nothing."""

from __future__ import annotations

import asyncio
from collections import Counter

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpush.engine.work import ByteLimiter, Once, beside, for_each
from asyncpush.errors import AsyncpushError, ContentError, PartOutOfOrderError, TransientError

pytestmark = pytest.mark.anyio
TICKS = st.integers(0, 4)


async def ticks(count: int) -> None:
    for _ in range(count):
        await checkpoint()


@given(st.lists(TICKS, max_size=30), st.integers(1, 8))
@settings(deadline=None)
def test_each_item_is_worked_on_once_within_the_limit(durations: list[int], limit: int) -> None:
    done: Counter[int] = Counter()
    running = most = 0

    async def work(item: tuple[int, int]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await ticks(item[1])
        running -= 1
        done[item[0]] += 1

    anyio.run(for_each, enumerate(durations), limit, work)
    assert done == Counter(range(len(durations)))
    assert most <= limit
    assert most >= min(limit, len(durations), 1)


async def test_after_an_error_no_item_is_begun_and_what_runs_ends() -> None:
    begun: list[int] = []
    ended: list[int] = []

    async def work(item: int) -> None:
        begun.append(item)
        await ticks(item)
        if item < 3:
            raise ContentError(f"item {item}")
        await ticks(5)
        ended.append(item)

    with pytest.raises(ContentError, match="item 1"):
        await for_each([3, 2, 1, 3, 3, 3], 3, work)
    assert begun == [3, 2, 1]
    assert ended == [3]


async def test_a_programming_error_stops_the_work_at_once() -> None:
    async def work(item: int) -> None:
        if item:
            raise ZeroDivisionError
        await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await for_each([0, 1], 2, work)
    assert caught.group_contains(ZeroDivisionError)


async def test_cancelled_work_ends_and_begins_nothing_more() -> None:
    begun: list[int] = []

    async def work(item: int) -> None:
        begun.append(item)
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(for_each, range(100), 4, work)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert begun == [0, 1, 2, 3]


@given(
    st.lists(st.sampled_from(["ok", "transient", "fatal", "cancelled"]), min_size=1, max_size=8),
    st.integers(1, 4),
)
@settings(deadline=None)
def test_once_per_key_whatever_happens_to_the_worker(script: list[str], tries: int) -> None:
    """The n-th piece of work goes by the script's n-th word; every caller gets its due."""
    outcomes: list[str] = []
    worked: list[str] = []

    async def caller(once: Once[str, str]) -> None:
        with anyio.CancelScope() as scope:

            async def work() -> str:
                word = script[len(worked)]
                worked.append(word)
                await checkpoint()
                if word == "cancelled":
                    scope.cancel()
                    await checkpoint()
                if word == "transient":
                    raise TransientError("t")
                if word == "fatal":
                    raise ContentError("f")
                return word

            try:
                outcomes.append("did" if (await once.do("key", work))[1] else "had")
            except AsyncpushError as exc:
                outcomes.append(exc.kind)
        if scope.cancelled_caught:
            outcomes.append("cancelled")

    async def main() -> Once[str, str]:
        once: Once[str, str] = Once(tries)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in script:
                    tasks.start_soon(caller, once)
        return once

    once = anyio.run(main)
    # What should have been worked on: up to the first success, fatal failure, or try too many.
    expected: list[str] = []
    for word in script:
        expected.append(word)
        if word in ("ok", "fatal") or expected.count("transient") == tries:
            break
    assert worked == expected
    assert once.done("key") == ("ok" in expected)
    last = {"ok": "had", "fatal": "content", "transient": "transient", "cancelled": None}
    own = {"ok": "did", "fatal": "content", "transient": "transient", "cancelled": "cancelled"}
    waiting = [last[expected[-1]]] * (len(script) - len(expected))
    assert Counter(outcomes) == Counter([own[word] for word in expected] + waiting)


async def test_everyone_gets_an_error_with_places_of_its_own() -> None:
    once: Once[str, int] = Once()

    async def work() -> int:
        raise PartOutOfOrderError("refused", last_valid_byte=7, advice="wait", call="Connect")

    errors = []
    for repository in ("one", "two", "three"):
        with pytest.raises(PartOutOfOrderError) as caught:
            await once.do("registry", work)
        errors.append(caught.value.at(repository=repository))
    assert [error.where for error in errors] == [
        {"call": "Connect", "repository": name} for name in ("one", "two", "three")
    ]
    assert {(e.message, e.advice, e.last_valid_byte) for e in errors} == {("refused", "wait", 7)}


async def test_keys_are_forgotten_and_failures_forgiven() -> None:
    once: Once[str, int] = Once()
    results = iter([ContentError("broken"), 1, 2])

    async def work() -> int:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    for _ in range(2):
        with pytest.raises(ContentError, match="broken"):
            await once.do("key", work)
    once.forgive()
    assert await once.do("key", work) == (1, True)
    assert await once.do("key", work) == (1, False)
    once.forget("key")
    assert not once.done("key")
    assert await once.do("key", work) == (2, True)


async def test_different_keys_do_not_wait_for_each_other() -> None:
    once: Once[str, None] = Once()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(once.do, "slow", anyio.sleep_forever)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(1):
            await once.do("fast", checkpoint)
        tasks.cancel_scope.cancel()


HOLDERS = st.tuples(st.integers(0, 15), TICKS, TICKS, st.none() | st.integers(0, 8))


@given(st.integers(1, 10), st.lists(HOLDERS, max_size=12))
@settings(deadline=None)
def test_bytes_are_bounded_and_never_lost(
    total: int, holders: list[tuple[int, int, int, int | None]]
) -> None:
    """Holders are (bytes, ticks before, ticks while holding, ticks until cancelled)."""
    limiter = ByteLimiter(total)
    granted: set[int] = set()
    held = 0

    async def hold(number: int, size: int, duration: int) -> None:
        nonlocal held
        async with limiter.hold(size):
            granted.add(number)
            held += min(size, total)
            assert held <= total
            try:
                await ticks(duration)
            finally:
                held -= min(size, total)

    async def holder(number: int) -> None:
        size, before, duration, until_cancelled = holders[number]
        await ticks(before)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold, number, size, duration)
            if until_cancelled is not None:
                await ticks(until_cancelled)
                tasks.cancel_scope.cancel()

    async def main() -> None:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for number in range(len(holders)):
                    tasks.start_soon(holder, number)
            async with limiter.hold(total):  # all of it is there again
                pass

    anyio.run(main)
    assert {n for n, h in enumerate(holders) if h[3] is None} <= granted


async def test_who_wants_more_than_there_is_waits_for_all_of_it() -> None:
    limiter = ByteLimiter(10)
    order: list[str] = []

    async def hold(name: str, size: int) -> None:
        async with limiter.hold(size):
            order.append(name)

    async with anyio.create_task_group() as tasks, limiter.hold(1):
        for name, size in (("huge", 1000), ("small", 1)):
            tasks.start_soon(hold, name, size)
            await anyio.wait_all_tasks_blocked()
        assert order == []  # the small one fits, and does not starve the huge one
    assert order == ["huge", "small"]


@pytest.mark.parametrize("granted", [False, True])
async def test_a_waiter_that_is_cancelled_lets_the_next_one_in(granted: bool) -> None:
    """Also in the moment in which the bytes were granted, and the waiter has not run yet."""
    limiter = ByteLimiter(10)

    async def hold(size: int) -> None:
        async with limiter.hold(size):
            pass

    async with limiter.hold(5):
        cancelled = asyncio.create_task(hold(10))
        await anyio.wait_all_tasks_blocked()
        following = asyncio.create_task(hold(5))
        await anyio.wait_all_tasks_blocked()
        if not granted:
            cancelled.cancel()
            await asyncio.wait_for(following, 1)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await asyncio.wait_for(following, 1)


async def test_what_goes_beside_work_has_ended_with_it() -> None:
    ended: list[str] = []

    async def aside() -> None:
        await anyio.sleep(0.01)
        ended.append("aside")

    async def work() -> str:
        return "done"

    assert await beside(work, aside) == "done"
    assert ended == ["aside"]


async def test_work_that_fails_ends_what_goes_beside_it_and_raises_its_own_error() -> None:
    cancelled: list[bool] = []

    async def aside() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled.append(True)
            raise

    async def work() -> None:
        await anyio.sleep(0.01)
        raise TransientError("lost")

    with pytest.raises(TransientError, match="lost"), anyio.fail_after(5):
        await beside(work, aside)
    assert cancelled == [True]
