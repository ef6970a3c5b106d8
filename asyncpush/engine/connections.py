"""One transport for each registry of a push, with credentials, bounds and paces of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import anyio

from asyncpush.about import user_agent
from asyncpush.engine.context import Context, Health, Limits
from asyncpush.engine.events import EventSink, Warned
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
_CLOSE_SECONDS = 2.0


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
        self._user_agent = user_agent()
        self._sharing: Mapping[AnyRegistry, int] = {}

    async def aclose(self) -> None:
        """Close all connections."""
        await self._stack.aclose()

    async def get(self, registry: AnyRegistry) -> Context:
        """A registry's surroundings, connected and authorized.

        :raises RegistryError: it cannot be reached, or does not accept the credentials.
        """
        context, _ = await self._contexts.do(registry, partial(self._connect, registry))
        return context

    def begin(self, sharing: Mapping[AnyRegistry, int], *, count_anew: bool = True) -> None:
        """A push begins, and what could not be connected to is tried again.

        :param sharing: how many machines share each registry's quotas, where that is more than this
            one.
        :param count_anew: whether what was called before belongs to another push.
        """
        self._sharing = sharing
        self._contexts.forgive()
        for registry, paces in self._paces.items():
            paces.begin(sharing.get(registry, 1), count_anew=count_anew)

    def calls(self) -> dict[str, dict[str, Any]]:
        """By registry and call: how often it was made and throttled, its quota, its rate."""
        found = {registry.host: paces.to_dict() for registry, paces in self._paces.items()}
        return {host: calls for host, calls in found.items() if calls}

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
            warn=self._warn,
            attempts=self._options.attempts,
        )

    def _warn(self, message: str) -> None:
        self._emit(Warned(message))

    async def _connect(self, registry: AnyRegistry) -> Context:
        """Open and authorize one registry's transport, before any byte goes there.

        One that fails is closed at once: it may be tried again, with connections of its own.
        """
        stack = contextlib.AsyncExitStack()
        try:
            settings = self._options.settings(registry)
            transport = await stack.enter_async_context(self._open(registry, settings))
            context = self._surround(registry, transport)
            await context.call("GetAuthorizationToken", registry.host, transport.authorize)
        except BaseException:
            await close(stack)
            raise
        self._stack.push_async_exit(stack)
        return context

    def _surround(self, registry: AnyRegistry, transport: Transport) -> Context:
        limits = Limits(
            layers=anyio.CapacityLimiter(self._options.layers),
            parts=anyio.CapacityLimiter(self._options.parts),
            memory=self._memory,
        )
        paces = self._paces_of(registry)
        return Context(
            transport,
            self._options,
            limits,
            self._retrier,
            paces,
            self._emit,
            Health(),
            self.reads,
        )

    def _paces_of(self, registry: AnyRegistry) -> Paces:
        """The paces of a registry's calls: the same when it is tried again, with their counts."""
        paces = self._paces.get(registry)
        if paces is None:
            published = PUBLISHED_QUOTAS
            if isinstance(registry, DistributionRegistry):
                # Nothing is published for these; what they throttle is adapted to.
                published = dict.fromkeys(PUBLISHED_QUOTAS, _UNKNOWN_QUOTA)
            quotas = {**published, **self._options.settings(registry).quotas}
            paces = self._paces[registry] = Paces(quotas)
            paces.begin(self._sharing.get(registry, 1))
        return paces


async def close(stack: contextlib.AsyncExitStack) -> None:
    """Close connections: to the end, also when cancelled, but without holding that up."""
    with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
        await stack.aclose()
