"""Trying again: which failures, how often, and how long to wait in between."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio

from asyncpush.engine.events import CallEnded, CallRetried, EventSink
from asyncpush.engine.pace import Pace
from asyncpush.errors import (
    AsyncpushError,
    ThrottledError,
    TransientError,
    UploadBrokenError,
    unforeseen,
)

T = TypeVar("T")

_log = logging.getLogger("asyncpush.push")

# The longest that a registry may ask for: beyond it, it is tried all the same.
_MOST_PATIENCE = 300.0


class NotNeededError(Exception):
    """Raised by a call that is not needed any more when its turn has come: nothing was asked."""


class Retrier:
    """Retries calls that fail in a way that may pass, with full jitter.

    Full jitter (a wait drawn evenly from 0 to a bound that doubles) spreads the retries of many
    clients best ("Exponential Backoff And Jitter", AWS Architecture Blog). A registry that says
    when it wants to be asked again (Retry-After) is not asked sooner.

    :param attempts: how often a call may fail in all; being throttled counts only while no call of
        its kind goes through.
    :param base: seconds; the bound of the first wait.
    :param cap: seconds; no bound grows beyond it.
    :param emit: told of every try and every retry.
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

    async def call(
        self,
        name: str,
        repository: str,
        call: Callable[[], Awaitable[T]],
        pace: Pace,
        *,
        attempts: int | None = None,
    ) -> T:
        """Make a call until it succeeds, fails for good, or was tried often enough.

        Being throttled is no failure while calls of the same kind go through: it costs time, and
        lowers the pace for all of them. It is one after ``attempts`` tries if such calls have been
        answered by nothing but throttling for two minutes.

        :param name: the API's name of the call.
        :param repository: what it is about, for the events.
        :param pace: how fast such calls may be made; told what came of this one.
        :param attempts: how often it may fail, if less often than other calls.
        :raises TransientError: the last failure, which says how often it was tried.
        :raises NotNeededError: the call itself raised it; it was not made, and is not counted.
        """
        attempts = min(self._attempts, attempts or self._attempts)
        failures = throttles = 0
        error: TransientError
        while True:
            waited = await pace.turn()
            ended = partial(self._ended, name, repository, pace, waited, time.monotonic())
            try:
                result = await call()
            except ThrottledError as exc:
                pace.throttled(min(exc.retry_after or 0.0, _MOST_PATIENCE))
                ended(exc.kind)
                throttles += 1
                last = throttles >= attempts and not pace.progresses
                attempt, error = throttles, exc
            except TransientError as exc:
                ended(exc.kind)
                failures += 1
                attempt, last, error = failures, failures >= attempts, exc
            except NotNeededError:
                pace.unneeded()
                raise
            except UploadBrokenError as exc:
                # As lost as a transient failure; what makes the next try is the upload itself.
                ended(exc.kind)
                raise
            except AsyncpushError as exc:
                pace.succeeded()
                ended(exc.kind)
                raise
            except Exception as exc:
                typed = unforeseen(exc, call=name)
                _log.debug("%s: %s", name, typed.message, exc_info=True)
                ended(typed.kind)
                raise typed from exc
            else:
                pace.succeeded()
                ended("ok")
                return result
            if last:
                raise error.at(attempts=str(failures + throttles))
            await self.back_off(name, repository, error, attempt)

    async def back_off(
        self, name: str, repository: str, error: TransientError | UploadBrokenError, attempt: int
    ) -> None:
        """Wait before the next try of what failed.

        :param attempt: how often it has failed so far.
        """
        bound = min(self._cap, self._base * 2 ** min(attempt - 1, 32))
        delay = self._rng.uniform(0, bound)
        if error.retry_after is not None:
            # What it asks for, and spread behind that: it asks the same of everyone.
            delay += min(error.retry_after, _MOST_PATIENCE)
        throttled = isinstance(error, ThrottledError)
        self._emit(CallRetried(name, repository, str(error), attempt, delay, throttled))
        await anyio.sleep(delay)

    def _ended(
        self, name: str, repository: str, pace: Pace, waited: float, begin: float, outcome: str
    ) -> None:
        seconds = time.monotonic() - begin
        self._emit(CallEnded(name, repository, outcome, waited, seconds, pace.rate, pace.quota))
