"""The headers in which a registry states its rate limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from asyncpush.registries.distribution.ratelimit import RateLimit, rate_limit_of


@pytest.mark.parametrize(
    ("limit", "remaining", "found"),
    [
        ("100;w=21600", "76;w=21600", RateLimit(100, 76, 21600)),
        ("100;w=21600", "0;w=21600", RateLimit(100, 0, 21600)),
        (" 100 ; w = 21600 ", "76 ", RateLimit(100, 76, 21600)),
        ("100, 100;w=60, 1000;w=3600", "7", RateLimit(100, 7, 60)),
        (None, "1999", RateLimit(None, 1999, None)),
        ("unlimited", "5;q=1;w=60", RateLimit(None, 5, 60)),
        ("100;w=21600", None, None),
        (None, None, None),
        ("100", "", None),
        ("100", "-1", None),
        ("100", "1.5", None),
        ("100", "٣", None),
        ("9" * 5000, "9" * 5000, None),
        ("9" * 16, "1;w=" + "9" * 16, RateLimit(None, 1, None)),
    ],
)
def test_reads_what_docker_hub_and_the_draft_write(
    limit: str | None, remaining: str | None, found: RateLimit | None
) -> None:
    headers = CIMultiDict[str]()
    if limit is not None:
        headers["ratelimit-limit"] = limit
    if remaining is not None:
        headers["ratelimit-remaining"] = remaining
    assert rate_limit_of(headers) == found


_HOSTILE = st.one_of(st.text(), st.text(alphabet="0123456789;,w= \t-٣²"))


@given(_HOSTILE, _HOSTILE)
def test_no_header_does_harm(limit: str, remaining: str) -> None:
    found = rate_limit_of(CIMultiDict({"RateLimit-Limit": limit, "RateLimit-Remaining": remaining}))
    if found is not None:
        numbers = (found.limit, found.remaining, found.window)
        assert all(n is None or 0 <= n < 10**15 for n in numbers)


@given(st.integers(0, 10**15 - 1), st.integers(0, 10**15 - 1), st.integers(0, 10**15 - 1))
def test_reads_back_what_was_written(limit: int, remaining: int, window: int) -> None:
    headers = {"RateLimit-Limit": f"{limit};w={window}", "RateLimit-Remaining": f"{remaining}"}
    assert rate_limit_of(headers) == RateLimit(limit, remaining, window)
