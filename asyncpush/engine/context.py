"""What every step of a push needs at hand: its registry, its options, its bounds, its listener."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import anyio

from asyncpush.engine.events import EventSink
from asyncpush.engine.options import PushOptions
from asyncpush.engine.pace import Paces
from asyncpush.engine.reading.reads import Reads
from asyncpush.engine.refusals import Refusals
from asyncpush.engine.retry import Retrier
from asyncpush.engine.throughput import Throughput
from asyncpush.engine.work import ByteLimiter
from asyncpush.errors import AsyncpushError, TransientError
from asyncpush.registries.base import Transport

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of all uploads to one registry; ``memory`` is shared by all registries."""

    layers: anyio.CapacityLimiter
    parts: anyio.CapacityLimiter
    memory: ByteLimiter


# Longer than a registry's short troubles, shorter than what is worth waiting through 100,000 times.
_OUTAGE_SECONDS = 120.0
_PROBE_SECONDS = 10.0
_FEW = 3


@dataclass(slots=True)
class Health:
    """Whether a registry answers at all, so that an outage is not waited out for each image."""

    _answered: float = field(default_factory=anyio.current_time)
    _probed: float | None = None
    _outage: TransientError | None = None

    def check(self) -> None:
        """Let a call be made, or during an outage one call in ten seconds.

        :raises TransientError: the registry has not answered for two minutes.
        """
        if self._outage is None:
            return
        now = anyio.current_time()
        if self._probed is None or now - self._probed >= _PROBE_SECONDS:
            self._probed = now
            return
        raise TransientError(
            f"not tried: the registry has not answered for {now - self._answered:.0f} s;"
            f" {self._outage.message}",
            advice="run the same command again when it does",
            **{k: v for k, v in self._outage.where.items() if k == "registry"},
        )

    def answered(self) -> None:
        """The registry answered, in whatever way."""
        self._answered = anyio.current_time()
        self._outage = self._probed = None

    def gave_up(self, error: TransientError) -> None:
        """A call was tried to the end of its retries."""
        if anyio.current_time() - self._answered >= _OUTAGE_SECONDS:
            self._outage = error


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of a push into one registry."""

    transport: Transport
    options: PushOptions
    limits: Limits
    retrier: Retrier
    paces: Paces
    emit: EventSink
    health: Health
    reads: Reads
    throughput: Throughput = field(default_factory=Throughput)
    refusals: Refusals = field(default_factory=Refusals)

    async def call(self, name: str, where: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make one of the registry's calls at its pace, with retries.

        :param name: the API's name of the call.
        :param where: the registry or repository that it is about.
        """
        self.health.check()
        try:
            result = await self.retrier.call(name, where, call, self.paces.of(name))
        except TransientError as exc:
            self.health.gave_up(exc)
            raise
        except AsyncpushError:
            self.health.answered()
            raise
        self.health.answered()
        return result

    async def attempt(self, name: str, where: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call that the push can do without: with few tries, and whatever becomes of it says
        nothing of whether the registry answers, since another host may serve it.
        """
        return await self.retrier.call(name, where, call, self.paces.of(name), attempts=_FEW)
