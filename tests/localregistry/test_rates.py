"""Rates: a second's worth at once, then as many as come back, each registry by itself."""

from __future__ import annotations

import contextlib

import pytest

from asyncpush.localregistry import LocalRegistryOptions
from asyncpush.localregistry.errors import ApiError
from asyncpush.localregistry.identity import Registry
from asyncpush.localregistry.rates import RateLimits

ONE = Registry("111122223333", "eu-west-1")
OTHER = Registry("111122223333", "eu-west-2")


def taken(limits: RateLimits, registry: Registry, action: str, tries: int) -> int:
    count = 0
    for _ in range(tries):
        with contextlib.suppress(ApiError):
            limits.take(registry, action)
            count += 1
    return count


def test_a_second_is_saved_up_and_comes_back_with_time() -> None:
    now = [0.0]
    limits = RateLimits({"PutImage": 10}, lambda: now[0])
    assert taken(limits, ONE, "PutImage", 50) == 10
    now[0] = 0.25
    assert taken(limits, ONE, "PutImage", 50) == 2
    now[0] = 60
    assert taken(limits, ONE, "PutImage", 50) == 10


def test_refusal_is_worded_as_aws_words_it() -> None:
    limits = RateLimits({"PutImage": 1}, lambda: 0.0)
    limits.take(ONE, "PutImage")
    with pytest.raises(ApiError, match="ThrottlingException: Rate exceeded") as refused:
        limits.take(ONE, "PutImage")
    assert refused.value.status == 400


def test_registries_and_actions_are_counted_apart() -> None:
    limits = RateLimits({"PutImage": 10}, lambda: 0.0)
    assert taken(limits, ONE, "PutImage", 50) == 10
    assert taken(limits, OTHER, "PutImage", 50) == 10
    assert taken(limits, ONE, "BatchGetImage", 50) == 50


def test_slow_rate_lets_one_call_through() -> None:
    now = [0.0]
    limits = RateLimits({"PutImage": 0.1}, lambda: now[0])
    assert taken(limits, ONE, "PutImage", 5) == 1
    now[0] = 9
    assert taken(limits, ONE, "PutImage", 5) == 0
    now[0] = 10
    assert taken(limits, ONE, "PutImage", 5) == 1


@pytest.mark.parametrize("rate", [0, -1])
def test_rate_must_be_above_nothing(rate: float) -> None:
    with pytest.raises(ValueError, match="rates: PutImage"):
        LocalRegistryOptions(rates={"PutImage": rate})
