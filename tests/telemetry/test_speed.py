"""Speed: what it says of steady, bursty and ended flows, and what it keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.telemetry.speed import Speed


def test_nothing_is_no_speed() -> None:
    speed = Speed()
    assert speed.rate(5.0) == 0.0
    speed.start(0.0)
    assert speed.rate(5.0) == 0.0


def test_a_steady_flow_has_its_rate() -> None:
    speed = Speed()
    speed.start(0.0)
    for i in range(1, 1001):
        speed.add(i * 0.05, 5.0)
        if i > 20:
            assert speed.rate(i * 0.05) == pytest.approx(100.0, rel=0.1)


def test_the_speed_of_long_ago_is_forgotten() -> None:
    speed = Speed()
    speed.start(0.0)
    for i in range(1, 101):
        speed.add(i * 0.1, 1000.0)
    for i in range(1, 201):
        speed.add(10 + i * 0.1, 10.0)
    assert speed.rate(30.0) == pytest.approx(100.0, rel=0.1)


def test_parts_that_come_together_once_a_minute_are_a_steady_speed() -> None:
    speed = Speed()
    speed.start(0.0)
    rates = []
    for minute in range(1, 11):
        for _ in range(16):
            speed.add(minute * 60.0, 10.0)
        rates += [speed.rate(minute * 60.0 + later) for later in (0, 20, 40, 59)]
    settled = rates[8:]
    assert min(settled) > 1.3
    assert max(settled) < 4.1


def test_what_stands_still_slows_down() -> None:
    speed = Speed()
    speed.start(0.0)
    for i in range(1, 101):
        speed.add(i * 0.1, 10.0)
    before = speed.rate(10.0)
    assert speed.rate(40.0) < before / 3
    assert speed.rate(4000.0) < before / 300


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 10**9)), max_size=300))
def test_it_is_never_negative_and_keeps_little(steps: list[tuple[float, int]]) -> None:
    speed, now = Speed(), 0.0
    for pause, amount in steps:
        now += pause
        speed.add(now, amount)
        assert speed.rate(now) >= 0
        assert len(speed._buckets) <= 20 + 32 + 2
