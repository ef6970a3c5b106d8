"""What every step of a push needs at hand: its registry, its options, its bounds, its listener."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import anyio

from asyncpush.engine.events import EventSink
from asyncpush.engine.optional import OptionalCall
from asyncpush.engine.options import PushOptions
from asyncpush.engine.pace import Paces
from asyncpush.engine.reading.reads import Reads
from asyncpush.engine.refusals import Refusals
from asyncpush.engine.retry import Retrier
from asyncpush.engine.throughput import Throughput
from asyncpush.engine.work import ByteLimiter
from asyncpush.errors import AsyncpushError, TransientError, UploadBrokenError
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

    # When the first call was begun since which nothing has been answered.
    _waiting: float | None = None
    _probed: float | None = None
    _outage: TransientError | None = None

    def check(self) -> None:
        """Let a call be made, or during an outage one call in ten seconds.

        :raises TransientError: the registry has not answered for two minutes.
        """
        now = anyio.current_time()
        if self._waiting is None:
            self._waiting = now
        if self._outage is None:
            return
        if self._probed is None or now - self._probed >= _PROBE_SECONDS:
            self._probed = now
            return
        raise TransientError(
            f"not tried: the registry has not answered for {now - self._waiting:.0f} s;"
            f" {self._outage.message}",
            advice="run the same command again when it does",
            **{k: v for k, v in self._outage.where.items() if k == "registry"},
        )

    def answered(self) -> None:
        """The registry answered, in whatever way."""
        self._waiting = self._outage = self._probed = None

    def gave_up(self, error: TransientError) -> None:
        """A call was tried to the end of its retries."""
        since = self._waiting
        if since is not None and anyio.current_time() - since >= _OUTAGE_SECONDS:
            self._outage = error


async def make_call(
    retrier: Retrier,
    paces: Paces,
    health: Health,
    name: str,
    where: str,
    call: Callable[[], Awaitable[T]],
) -> T:
    """Make one of a registry's calls at its pace, with retries, and note whether it answers.

    :param name: the API's name of the call.
    :param where: the registry or repository that it is about.
    """
    health.check()
    try:
        result = await retrier.call(name, where, call, paces.of(name))
    except TransientError as exc:
        health.gave_up(exc)
        raise
    except UploadBrokenError:
        raise
    except AsyncpushError:
        health.answered()
        raise
    health.answered()
    return result


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
    reading_tags: OptionalCall = field(default_factory=OptionalCall)

    async def call(self, name: str, where: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make one of the registry's calls at its pace, with retries.

        :param name: the API's name of the call.
        :param where: the registry or repository that it is about.
        """
        return await make_call(self.retrier, self.paces, self.health, name, where, call)

    async def attempt(self, name: str, where: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call that the push can do without: with few tries, and whatever becomes of it says
        nothing of whether the registry answers, since another host may serve it.
        """
        return await self.retrier.call(name, where, call, self.paces.of(name), attempts=_FEW)
