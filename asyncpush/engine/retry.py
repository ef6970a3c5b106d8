"""Trying again: which failures, how often, and how long to wait in between."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from asyncpush.engine.events import CallRetried, EventSink
from asyncpush.errors import TransientError

T = TypeVar("T")


class Retrier:
    """Retries calls that fail in a way that may pass, with full jitter.

    Full jitter (a wait drawn evenly from 0 to a bound that doubles) spreads the retries of many
    clients best ("Exponential Backoff And Jitter", AWS Architecture Blog).

    :param attempts: how often a call is tried in all.
    :param base: seconds; the bound of the first wait.
    :param cap: seconds; no bound grows beyond it.
    :param emit: told of every retry.
    """

    def __init__(
        self,
        attempts: int,
        base: float,
        cap: float,
        emit: EventSink,
        rng: random.Random | None = None,
    ) -> None:
        self._attempts = attempts
        self._base = base
        self._cap = cap
        self._emit = emit
        self._rng = rng or random.Random()  # noqa: S311 - jitter needs no secrecy

    async def call(self, name: str, repository: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call until it succeeds, fails for good, or was tried often enough.

        :param name: the API's name of the call.
        :param repository: what it is about, for the event.
        :raises TransientError: the last failure, which says how often it was tried.
        """
        attempt = 1
        while True:
            try:
                return await call()
            except TransientError as exc:
                if attempt >= self._attempts:
                    exc.at(attempts=str(attempt))
                    raise
                bound = min(self._cap, self._base * 2 ** (attempt - 1))
                delay = self._rng.uniform(0, bound)
                self._emit(CallRetried(name, repository, str(exc), attempt, delay))
                await anyio.sleep(delay)
                attempt += 1
