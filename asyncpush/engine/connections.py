"""One transport for each registry of a push, with credentials, bounds and paces of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from typing import Any

import anyio

from asyncpush.engine.context import Context, Health, Limits
from asyncpush.engine.events import EventSink
from asyncpush.engine.options import PushOptions, RegistrySettings
from asyncpush.engine.pace import PUBLISHED_QUOTAS, Paces
from asyncpush.engine.reading.calls import SourceCalls
from asyncpush.engine.reading.reads import Reads
from asyncpush.engine.retry import Retrier
from asyncpush.engine.work import ByteLimiter, Once
from asyncpush.plan.reference import AnyRegistry, DistributionRegistry
from asyncpush.registries.base import Transport
from asyncpush.registries.distribution import transport as distribution

# Calls a second; no registry answers as fast.
_UNKNOWN_QUOTA = 100_000.0


class Connections:
    """Opens each registry when its first image has its turn; what fails there stays there.

    :param options: bounds, credentials, quotas.
    :param emit: told of retries and warnings.
    """

    def __init__(self, options: PushOptions, emit: EventSink) -> None:
        self._options = options
        self._emit = emit
        self._stack = contextlib.AsyncExitStack()
        self._memory = ByteLimiter(options.memory)
        self._retrier = Retrier(options.attempts, options.retry_base, options.retry_cap, emit)
        # Hashing is the one piece of work that fills a processor.
        self._hashing = anyio.CapacityLimiter(max(2, os.cpu_count() or 2))
        calls = SourceCalls(options.attempts, options.retry_base, options.retry_cap, emit)
        self.reads = Reads(calls, options.memory // 2, self._hashing)
        self._contexts: Once[AnyRegistry, Context] = Once()
        self._paces: dict[AnyRegistry, Paces] = {}
        self._user_agent = f"asyncpush/{metadata.version('asyncpush')}"
        self.sharing: Mapping[AnyRegistry, int] = {}
        """How many machines share each registry's quotas, where that is more than this one."""

    async def aclose(self) -> None:
        """Close all connections."""
        await self._stack.aclose()

    async def get(self, registry: AnyRegistry) -> Context:
        """A registry's surroundings, connected and authorized.

        :raises RegistryError: it cannot be reached, or does not accept the credentials.
        """
        context, _ = await self._contexts.do(registry, partial(self._connect, registry))
        return context

    def forgive(self) -> None:
        """Let registries that could not be connected to be tried again."""
        self._contexts.forgive()

    def calls(self) -> dict[str, dict[str, Any]]:
        """By registry and call: how often it was made and throttled, its quota, its rate."""
        return {registry.host: paces.to_dict() for registry, paces in self._paces.items()}

    def _open(
        self, registry: AnyRegistry, settings: RegistrySettings
    ) -> contextlib.AbstractAsyncContextManager[Transport]:
        connections, user_agent = self._options.connections, self._user_agent
        if isinstance(registry, DistributionRegistry):
            return distribution.open_transport(
                registry.host,
                connections=connections,
                user_agent=user_agent,
                plain_http=registry.loopback or settings.plain_http,
            )
        # The AWS client takes as long to import as all else together, and only ECR needs it.
        from asyncpush.registries.ecr.choice import open_ecr  # noqa: PLC0415

        return open_ecr(
            registry,
            settings.aws,
            settings.transport or "native",
            connections=connections,
            hashing=self._hashing,
            user_agent=user_agent,
        )

    async def _connect(self, registry: AnyRegistry) -> Context:
        """Open and authorize one registry's transport, before any byte goes there."""
        settings = self._options.settings(registry)
        transport = await self._stack.enter_async_context(self._open(registry, settings))
        share = self.sharing.get(registry, 1)
        published = PUBLISHED_QUOTAS
        if isinstance(registry, DistributionRegistry):
            # Nothing is published for these; what they throttle is adapted to.
            published = dict.fromkeys(PUBLISHED_QUOTAS, _UNKNOWN_QUOTA)
        quotas = {**published, **settings.quotas}
        paces = Paces({call: rate / share for call, rate in quotas.items()})
        limits = Limits(
            layers=anyio.CapacityLimiter(self._options.layers),
            parts=anyio.CapacityLimiter(self._options.parts),
            memory=self._memory,
        )
        context = Context(
            transport,
            self._options,
            limits,
            self._retrier,
            paces,
            self._emit,
            Health(),
            self.reads,
        )
        self._paces[registry] = paces
        await context.call("GetAuthorizationToken", registry.host, transport.authorize)
        return context
