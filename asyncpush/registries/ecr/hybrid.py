"""Both APIs of ECR at once: uploads over its own, mounts over OCI distribution."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio

from asyncpush.oci.digest import Digest
from asyncpush.plan.reference import Registry
from asyncpush.registries.base import MountAnswer
from asyncpush.registries.distribution.transport import DistributionTransport
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.registries.ecr.session import open_client
from asyncpush.registries.ecr.token import MOUNTING, PROMOTING, open_beside
from asyncpush.registries.ecr.transport import EcrTransport


class HybridTransport(EcrTransport):
    """ECR's own API, and its other one for the one thing that it alone can do.

    :param other: OCI distribution to the same registry.
    """

    def __init__(
        self,
        client: Any,
        registry: Registry,
        hashing: anyio.CapacityLimiter,
        other: DistributionTransport,
    ) -> None:
        super().__init__(client, registry, hashing)
        self.mounting = MOUNTING
        self.promoting = PROMOTING
        self._other = other

    async def mount(self, repository: str, digest: Digest, source: str) -> MountAnswer:
        """See :class:`~asyncpush.registries.base.Transport`."""
        answer = await self._other.mount(repository, digest, source)
        # The session that comes with a refusal is one of the other API.
        return MountAnswer(answer.mounted)


class NativeTransport(HybridTransport):
    """ECR's own API, and its other one for promotions alone, which it is asked for anyway: the
    images come from there.
    """

    def __init__(
        self,
        client: Any,
        registry: Registry,
        hashing: anyio.CapacityLimiter,
        other: DistributionTransport,
    ) -> None:
        super().__init__(client, registry, hashing, other)
        self.mounting = None


Kind = Callable[[Any, Registry, anyio.CapacityLimiter, DistributionTransport], HybridTransport]
"""Makes a transport of both APIs: a class, or one with some arguments given."""


@contextlib.asynccontextmanager
async def open_hybrid(
    registry: Registry,
    aws: AwsOptions,
    kind: Kind = HybridTransport,
    *,
    connections: int,
    hashing: anyio.CapacityLimiter,
    user_agent: str,
) -> AsyncIterator[HybridTransport]:
    """Open both APIs of one registry.

    :param kind: what is done by which of them.
    :param connections: the most connections to keep open to each.
    :param hashing: limits the threads that hash parts.
    :param user_agent: text to add to the User-Agent header.
    """
    async with (
        open_client(registry, aws, connections, user_agent) as client,
        open_beside(client, registry, aws, connections=connections, user_agent=user_agent) as other,
    ):
        yield kind(client, registry, hashing, other)
