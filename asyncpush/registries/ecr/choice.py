"""Which of its APIs an ECR registry is spoken to with."""

from __future__ import annotations

import contextlib
from functools import partial

import anyio

from asyncpush.plan.reference import Registry
from asyncpush.registries.base import Transport, Warn
from asyncpush.registries.ecr.auto import AutoTransport
from asyncpush.registries.ecr.hybrid import HybridTransport, Kind, NativeTransport, open_hybrid
from asyncpush.registries.ecr.options import AwsOptions, TransportName
from asyncpush.registries.ecr.token import open_by_token


def open_ecr(
    registry: Registry,
    aws: AwsOptions,
    transport: TransportName,
    *,
    connections: int,
    hashing: anyio.CapacityLimiter,
    user_agent: str,
    warn: Warn,
    attempts: int,
) -> contextlib.AbstractAsyncContextManager[Transport]:
    """Open an ECR registry.

    :param connections: the most connections to keep open to each API.
    :param hashing: limits the threads that hash parts.
    :param user_agent: text to add to the User-Agent header.
    :param warn: told where the API that was chosen is not the one that is used.
    :param attempts: how often a call that fails is made.
    """
    if transport == "distribution":
        return open_by_token(registry, aws, connections=connections, user_agent=user_agent)
    kind: Kind = HybridTransport
    if transport == "native":
        kind = NativeTransport
    if transport == "auto":
        kind = partial(AutoTransport, warn=warn, attempts=attempts)
    return open_hybrid(
        registry, aws, kind, connections=connections, hashing=hashing, user_agent=user_agent
    )
