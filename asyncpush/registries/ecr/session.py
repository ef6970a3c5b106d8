"""Clients of ECR's API: standard AWS configuration, one client per account, Region and endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from asyncpush.errors import UsageError
from asyncpush.plan.reference import Registry
from asyncpush.registries.ecr.errors import translating


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsOptions:
    """Where credentials and endpoints come from, beside AWS's standard configuration.

    Everything that is left out comes from the environment and the shared configuration files, as
    for the AWS CLI: profiles, SSO, assumed roles, web identity, instance roles,
    ``AWS_ENDPOINT_URL_ECR``, ``AWS_CA_BUNDLE``, ``HTTPS_PROXY``.

    :param access_key_id: an access key, with its secret and, if it has one, its session token;
        None looks for credentials in all the places named above.
    :param profile: a profile of the shared configuration.
    :param endpoint_url: the ECR API's address, such as that of a local registry.
    :param connect_timeout: seconds to wait for a connection.
    :param read_timeout: seconds to wait for the next bytes of an answer.
    """

    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    endpoint_url: str | None = None
    connect_timeout: float = 10.0
    read_timeout: float = 60.0


@contextlib.asynccontextmanager
async def open_client(
    registry: Registry, aws: AwsOptions, connections: int, user_agent: str
) -> AsyncIterator[Any]:
    """An aiobotocore ECR client for one registry; its own retries are off.

    :param connections: the most connections to keep open.
    :param user_agent: text to add to the User-Agent header.
    :raises CredentialsError: the configuration names a profile that does not exist, or the like.
    """
    config = AioConfig(
        # The engine retries: it knows the part, the budget and the reader that it reports to.
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=connections,
        connect_timeout=aws.connect_timeout,
        read_timeout=aws.read_timeout,
        tcp_keepalive=True,
        use_fips_endpoint=registry.fips or None,
        use_dualstack_endpoint=registry.dual_stack or None,
        user_agent_extra=user_agent,
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            with translating("CreateClient", registry=registry.host):
                session = AioSession(profile=aws.profile)
                client = await stack.enter_async_context(
                    session.create_client(
                        "ecr",
                        region_name=registry.region,
                        endpoint_url=aws.endpoint_url,
                        aws_access_key_id=aws.access_key_id,
                        aws_secret_access_key=aws.secret_access_key,
                        aws_session_token=aws.session_token,
                        config=config,
                    )
                )
        except ValueError as exc:
            # botocore's word for an address, of the API or a proxy, that is none.
            raise UsageError(str(exc), advice="write http://HOST[:PORT] or https://") from exc
        yield client
