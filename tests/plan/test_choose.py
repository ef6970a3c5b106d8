"""Choosing tags: what each rule takes, what it leaves out and says so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.errors import UsageError
from asyncpush.plan.choose import Choice, Rules, TagInfo, choose, natural_key, parse_age
from asyncpush.plan.semver import parse_range

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def tag(name: str, pushed: int | None = None, pulled: int | None = None) -> TagInfo:
    times = [None if days is None else NOW - timedelta(days=days) for days in (pushed, pulled)]
    return TagInfo(name, pushed_at=times[0], pulled_at=times[1])


def names(rules: Rules, *tags: TagInfo | str) -> tuple[list[str], Choice]:
    choice = Choice("team/app")
    infos = [TagInfo(t) if isinstance(t, str) else t for t in tags]
    return list(choose(((i.name, i) for i in infos), rules, NOW, choice)), choice


def test_patterns_leave_out_with_count_and_examples() -> None:
    rules = Rules(include=("v*", "latest"), exclude=("*-debug", "*-rc*"))
    tags = ["v1", "v1-debug", "latest", "main", *(f"pr-{i}" for i in range(2000)), "v2-rc1"]
    found, choice = names(rules, *tags)
    assert found == ["v1", "latest"]
    assert choice.taken == 2
    assert choice.lines() == [
        "team/app: exclude *-debug leaves out 1 (v1-debug)",
        "team/app: include v*, latest leaves out 2,001 (main, pr-0, pr-1 and 1,998 more)",
        "team/app: exclude *-rc* leaves out 1 (v2-rc1)",
    ]
    assert choice.to_dict()["left_out"][1]["count"] == 2001


def test_versions_and_the_newest_of_them_in_the_order_of_the_listing() -> None:
    rules = Rules(versions=parse_range(">=1.2 <2"), newest=2)
    tags = ["latest", "v1.10.0", "v1.2.0", "v1.9.0", "v2.0.0", "1.3.0-rc.1", "v1.9.1"]
    found, choice = names(rules, *tags)
    assert found == ["v1.10.0", "v1.9.1"]
    assert {rule: left.count for rule, left in choice.left_out.items()} == {
        "semver >=1.2 <2 (no version)": 1,
        "semver >=1.2 <2": 2,
        "newest 2": 2,
    }


def test_newest_goes_by_push_time_then_by_natural_order_of_names() -> None:
    by_time = [tag("b", 3), tag("z", 9), tag("a", 1), tag("unknown")]
    assert names(Rules(newest=2), *by_time)[0] == ["b", "a"]
    assert names(Rules(newest=2), "build-9", "build-10", "build-2")[0] == ["build-9", "build-10"]
    assert names(Rules(newest=9), "x", "y")[0] == ["x", "y"]


def test_ages_count_back_from_now() -> None:
    tags = [tag("new", 89, 200), tag("edge", 90, 5), tag("old", 91, None), tag("unknown")]
    found, choice = names(Rules(newer_than=parse_age("90d")), *tags)
    assert found == ["new", "edge"]
    assert list(choice.left_out) == ["newer_than 90d", "newer_than 90d (no time known)"]
    found, choice = names(Rules(pulled_within=parse_age("2w")), *tags)
    assert found == ["edge"]
    assert choice.left_out["pulled_within 2w (never pulled)"].examples == ["old", "unknown"]


def test_newest_keeps_no_more_than_it_asks_for() -> None:
    alive = 0

    class Thing:
        def __init__(self) -> None:
            nonlocal alive
            alive += 1

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    most = 0

    def listed() -> Iterator[tuple[Thing, TagInfo]]:
        nonlocal most
        for i in range(5000):
            most = max(most, alive)
            yield Thing(), TagInfo(f"v{i}")

    assert len(list(choose(listed(), Rules(newest=10), NOW, Choice("x")))) == 10
    assert most <= 13


@pytest.mark.parametrize("text", ["", "90", "d", "0d", "1y", "-1d", "1.5d", "99999w", "9" * 5000])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="invalid duration"):
        parse_age(text)


@given(st.text(max_size=12) | st.from_regex(r"[0-9]{1,8}[mhdwy]", fullmatch=True))
def test_hostile_durations_are_one_or_a_usage_error(text: str) -> None:
    try:
        age = parse_age(text)
    except UsageError:
        return
    assert timedelta() < age.length
    assert NOW - age.length < NOW


@given(st.lists(st.text(max_size=20)))
def test_all_names_can_be_ordered(texts: list[str]) -> None:
    assert sorted(sorted(texts, key=natural_key)) == sorted(texts)
    assert len({natural_key(text) for text in texts}) == len(set(texts))
