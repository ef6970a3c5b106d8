"""How many pulls a registry's rate limit lets be begun, and when the next may be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncpush.engine.allowance import Allowance
from asyncpush.registries.distribution.ratelimit import RateLimit

HOURS = 21600


def stated(remaining: int, window: int | None = HOURS) -> Allowance:
    allowance = Allowance()
    allowance.note(RateLimit(100, remaining, window), 1000.0)
    return allowance


def test_a_registry_that_states_nothing_is_asked() -> None:
    allowance = Allowance()
    allowance.note(None, 0.0)
    assert allowance.wait(0.0) == 0


def test_no_more_are_begun_than_are_left() -> None:
    allowance = stated(2)
    for _ in range(2):
        assert allowance.wait(1000.0) == 0
        allowance.begin()
    assert allowance.wait(1000.0) is None
    allowance.end()
    allowance.note(RateLimit(100, 1, HOURS), 1001.0)
    # One is still on its way, and may be the one that is left.
    assert allowance.wait(1001.0) is None
    allowance.end()
    allowance.note(RateLimit(100, 0, HOURS), 1002.0)
    assert allowance.wait(1002.0) == HOURS
    assert allowance.wait(1002.0 + HOURS - 5) == 5
    assert allowance.wait(1002.0 + HOURS) == 0


def test_the_same_statement_again_is_no_news() -> None:
    allowance, limit = Allowance(), RateLimit(100, 1, HOURS)
    allowance.note(limit, 0.0)
    allowance.begin()
    allowance.note(limit, 50.0)
    assert allowance.wait(50.0) is None


def test_one_is_tried_when_those_that_failed_may_have_cost_nothing() -> None:
    allowance = stated(1)
    allowance.begin()
    allowance.end()
    assert allowance.wait(1000.0) == 0
    allowance.begin()
    assert allowance.wait(1000.0) is None


def test_a_limit_without_a_window_is_left_to_the_registry() -> None:
    assert stated(0, None).wait(1000.0) == 0


@given(st.lists(st.sampled_from(["ask", "end", "lose"]), max_size=80), st.integers(0, 8))
def test_a_registry_that_counts_is_never_asked_for_more(steps: list[str], left: int) -> None:
    """Whatever the order of answers, no try goes beyond the limit of a window."""
    allowance = Allowance()
    allowance.note(RateLimit(8, left, HOURS), 0.0)
    in_flight = 0
    for now, step in enumerate(steps):
        if step == "ask":
            if allowance.wait(now) == 0:
                allowance.begin()
                in_flight += 1
                left -= 1
                assert left >= 0
        elif in_flight and step == "end":
            in_flight -= 1
            allowance.end()
            allowance.note(RateLimit(8, left, HOURS), now)
    # What is left is never refused for good.
    for _ in range(in_flight):
        allowance.end()
        allowance.note(RateLimit(8, left, HOURS), len(steps))
    assert (allowance.wait(len(steps)) == 0) == (left > 0)
