"""ECR through OCI distribution: its token is the password, renewed before its 12 hours end."""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

from asyncpush.errors import CredentialsError, UsageError
from asyncpush.plan.reference import Registry
from asyncpush.registries.base import Mounting
from asyncpush.registries.distribution.dockerconfig import Login
from asyncpush.registries.distribution.transport import DistributionTransport, open_transport
from asyncpush.registries.ecr.answers import token_of
from asyncpush.registries.ecr.batch import Images
from asyncpush.registries.ecr.errors import asking
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.registries.ecr.session import is_aws, open_client
from asyncpush.registries.flights import Flights

PROMOTING = Mounting(
    referenced=True,
    advice="mounting must be switched on for the account (aws ecr put-account-setting --name"
    " BLOB_MOUNTING --value ENABLED), both repositories must be encrypted alike, and the source"
    " must grant ecr:GetDownloadUrlForLayer",
)
"""What ECR mounts ("Blob mounting in Amazon ECR"; aws/containers-roadmap 2860)."""
MOUNTING = Mounting(
    PROMOTING.referenced, f"{PROMOTING.advice}; --transport native asks for no mounts"
)
"""As :data:`PROMOTING`, where it is asked for because the user has chosen to."""

_MARGIN_SECONDS = 900.0
# A token that seems to have ended already is one of a clock that is wrong, here or there.
_UNKNOWN_SECONDS = 60.0


@contextlib.asynccontextmanager
async def open_by_token(
    registry: Registry,
    aws: AwsOptions,
    *,
    connections: int,
    user_agent: str,
    source: bool = False,
) -> AsyncIterator[DistributionTransport]:
    """Open OCI distribution to an ECR registry.

    :param connections: the most connections to keep open to it.
    :param source: whether it is only read from.
    :raises CredentialsError: no token is given.
    """
    async with (
        open_client(registry, aws, 2, user_agent) as client,
        open_beside(
            client,
            registry,
            aws,
            connections=connections,
            user_agent=user_agent,
            source=source,
        ) as api,
    ):
        # A hundred in one call; /v2/ answers for one tag at a time.
        api.ask_tags = Images(client, registry).tagged
        yield api


@contextlib.asynccontextmanager
async def open_beside(
    client: Any,
    registry: Registry,
    aws: AwsOptions,
    *,
    connections: int,
    user_agent: str,
    source: bool = False,
) -> AsyncIterator[DistributionTransport]:
    """Open OCI distribution to an ECR registry, with a client of ECR's own API at hand.

    :param client: gives the tokens.
    :param connections: the most connections to keep open to it.
    :param source: whether it is only read from.
    """
    endpoint = client.meta.endpoint_url
    # An API of one's own, such as a local registry, also is where its images are.
    async with open_transport(
        registry.host,
        connections=connections,
        user_agent=user_agent,
        plain_http=False,
        logins=_TokenLogins(client, registry),
        url=None if is_aws(endpoint) else str(endpoint),
        mounting=MOUNTING,
        tls=_trusted(),
        read_timeout=aws.read_timeout,
        actions="pull" if source else "pull,push",
    ) as transport:
        transport.promoting = PROMOTING
        yield transport


def _trusted() -> ssl.SSLContext | None:
    """The authorities that AWS's tools are told to trust, so that both APIs trust the same."""
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if not bundle:
        return None
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as exc:  # ssl's own errors are of this kind, too
        raise UsageError(
            f"AWS_CA_BUNDLE cannot be read: {exc.strerror or exc}", file=bundle
        ) from exc


class _TokenLogins:
    """The token, the same for all repositories until it is nearly over or was refused."""

    def __init__(self, client: Any, registry: Registry) -> None:
        self._held: Login | None = None
        self._client = client
        self._registry = registry
        self._getting: Flights[None, Login] = Flights()

    async def find(self, repository: str) -> Login:  # noqa: ARG002 - it is good for all of them
        held = self._held
        if held is not None and held.until > time.monotonic():
            return held
        return await self._getting.do(None, self._get)

    def forget(self, login: Login | None) -> None:
        if self._held is login:
            self._held = None

    async def _get(self) -> Login:
        self._held = await _fetch(self._client, self._registry)
        return self._held


async def _fetch(client: Any, registry: Registry) -> Login:
    with asking("GetAuthorizationToken", registry=registry.host):
        answer = await client.get_authorization_token()
        token, ends = token_of(answer)
        user, _, password = base64.b64decode(token).decode().partition(":")
        left = ends - time.time()
    if not password:
        raise CredentialsError("ECR's token holds no password", registry=registry.host)
    good = left - min(_MARGIN_SECONDS, left / 4) if left > 0 else _UNKNOWN_SECONDS
    return Login(user, password, until=time.monotonic() + good)
