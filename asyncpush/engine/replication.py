"""A registry's replication calls at their pace, with retries."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

from asyncpush.engine.connections import close
from asyncpush.engine.events import EventSink
from asyncpush.engine.options import PushOptions
from asyncpush.engine.pace import Paces
from asyncpush.engine.retry import Retrier
from asyncpush.plan.reference import Registry
from asyncpush.replication.rules import Rule, Rules

if TYPE_CHECKING:
    from asyncpush.registries.ecr.replication import Answer, ReplicationCalls

T = TypeVar("T")

ASKING_AT_ONCE = 8
"""Calls in flight to one registry; its pace is what bounds how many are made."""


class RegistryReplication:
    """The replication of one registry: its rules, and how its images stand.

    :param calls: the registry's calls, each tried once.
    """

    def __init__(
        self, registry: Registry, calls: ReplicationCalls, retrier: Retrier, paces: Paces
    ) -> None:
        self._registry = registry
        self._calls = calls
        self._retrier = retrier
        self._paces = paces

    async def rules(self) -> tuple[Rule, ...]:
        """The registry's rules.

        :raises AccessDeniedError: ecr:DescribeRegistry is not granted, or not by this account.
        """
        return await self._call("DescribeRegistry", self._registry.host, self._calls.rules)

    async def put_rules(self, rules: Rules) -> None:
        """Let the registry have these rules and no others; to be called after :meth:`rules`."""
        put = partial(self._calls.put_rules, rules)
        await self._call("PutReplicationConfiguration", self._registry.host, put)

    async def status(self, repository: str, image: str) -> Answer:
        """How the replication of an image, a digest or a tag, stands."""
        ask = partial(self._calls.status, repository, image)
        where = f"{self._registry.host}/{repository}"
        return await self._call("DescribeImageReplicationStatus", where, ask)

    def calls(self) -> dict[str, Any]:
        """By call: how often it was made and throttled, its quota, its rate."""
        return self._paces.to_dict()

    async def _call(self, name: str, where: str, call: Callable[[], Awaitable[T]]) -> T:
        return await self._retrier.call(name, where, call, self._paces.of(name))


@contextlib.asynccontextmanager
async def open_replication(
    registry: Registry, options: PushOptions, emit: EventSink
) -> AsyncIterator[RegistryReplication]:
    """Open one registry's replication.

    :param options: credentials, endpoint, quotas and retries.
    :param emit: told of calls and retries.
    """
    # The AWS client takes longer to import than most commands take.
    from asyncpush.registries.ecr.replication import open_replication_calls  # noqa: PLC0415

    settings = options.settings(registry)
    stack = contextlib.AsyncExitStack()
    try:
        calls = await stack.enter_async_context(
            open_replication_calls(
                registry,
                settings.aws,
                connections=ASKING_AT_ONCE,
                user_agent=f"asyncpush/{metadata.version('asyncpush')}",
            )
        )
        retrier = Retrier(options.attempts, options.retry_base, options.retry_cap, emit)
        yield RegistryReplication(registry, calls, retrier, Paces(settings.quotas))
    finally:
        await close(stack)
