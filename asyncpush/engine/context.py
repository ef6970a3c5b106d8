"""What every step of a push needs at hand: its registry, its options, its bounds, its listener."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from asyncpush.engine.events import EventSink
from asyncpush.engine.options import PushOptions
from asyncpush.engine.pace import Paces
from asyncpush.engine.retry import Retrier
from asyncpush.engine.work import ByteLimiter
from asyncpush.registries.base import Transport

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds that all uploads of a push share."""

    layers: anyio.CapacityLimiter
    parts: anyio.CapacityLimiter
    memory: ByteLimiter


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of a push into one registry."""

    transport: Transport
    options: PushOptions
    limits: Limits
    retrier: Retrier
    paces: Paces
    emit: EventSink

    async def call(self, name: str, where: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make one of the registry's calls at its pace, with retries.

        :param name: the API's name of the call.
        :param where: the registry or repository that it is about.
        """
        return await self.retrier.call(name, where, call, self.paces.of(name))
