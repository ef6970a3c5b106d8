"""How many more images a registry lets be pulled, and what to do when that is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from asyncpush.engine.events import EventSink, Warned
from asyncpush.errors import PullLimitError
from asyncpush.registries.distribution.ratelimit import RateLimit
from asyncpush.text import span

T = TypeVar("T")

# Docker Hub counts the GET of a manifest as a pull, and neither HEAD nor blobs ("Docker Hub usage
# and limits"). Nothing is published of what other registries count.
COUNTED = frozenset({"GetManifest"})
LONGEST_WAIT = 300.0
"""Seconds that a push waits for a window to pass; it fails at once where that takes longer."""


class Allowance:
    """Decides whether one more pull may be begun, by what the registry has stated last.

    A statement may be older than pulls that are on their way, so these are taken off it; where that
    leaves none, the next statement is awaited. Times are seconds of any one clock.
    """

    def __init__(self) -> None:
        self.stated: RateLimit | None = None
        self._at = 0.0
        self._left = 0
        self._in_flight = 0

    def note(self, limit: RateLimit | None, now: float) -> None:
        """Take what the registry has stated last; the same object again is no news."""
        if limit is None or limit is self.stated:
            return
        self.stated = limit
        self._at = now
        self._left = limit.remaining - self._in_flight

    def begin(self) -> None:
        """A pull begins."""
        self._in_flight += 1
        self._left -= 1

    def end(self) -> None:
        """A pull has ended, in whatever way."""
        self._in_flight -= 1

    def wait(self, now: float) -> float | None:
        """How long the next pull has to wait.

        :return: seconds, 0 for not at all; None is until a pull that is on its way has ended.
        """
        limit = self.stated
        # Without a window, only asking shows when there are pulls again.
        if limit is None or limit.window is None or self._left > 0:
            return 0.0
        over = self._at + limit.window - now
        if over <= 0:
            return 0.0
        if self._in_flight:
            return None
        # Those that failed may have cost nothing: one is tried, and its answer says.
        return over if limit.remaining <= 0 else 0.0


class Pulls:
    """Keeps pulls from one registry within its rate limit.

    :param host: the registry, for messages.
    :param stated: what the registry has stated last.
    :param emit: told when pulls wait.
    """

    def __init__(self, host: str, stated: Callable[[], RateLimit | None], emit: EventSink) -> None:
        self._host = host
        self._stated = stated
        self._emit = emit
        self._allowance = Allowance()
        self._ended = anyio.Event()
        self._told: RateLimit | None = None

    @property
    def limit(self) -> RateLimit | None:
        """What the registry has stated last."""
        return self._stated()

    async def call(
        self,
        make: Callable[[str, str, Callable[[], Awaitable[T]]], Awaitable[T]],
        name: str,
        where: str,
        call: Callable[[], Awaitable[T]],
    ) -> T:
        """Make a call, each try of it within the limit.

        :param make: makes it at its pace, with retries.
        :raises PullLimitError: no pull is left, and none will be soon.
        """

        async def tried() -> T:
            counted = name in COUNTED
            if counted:
                await self._turn(where)
                self._allowance.begin()
            try:
                return await call()
            finally:
                if counted:
                    self._allowance.end()
                self._allowance.note(self._stated(), anyio.current_time())
                self._ended.set()
                self._ended = anyio.Event()

        return await make(name, where, tried)

    async def _turn(self, where: str) -> None:
        """Wait until a pull may be begun."""
        while True:
            self._allowance.note(self._stated(), anyio.current_time())
            seconds = self._allowance.wait(anyio.current_time())
            if seconds is None:
                await self._ended.wait()
            elif seconds > LONGEST_WAIT:
                raise self._none_left(where)
            elif seconds > 0:
                self._tell(seconds)
                await anyio.sleep(seconds)
            else:
                return

    def _tell(self, seconds: float) -> None:
        limit = self._allowance.stated
        if limit is not None and limit is not self._told:
            self._told = limit
            self._emit(Warned(f"{self._host}: {limit}; waiting {span(round(seconds) or 1)}"))

    def _none_left(self, where: str) -> PullLimitError:
        return PullLimitError(
            f"{self._host} allows no more pulls for now ({self._allowance.stated})",
            advice=f"sign in for more with: docker login {self._host}; or run the same command"
            " again later, which goes on with what is missing",
            source=f"docker://{where}",
            call="GET manifest",
        )
