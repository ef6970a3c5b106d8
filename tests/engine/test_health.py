"""An outage is waited out once, not for each image."""

from __future__ import annotations

import pytest

from asyncpush.engine import context
from asyncpush.engine.context import Health
from asyncpush.errors import TransientError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(context.anyio, "current_time", clock)
    return clock


def test_short_troubles_stop_nothing(clock: Clock) -> None:
    health = Health()
    health.check()
    clock.now += 119
    health.gave_up(TransientError("gone"))
    health.check()


def test_after_two_minutes_without_an_answer_calls_fail_at_once_but_for_probes(
    clock: Clock,
) -> None:
    health = Health()
    health.check()
    clock.now += 121
    health.gave_up(TransientError("gone"))
    health.check()
    for _ in range(3):
        with pytest.raises(TransientError, match="has not answered for 121 s; gone"):
            health.check()
    clock.now += 10
    health.check()
    with pytest.raises(TransientError):
        health.check()
    # The probe was answered: everything goes on.
    health.answered()
    health.check()
    health.check()


def test_one_call_that_fails_after_two_quiet_minutes_is_no_outage(clock: Clock) -> None:
    health = Health()
    health.check()
    health.answered()
    clock.now += 600
    health.check()
    clock.now += 20
    health.gave_up(TransientError("gone"))
    health.check()
    health.check()
