"""ECR through OCI distribution: its token is the password, renewed before its 12 hours end."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import AsyncIterator

import anyio

from asyncpush.errors import CredentialsError
from asyncpush.plan.reference import Registry
from asyncpush.registries.distribution.dockerconfig import Login
from asyncpush.registries.distribution.transport import DistributionTransport, open_transport
from asyncpush.registries.ecr.errors import translating
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.registries.ecr.session import is_aws, open_client

_MARGIN_SECONDS = 900


@contextlib.asynccontextmanager
async def open_by_token(
    registry: Registry, aws: AwsOptions, *, connections: int, user_agent: str
) -> AsyncIterator[DistributionTransport]:
    """Open OCI distribution to an ECR registry.

    :param connections: the most connections to keep open to it.
    :raises CredentialsError: no token is given.
    """
    async with open_client(registry, aws, 2, user_agent) as client:
        held: list[tuple[float, Login]] = []
        lock = anyio.Lock()

        async def find(_repository: str) -> Login:
            async with lock:
                if not held or held[0][0] < time.time():
                    held[:] = [await _get(client, registry)]
                return held[0][1]

        # An API of one's own, such as a local registry, also is where its images are.
        async with open_transport(
            registry.host,
            connections=connections,
            user_agent=user_agent,
            plain_http=False,
            find=find,
            url=None if is_aws(client.meta.endpoint_url) else str(client.meta.endpoint_url),
            read_timeout=aws.read_timeout,
        ) as transport:
            yield transport


async def _get(client: object, registry: Registry) -> tuple[float, Login]:
    with translating("GetAuthorizationToken", registry=registry.host):
        answer = await client.get_authorization_token()  # type: ignore[attr-defined]
    data = answer["authorizationData"][0]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    if not password:
        raise CredentialsError("ECR's token holds no password", registry=registry.host)
    expires = data["expiresAt"].timestamp() - _MARGIN_SECONDS
    return max(expires, time.time() + 60), Login(user, password)
