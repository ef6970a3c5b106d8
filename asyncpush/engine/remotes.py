"""One connection, one set of bounds and one pace for each registry that images come from."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from importlib import metadata
from typing import Any

import anyio

from asyncpush.engine.context import Health, make_call
from asyncpush.engine.events import EventSink
from asyncpush.engine.options import PushOptions
from asyncpush.engine.pace import Paces
from asyncpush.engine.retry import Retrier
from asyncpush.engine.work import Once
from asyncpush.plan.reference import AnyRegistry, DistributionRegistry
from asyncpush.registries.distribution.transport import DistributionTransport, open_transport
from asyncpush.sources.registry import SourceRegistry

# Calls a second. ECR's published quotas of what its /v2/ API does with these (BatchGetImage,
# GetDownloadUrlForLayer); nothing is published for other registries, and what they throttle is
# adapted to.
_QUOTAS = {
    "HeadManifest": 2000.0,
    "GetManifest": 2000.0,
    "GetBlob": 3000.0,
    "ListTags": 100.0,
    "ListRepositories": 100.0,
    "ListReferrers": 100.0,
}
_DISCOVERY_AT_ONCE = 32


class Remotes:
    """Connects each registry that is read from once.

    :param options: bounds, credentials.
    :param emit: told of calls and retries.
    """

    def __init__(self, options: PushOptions, emit: EventSink) -> None:
        self._options = options
        self._emit = emit
        self._stack = contextlib.AsyncExitStack()
        self._retrier = Retrier(options.attempts, options.retry_base, options.retry_cap, emit)
        self._registries: Once[AnyRegistry, SourceRegistry] = Once()
        self._paces: dict[AnyRegistry, Paces] = {}
        self._user_agent = f"asyncpush/{metadata.version('asyncpush')}"

    async def aclose(self) -> None:
        """Close all connections."""
        await self._stack.aclose()

    async def connect(self, registry: AnyRegistry) -> SourceRegistry:
        """A registry that is read from.

        :raises RegistryError: it cannot be opened.
        """
        source, _ = await self._registries.do(registry, partial(self._connect, registry))
        return source

    def forgive(self) -> None:
        """Let registries that could not be opened be tried again."""
        self._registries.forgive()

    def calls(self) -> dict[str, dict[str, Any]]:
        """As :meth:`asyncpush.engine.connections.Connections.calls`."""
        return {registry.host: paces.to_dict() for registry, paces in self._paces.items()}

    async def _connect(self, registry: AnyRegistry) -> SourceRegistry:
        transport = await self._stack.enter_async_context(self._open(registry))
        paces = self._paces[registry] = Paces(_QUOTAS)
        return SourceRegistry(
            registry,
            transport.reading,
            partial(make_call, self._retrier, paces, Health()),
            anyio.CapacityLimiter(_DISCOVERY_AT_ONCE),
        )

    def _open(
        self, registry: AnyRegistry
    ) -> contextlib.AbstractAsyncContextManager[DistributionTransport]:
        settings = self._options.source_settings(registry)
        connections, user_agent = self._options.connections, self._user_agent
        if isinstance(registry, DistributionRegistry):
            return open_transport(
                registry.host,
                connections=connections,
                user_agent=user_agent,
                plain_http=registry.loopback or settings.plain_http,
                actions="pull",
            )
        # The AWS client takes as long to import as all else together, and only ECR needs it.
        from asyncpush.registries.ecr.token import open_by_token  # noqa: PLC0415

        return open_by_token(
            registry,
            settings.aws,
            connections=connections,
            user_agent=user_agent,
            source=True,
        )


@contextlib.asynccontextmanager
async def open_remotes(options: PushOptions, emit: EventSink) -> AsyncIterator[Remotes]:
    """Remotes for one plan alone."""
    remotes = Remotes(options, emit)
    try:
        yield remotes
    finally:
        with anyio.CancelScope(shield=True):
            await remotes.aclose()
