"""When uploads go by an optional API: after which failures not, and when again."""

from __future__ import annotations

import anyio
import pytest

from asyncpush.errors import AsyncpushError, TransientError
from asyncpush.registries.ecr.gate import Gate

ERROR = TransientError("the connection failed")


class Clock:
    """The event loop's clock, which a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(anyio, "current_time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def told() -> list[float]:
    return []


@pytest.fixture
def gate(told: list[float]) -> Gate:
    def closed(error: AsyncpushError, seconds: float) -> None:
        assert error is ERROR
        told.append(seconds)

    return Gate(closed)


def fail(gate: Gate, clock: Clock, step: str = "start") -> None:
    begun = clock.now
    clock.now += 0.1
    gate.failed(step, ERROR, begun)


def test_it_closes_after_three_in_a_row(gate: Gate, clock: Clock, told: list[float]) -> None:
    for _ in range(5):
        fail(gate, clock)
        fail(gate, clock)
        fail(gate, clock, "part")
        gate.worked("start")
        gate.proved()
    assert gate.open
    for _ in range(3):
        assert gate.lets()
        fail(gate, clock)
    assert not gate.open
    assert not gate.lets()
    assert told == [60]


def test_what_fails_together_counts_once(gate: Gate, clock: Clock) -> None:
    begun, clock.now = clock.now, clock.now + 1
    for _ in range(20):
        gate.failed("start", ERROR, begun)
        clock.now += 0.01
    assert gate.open


def test_one_upload_tries_and_waits_grow_until_bytes_arrive(
    gate: Gate, clock: Clock, told: list[float]
) -> None:
    gate.close(ERROR)
    for wait in (60, 120, 240, 480, 960, 960):
        clock.now += wait - 1
        assert not gate.lets()
        clock.now += 1
        assert gate.lets()
        assert not gate.lets()
        gate.worked("start")
        # That an upload can be begun proves nothing.
        assert not gate.open
        gate.close(ERROR)
    clock.now += 960
    assert gate.lets()
    gate.proved()
    assert gate.open
    assert told == [60]
    gate.close(ERROR)
    assert told == [60, 60]


def test_what_was_begun_before_it_closed_neither_opens_it_nor_makes_it_wait_longer(
    gate: Gate, clock: Clock
) -> None:
    gate.close(ERROR)
    clock.now += 59
    gate.close(ERROR)
    gate.proved()
    assert not gate.lets()
    clock.now += 1
    assert gate.lets()


def test_a_try_that_comes_to_nothing_is_followed_by_another(gate: Gate, clock: Clock) -> None:
    gate.close(ERROR)
    for _ in range(3):
        clock.now += 60
        assert gate.lets()
        assert not gate.lets()
