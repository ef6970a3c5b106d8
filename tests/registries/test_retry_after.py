"""When a registry wants to be asked again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from asyncpush.registries.distribution.errors import retry_after


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("120", 120.0), ("", None), ("-1", None), ("1.5", None), ("soon", None)],
)
def test_seconds_are_read_and_anything_else_says_nothing(text: str, seconds: float | None) -> None:
    assert retry_after(text) == seconds


def test_dates_are_seconds_from_now_and_never_below_zero() -> None:
    now = datetime.now(UTC)
    later = retry_after(format_datetime(now + timedelta(seconds=90), usegmt=True))
    assert later is not None
    assert 60 < later <= 90
    assert retry_after(format_datetime(now - timedelta(days=1), usegmt=True)) == 0.0
    assert retry_after("Thu, 01 Jan 2026 00:00:00 -0000") is not None
