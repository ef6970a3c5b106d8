"""Calls to sources: tried again like calls to registries, at a pace of each source's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from asyncpush.engine.events import CallRetried, Event, EventSink
from asyncpush.engine.pace import Pace
from asyncpush.engine.retry import Retrier

T = TypeVar("T")

CALL = "GET blob"
# Calls a second; what a source throttles is adapted to.
_UNKNOWN_QUOTA = 100_000.0


class SourceCalls:
    """Makes calls to sources, with retries; each source has a pace of its own.

    :param attempts: how often a call may fail, and how often a connection may break in a row
        without progress.
    :param base: seconds; the bound of the first wait.
    :param cap: seconds; no bound grows beyond it.
    :param emit: receives every retry.
    """

    def __init__(self, attempts: int, base: float, cap: float, emit: EventSink) -> None:
        self.attempts = attempts
        self._retrier = Retrier(attempts, base, cap, self._emit_retries)
        self._emit = emit
        self._paces: dict[str, Pace] = {}

    async def call(self, source: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call until it succeeds or was tried often enough.

        :param source: the origin's name.
        :raises TransientError: the last failure.
        """
        pace = self._paces.get(source)
        if pace is None:
            pace = self._paces[source] = Pace(_UNKNOWN_QUOTA)
        return await self._retrier.call(CALL, source, call, pace)

    def _emit_retries(self, event: Event) -> None:
        # What listens for CallEnded counts the calls of target registries.
        if isinstance(event, CallRetried):
            self._emit(event)
