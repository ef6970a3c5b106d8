"""One connection, one set of bounds and one pace for each registry that images come from."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import anyio

from asyncpush.about import user_agent
from asyncpush.engine.allowance import Pulls
from asyncpush.engine.context import Health, make_call
from asyncpush.engine.events import EventSink
from asyncpush.engine.options import PushOptions, RegistrySettings
from asyncpush.engine.pace import Paces
from asyncpush.engine.retry import Retrier
from asyncpush.engine.work import Once
from asyncpush.plan.listing import AS_ANY, Listing, SourceAccess
from asyncpush.plan.reference import AnyRegistry, DistributionRegistry, Registry
from asyncpush.registries.distribution.ratelimit import RateLimit
from asyncpush.registries.distribution.transport import DistributionTransport, open_transport
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.sources.bridge import on_loop
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
    "DescribeRepositories": 100.0,
    "DescribeImages": 100.0,
}
_DISCOVERY_AT_ONCE = 32
_Key = tuple[AnyRegistry, SourceAccess]


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
        self._registries: Once[_Key, SourceRegistry] = Once()
        self._listings: Once[_Key, Listing] = Once()
        self._s3: Once[AwsOptions, Any] = Once()
        self._paces: dict[AnyRegistry, Paces] = {}
        self._pulls: dict[_Key, Pulls] = {}
        self._user_agent = user_agent()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._stack.aclose()

    async def connect(self, registry: AnyRegistry, access: SourceAccess = AS_ANY) -> SourceRegistry:
        """A registry that is read from.

        :param access: how it is asked, where that is not as the options say.
        :raises RegistryError: it cannot be opened.
        """
        key = (registry, access)
        source, _ = await self._registries.do(key, partial(self._connect, *key))
        return source

    async def list_ecr(self, registry: Registry, access: SourceAccess = AS_ANY) -> Listing:
        """What an ECR registry lists by its own API.

        :param access: how it is asked, where that is not as the options say.
        :raises RegistryError: it cannot be opened.
        """
        listing, _ = await self._listings.do(
            (registry, access), partial(self._list_ecr, registry, access)
        )
        return listing

    async def s3_client(self, access: SourceAccess = AS_ANY) -> Any:
        """An S3 client for all buckets that its principal may read.

        :param access: whose credentials sign its calls, where that is not as the options say.
        :raises CredentialsError: its configuration cannot be meant.
        """
        aws = _with_access(self._options.source_aws or self._options.aws, access)
        client, _ = await self._s3.do(aws, partial(self._open_s3, aws))
        return client

    def begin(self) -> None:
        """A plan begins: its calls are counted by themselves, and what could not be opened is tried
        again.
        """
        self._registries.forgive()
        self._listings.forgive()
        self._s3.forgive()
        for paces in self._paces.values():
            paces.begin()

    def calls(self) -> dict[str, dict[str, Any]]:
        """As :meth:`asyncpush.engine.connections.Connections.calls`."""
        found = {registry.host: paces.to_dict() for registry, paces in self._paces.items()}
        return {host: calls for host, calls in found.items() if calls}

    def rate_limits(self) -> dict[str, RateLimit]:
        """By registry, what it has stated last of its rate limit; the tightest, where it is asked
        with several credentials."""
        found: dict[str, RateLimit] = {}
        for (registry, _), pulls in self._pulls.items():
            limit, before = pulls.limit, found.get(registry.host)
            if limit is not None and (before is None or limit.remaining < before.remaining):
                found[registry.host] = limit
        return found

    async def _connect(self, registry: AnyRegistry, access: SourceAccess) -> SourceRegistry:
        transport = await self._stack.enter_async_context(self._open(registry, access))
        pulls = Pulls(registry.host, lambda: transport.rate_limit, self._emit)
        self._pulls[registry, access] = pulls
        make = partial(make_call, self._retrier, self._paces_of(registry), Health())
        return SourceRegistry(
            registry,
            transport.reading,
            partial(pulls.call, make),
            anyio.CapacityLimiter(_DISCOVERY_AT_ONCE),
        )

    async def _list_ecr(self, registry: Registry, access: SourceAccess) -> Listing:
        # As below: only ECR needs the AWS client.
        from asyncpush.registries.ecr.listing import EcrListing  # noqa: PLC0415
        from asyncpush.registries.ecr.session import open_client  # noqa: PLC0415

        aws = self._settings(registry, access).aws
        client = await self._stack.enter_async_context(
            open_client(registry, aws, self._options.connections, self._user_agent)
        )
        health, paces = Health(), self._paces_of(registry)

        def ask(name: str, call: Callable[[], Coroutine[Any, Any, Any]], /) -> Any:
            return on_loop(
                partial(make_call, self._retrier, paces, health, name, registry.host, call)
            )

        return EcrListing(client, registry, ask)

    def _paces_of(self, registry: AnyRegistry) -> Paces:
        """One pace for all that ask a registry, whatever their credentials."""
        return self._paces.setdefault(registry, Paces(_QUOTAS))

    def _settings(self, registry: AnyRegistry, access: SourceAccess) -> RegistrySettings:
        settings = self._options.source_settings(registry)
        return replace(
            settings,
            aws=_with_access(settings.aws, access),
            plain_http=settings.plain_http or access.plain_http,
        )

    async def _open_s3(self, aws: AwsOptions) -> Any:
        # As below: only S3 and ECR need the AWS client.
        from asyncpush.sources.s3 import open_s3_client  # noqa: PLC0415

        return await self._stack.enter_async_context(
            open_s3_client(aws, connections=self._options.connections, user_agent=self._user_agent)
        )

    def _open(
        self, registry: AnyRegistry, access: SourceAccess
    ) -> contextlib.AbstractAsyncContextManager[DistributionTransport]:
        settings = self._settings(registry, access)
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


def _with_access(aws: AwsOptions, access: SourceAccess) -> AwsOptions:
    if not access.profile and not access.role_arn:
        return aws
    return replace(
        aws,
        profile=access.profile or aws.profile,
        role_arn=access.role_arn,
        external_id=access.external_id,
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
