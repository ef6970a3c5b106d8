"""Clients of ECR's API: standard AWS configuration, one client per account, Region and endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.credentials import (
    AioAssumeRoleCredentialFetcher,
    AioDeferredRefreshableCredentials,
)
from aiobotocore.session import AioSession
from botocore.exceptions import NoCredentialsError

from asyncpush.errors import UsageError
from asyncpush.plan.reference import Registry
from asyncpush.registries.ecr.errors import translating
from asyncpush.registries.ecr.options import AwsOptions, check_endpoint

# Where AWS's own endpoints are (botocore's partitions.json: dnsSuffix and dualStackDnsSuffix).
_AWS_DOMAINS = (
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "api.amazonwebservices.com.cn",
    "api.amazonwebservices.eu",
    "api.aws",
    "api.aws.hci.ic.gov",
    "api.aws.ic.gov",
    "api.aws.scloud",
    "api.cloud-aws.adc-e.uk",
    "c2s.ic.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
    "sc2s.sgov.gov",
)


def is_aws(endpoint: str) -> bool:
    """Whether an API's address is one of AWS, not that of a local registry or the like."""
    host = urlsplit(endpoint).hostname or ""
    return any(host.endswith(f".{domain}") for domain in _AWS_DOMAINS)


def _keys(aws: AwsOptions) -> dict[str, str | None]:
    return {
        "aws_access_key_id": aws.access_key_id,
        "aws_secret_access_key": aws.secret_access_key,
        "aws_session_token": aws.session_token,
    }


async def _assume_role(session: AioSession, aws: AwsOptions, registry: Registry) -> None:
    """Let a session have a role's credentials, which it fetches and renews by itself."""
    source = await session.get_credentials()
    if source is None:
        raise NoCredentialsError
    arguments = {"RoleSessionName": "asyncpush"}
    if aws.external_id is not None:
        arguments["ExternalId"] = aws.external_id

    def create_client(service: str, **options: Any) -> Any:
        # STS is asked in the registry's Region, so that no other Region is needed.
        return session.create_client(service, region_name=registry.region, **options)

    fetcher = AioAssumeRoleCredentialFetcher(
        create_client, source, aws.role_arn, extra_args=arguments
    )
    # botocore has no public way to give a session a role's credentials; this is where it keeps
    # those that its own providers made.
    session._credentials = AioDeferredRefreshableCredentials(  # noqa: SLF001
        fetcher.fetch_credentials, "assume-role"
    )


async def open_session(registry: Registry, aws: AwsOptions) -> AioSession:
    """A session of AWS's standard configuration, with a registry's credentials.

    :raises CredentialsError: the configuration names a profile that does not exist, or the like.
    """
    with translating("CreateClient", registry=registry.host):
        session = AioSession(profile=aws.profile)
        if aws.access_key_id is not None:
            session.set_credentials(aws.access_key_id, aws.secret_access_key, aws.session_token)
        if aws.role_arn is not None:
            await _assume_role(session, aws, registry)
        return session


@contextlib.asynccontextmanager
async def open_client(
    registry: Registry,
    aws: AwsOptions,
    connections: int,
    user_agent: str,
    session: AioSession | None = None,
) -> AsyncIterator[Any]:
    """An aiobotocore ECR client for one registry; its own retries are off.

    :param connections: the most connections to keep open.
    :param user_agent: text to add to the User-Agent header.
    :param session: what :func:`open_session` gave, where it is needed beside the client.
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
            session = session or await open_session(registry, aws)
            with translating("CreateClient", registry=registry.host):
                client = await stack.enter_async_context(
                    session.create_client(
                        "ecr",
                        region_name=registry.region,
                        endpoint_url=aws.endpoint_url,
                        **({} if aws.role_arn is not None else _keys(aws)),
                        config=config,
                    )
                )
        except ValueError as exc:
            # botocore's word for an address, of the API or a proxy, that is none.
            advice = "write http://HOST[:PORT] or https://"
            if "@" in str(exc):  # behind a password
                raise UsageError("an endpoint's address is none", advice=advice) from exc
            raise UsageError(str(exc), advice=advice) from exc
        # It may also come from the environment or a profile.
        check_endpoint(str(client.meta.endpoint_url))
        yield client
