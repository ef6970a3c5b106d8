"""Retries: which failures, how often, and how long in between."""

from __future__ import annotations

import random
from collections.abc import Callable

import anyio
import pytest

from asyncpush.engine.events import CallEnded, CallRetried, Event
from asyncpush.engine.pace import Pace
from asyncpush.engine.retry import NotNeededError, Retrier
from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    ContentError,
    ThrottledError,
    TransientError,
)

pytestmark = pytest.mark.anyio


class Calls:
    """A call that fails as told and then succeeds; sleeps are noted instead of slept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, attempts: int, base: float, cap: float):
        self.retries: list[CallRetried] = []
        self.tries: list[CallEnded] = []
        self.slept: list[float] = []
        self.made = 0
        self.advance: Callable[[float], None] = lambda seconds: None
        self.pace = Pace(quota=1e12)
        self._retrier = Retrier(attempts, base, cap, self._take, random.Random(7))
        monkeypatch.setattr(anyio, "sleep", self._sleep)

    def _take(self, event: Event) -> None:
        if isinstance(event, CallEnded):
            self.tries.append(event)
        elif isinstance(event, CallRetried):
            self.retries.append(event)

    async def _sleep(self, seconds: float) -> None:
        if seconds:  # a pace without a queue waits 0 seconds
            self.slept.append(seconds)
            self.advance(seconds)

    async def run(self, failures: int, error: Exception | None = None) -> str:
        async def call() -> str:
            self.made += 1
            if self.made <= failures:
                raise error or TransientError(f"lost {self.made}")
            return "done"

        return await self._retrier.call("PutImage", "app", call, self.pace)


async def test_a_call_that_recovers_is_told_of_and_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(monkeypatch, 4, 1.0, 60.0)
    assert await calls.run(3) == "done"
    assert calls.made == 4
    assert [(e.call, e.repository, e.error, e.attempt) for e in calls.retries] == [
        ("PutImage", "app", f"lost {n}", n) for n in (1, 2, 3)
    ]
    assert [e.delay for e in calls.retries] == calls.slept
    assert [e.outcome for e in calls.tries] == ["transient"] * 3 + ["ok"]


async def test_a_registry_is_not_asked_sooner_than_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for error, least, most in (
        (ThrottledError("slowly"), 7, 8),
        (TransientError("later"), 100_000, 301),
    ):
        calls = Calls(monkeypatch, 3, 1.0, 1.0)
        error.retry_after = least
        assert await calls.run(1, error) == "done"
        (waited,) = calls.slept
        assert min(least, 300) <= waited <= most


async def test_the_last_failure_says_how_often_it_was_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(monkeypatch, 3, 1.0, 60.0)
    with pytest.raises(TransientError, match=r"lost 3 \(attempts 3\)"):
        await calls.run(99)
    assert (calls.made, len(calls.slept)) == (3, 2)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AccessDeniedError("no"), ["access-denied"]),
        (ContentError("bad"), ["content"]),
        (KeyError("bug"), ["unforeseen"]),
    ],
)
async def test_what_will_not_pass_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: list[str]
) -> None:
    calls = Calls(monkeypatch, 8, 1.0, 60.0)
    with pytest.raises(AsyncpushError) as caught:
        await calls.run(1, error)
    assert error in (caught.value, caught.value.__cause__)
    assert (calls.made, calls.slept, calls.retries) == (1, [], [])
    assert [e.outcome for e in calls.tries] == told


async def test_waits_are_drawn_from_a_bound_that_doubles_up_to_the_cap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[tuple[float, float]] = []
    calls = Calls(monkeypatch, 7, 0.25, 3.0)
    uniform = calls._retrier._rng.uniform
    monkeypatch.setattr(
        calls._retrier._rng, "uniform", lambda a, b: (drawn.append((a, b)), uniform(a, b))[1]
    )
    await calls.run(6)
    assert drawn == [(0, bound) for bound in (0.25, 0.5, 1.0, 2.0, 3.0, 3.0)]
    assert all(0 < delay < bound for delay, (_, bound) in zip(calls.slept, drawn, strict=True))
    assert len(set(calls.slept)) == 6


async def test_any_number_of_attempts_keeps_to_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, 3000, 0.25, 20.0)
    assert await calls.run(2000) == "done"
    assert 19 < max(calls.slept) <= 20


async def test_being_throttled_is_no_failure_while_calls_go_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(monkeypatch, 2, 0.25, 20.0)
    assert await calls.run(30, ThrottledError("slow down")) == "done"
    assert all(event.throttled for event in calls.retries)
    assert [e.outcome for e in calls.tries] == ["throttled"] * 30 + ["ok"]
    assert calls.pace.throttles == 30
    assert calls.pace.rate < calls.pace.quota


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock for the pace that goes on while somebody sleeps, and when it is told to."""
    now = 1000.0

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(anyio, "current_time", lambda: now)
    return advance


async def test_one_throttle_after_two_quiet_minutes_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    calls = Calls(monkeypatch, 8, 0.25, 20.0)
    assert await calls.run(0) == "done"
    clock(122)
    calls.made = 0
    assert await calls.run(1, ThrottledError("slow down")) == "done"


async def test_calls_that_are_only_throttled_end_after_two_minutes_and_all_their_tries(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    calls = Calls(monkeypatch, 3, 0.25, 20.0)
    calls.advance = clock
    with pytest.raises(ThrottledError, match="slow down"):
        await calls.run(99, ThrottledError("slow down"))
    assert 100 < sum(calls.slept) < 141
    # The registry is as it was, and still each call is tried more than once.
    calls.made = 0
    with pytest.raises(ThrottledError, match=r"attempts 3"):
        await calls.run(99, ThrottledError("slow down"))
    assert calls.made == 3


async def test_a_call_that_is_not_needed_any_more_is_neither_tried_again_nor_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(monkeypatch, 3, 0.25, 20.0)
    with pytest.raises(NotNeededError):
        await calls.run(1, NotNeededError())
    assert (calls.made, calls.pace.calls, calls.tries) == (1, 0, [])


async def test_a_wait_can_be_cancelled() -> None:
    retrier = Retrier(9, 1e6, 1e6, lambda event: None, random.Random(7))

    async def call() -> None:
        raise TransientError("lost")

    with anyio.move_on_after(0.01) as scope:
        await retrier.call("PutImage", "app", call, Pace(quota=100))
    assert scope.cancelled_caught
