"""Versions in tags, and ranges of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.errors import UsageError
from asyncpush.plan.semver import parse_range, parse_version


def taken(text: str, *tags: str) -> list[str]:
    wanted = parse_range(text)
    versions = [(tag, parse_version(tag)) for tag in tags]
    return [tag for tag, version in versions if version is not None and wanted.takes(version)]


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=1.2 <2", ["1.2", "v1.2.0", "1.9.9"], ["1.1.9", "2.0.0", "2.0.0-rc.1", "1.3.0-rc1"]),
        (">= 1.2, < 2", ["1.3.0"], ["2.1.0"]),
        (">=1.2-0 <2", ["1.2.0-rc1", "1.9.0-b"], ["2.0.0-rc.1"]),
        (">=1-0", ["1.0.0-a"], ["0.9.0"]),
        ("<2.0.0-rc.2", ["2.0.0-rc.1", "1.0.0"], ["2.0.0-rc.2", "2.0.0"]),
        (">1.2", ["1.3.0"], ["1.2.9"]),
        (">1.2.3", ["1.2.4"], ["1.2.3"]),
        ("<=1.2", ["1.2.9"], ["1.3.0"]),
        ("^1.4", ["1.4", "1.9"], ["1.3.9", "2.0"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4"]),
        ("^0", ["0.9.1"], ["1.0.0"]),
        ("~1.4.2", ["1.4.9"], ["1.4.1", "1.5.0"]),
        ("~1", ["1.0.0", "1.9.0"], ["2.0.0"]),
        ("1.x", ["1.0.0", "1.9"], ["2.0.0"]),
        ("1.2", ["1.2.0", "1.2.7"], ["1.3.0"]),
        ("1.2.3", ["1.2.3", "v1.2.3_b1"], ["1.2.4"]),
        ("*", ["0.1", "9.9"], ["1.0.0-a"]),
        (">*", [], ["1.0.0"]),
        ("1.2 - 1.5", ["1.2.0", "1.5.9"], ["1.1.9", "1.6.0"]),
        ("1.2.3-4.5-6", ["1.2.3-4.5-6"], ["1.2.3-4.5"]),
        ("^1 || 3.1.x", ["1.5.0", "3.1.2"], ["2.0.0", "3.2.0"]),
        (">=1.0.0-rc.2", ["1.0.0-rc.10", "1.0.0"], ["1.0.0-rc.1", "1.0.0-beta.11"]),
    ],
)
def test_ranges(text: str, inside: list[str], outside: list[str]) -> None:
    assert taken(text, *inside, *outside) == inside


def test_prereleases_are_in_the_order_of_the_specification() -> None:
    ordered = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2"]
    ordered += ["1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1"]
    versions = [parse_version(text) for text in ordered]
    assert None not in versions
    assert versions == sorted(versions)  # type: ignore[type-var]


@pytest.mark.parametrize(
    "tag", ["latest", "17", "20240101", "1.2.3.4", "1.2.", "a1.2", "1.2.3-", "\u0661.2.3", ""]
)
def test_what_is_no_version(tag: str) -> None:
    assert parse_version(tag) is None


@pytest.mark.parametrize(
    "text", ["", " ", "1.2 ||", "latest", "!=1.2", ">=", "1.2.3.4", ">=1.2,,<2", "1.2-", "1" * 300]
)
def test_what_is_no_range_is_one_clear_line(text: str) -> None:
    with pytest.raises(UsageError, match="version range") as caught:
        parse_range(text)
    assert 'write ">=1.2 <2"' in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.text(max_size=40) | st.text("0123456789.xX*-<>=^~| ,vabc\n", max_size=60))
def test_hostile_texts_are_a_range_or_a_usage_error(text: str) -> None:
    version = parse_version(text)
    try:
        wanted = parse_range(text)
    except UsageError:
        return
    assert isinstance(wanted.takes(parse_version("1.2.3")), bool)  # type: ignore[arg-type]
    if version is not None:
        assert wanted.takes(version)


numbers = st.tuples(*[st.integers(0, 30)] * 3)


@given(numbers, numbers, numbers)
def test_comparators_agree_with_the_order_of_the_numbers(
    low: tuple[int, int, int], high: tuple[int, int, int], found: tuple[int, int, int]
) -> None:
    texts = [".".join(map(str, three)) for three in (low, high, found)]
    version = parse_version(texts[2])
    assert version is not None
    assert parse_range(f">={texts[0]} <{texts[1]}").takes(version) == (low <= found < high)
    assert parse_range(f">{texts[0]}, <={texts[1]}").takes(version) == (low < found <= high)
    assert parse_range(f"={texts[0]}").takes(version) == (low == found)
