"""What every step of a push needs at hand: its registry, its options, its bounds, its listener."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from asyncpush.engine.events import EventSink
from asyncpush.engine.options import PushOptions
from asyncpush.engine.retry import Retrier
from asyncpush.engine.work import ByteLimiter
from asyncpush.registries.base import Transport


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
    emit: EventSink
