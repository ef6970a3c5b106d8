"""Trying again what a plan asks of a source, before there is an engine that counts and reports."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from asyncpush.errors import TransientError

T = TypeVar("T")

_ATTEMPTS = 5
_BASE_SECONDS = 0.2
_MOST_SECONDS = 30.0


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call until it succeeds, fails for good, or was tried five times.

    Waits are drawn with full jitter, as the engine's are; a source that says when it wants to be
    asked again is not asked sooner, up to half a minute.

    :raises TransientError: the last failure, which says how often it was tried.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return await call()
        except TransientError as exc:
            if attempt == _ATTEMPTS:
                raise exc.at(attempts=str(attempt)) from exc.__cause__
            delay = random.uniform(0, _BASE_SECONDS * 2**attempt)  # noqa: S311 - jitter
            if exc.retry_after is not None:
                delay += min(exc.retry_after, _MOST_SECONDS)
        await anyio.sleep(delay)
    raise AssertionError("the last attempt returns or raises")
