"""How fast calls may be made, on a clock that stands still until somebody sleeps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from asyncpush.engine import pace as pace_module
from asyncpush.engine.pace import PUBLISHED_QUOTAS, Pace, Paces

pytestmark = pytest.mark.anyio


@dataclass
class Clock:
    now: float = 1000.0

    def current_time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace_module, "anyio", clock)
    return clock


async def test_calls_are_spaced_evenly_and_never_a_burst(clock: Clock) -> None:
    pace = Pace(10)
    times = []
    waited = 0.0
    for _ in range(101):
        waited += await pace.turn()
        times.append(clock.now)

    assert times[0] == 1000
    assert waited == pytest.approx(clock.now - 1000)
    # One call of slack at the start, then one every tenth of a second.
    assert clock.now == pytest.approx(1000 + 9.9)
    gaps = [after - before for before, after in itertools.pairwise(times[1:])]
    assert gaps == pytest.approx([0.1] * len(gaps))


async def test_idle_time_is_not_saved_up(clock: Clock) -> None:
    pace = Pace(10)
    await pace.turn()
    clock.now += 60
    before = clock.now
    for _ in range(11):
        await pace.turn()

    assert clock.now - before == pytest.approx(0.9)


async def test_throttling_lowers_the_rate_once_for_calls_of_the_same_moment(clock: Clock) -> None:
    pace = Pace(100)
    for _ in range(20):
        pace.throttled()
    assert pace.rate == pytest.approx(70)
    assert pace.throttles == 20

    clock.now += 2
    pace.throttled()
    assert pace.rate == pytest.approx(49)


async def test_rate_never_falls_to_nothing(clock: Clock) -> None:
    pace = Pace(100)
    for _ in range(100):
        clock.now += 2
        pace.throttled()

    assert pace.rate == pytest.approx(2)


async def test_success_raises_the_rate_by_time_up_to_the_quota(clock: Clock) -> None:
    pace = Pace(100)
    await pace.turn()
    pace.throttled()
    clock.now += 0.5
    pace.succeeded()
    assert pace.rate == pytest.approx(70 + 2.5)
    for _ in range(50):
        clock.now += 1
        pace.succeeded()
    assert pace.rate == 100


async def test_progress_ends_when_calls_are_only_throttled_for_two_minutes(clock: Clock) -> None:
    pace = Pace(10)
    await pace.turn()
    pace.succeeded()
    # A large layer takes its time; nothing is throttled meanwhile.
    clock.now += 1000
    assert pace.progresses
    for _ in range(11):
        pace.throttled()
        assert pace.progresses
        clock.now += 10
    clock.now += 10
    assert not pace.progresses
    pace.succeeded()
    assert pace.progresses
    pace.throttled()
    assert pace.progresses


@pytest.mark.parametrize(("retry_after", "gives_up"), [(0.0, False), (150.0, True)])
async def test_throttles_that_are_far_apart_are_no_series_unless_the_registry_asked_for_it(
    clock: Clock, retry_after: float, gives_up: bool
) -> None:
    pace = Pace(10)
    pace.throttled(retry_after)
    clock.now += 151
    pace.throttled(retry_after)
    assert pace.progresses != gives_up


async def test_figures_tell_calls_throttles_and_the_rate_they_ran_at(clock: Clock) -> None:
    paces = Paces({"PutImage": 50})
    for _ in range(51):
        await paces.of("PutImage").turn()
    paces.of("PutImage").throttled()

    assert paces.to_dict() == {
        "PutImage": {"calls": 51, "throttled": 1, "quota": 50, "rate": pytest.approx(51, abs=0.5)}
    }
    assert paces.of("InitiateLayerUpload").quota == PUBLISHED_QUOTAS["InitiateLayerUpload"] == 100
