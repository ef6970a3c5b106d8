"""Clients of ECR's API: standard AWS configuration, one client per account, Region and endpoint."""

from __future__ import annotations

import contextlib
import os
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
from asyncpush.registries.ecr.http import BoundedSession
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


async def _assume_role(session: AioSession, aws: AwsOptions, region: str) -> None:
    """Let a session have a role's credentials, which it fetches and renews by itself."""
    source = await session.get_credentials()
    if source is None:
        raise NoCredentialsError
    arguments = {"RoleSessionName": "asyncpush"}
    if aws.external_id is not None:
        arguments["ExternalId"] = aws.external_id

    def create_client(service: str, **options: Any) -> Any:
        # STS is asked in the Region of the work, so that no other Region is needed.
        return session.create_client(service, region_name=region, **options)

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
    return await session_in(registry.region, aws, registry=registry.host)


async def session_in(region: str | None, aws: AwsOptions, **where: str | None) -> AioSession:
    """A session of AWS's standard configuration, with the credentials that the options name.

    :param region: where STS is asked for a role's credentials; None takes the configured Region,
        or us-east-1 where none is configured.
    :param where: what it is for, for errors.
    :raises CredentialsError: the configuration names a profile that does not exist, or the like.
    """
    with translating("CreateClient", **where):
        session = AioSession(profile=aws.profile)
        if aws.access_key_id is not None:
            session.set_credentials(aws.access_key_id, aws.secret_access_key, aws.session_token)
        if aws.role_arn is not None:
            await _assume_role(session, aws, region or configured_region(session))
        return session


def configured_region(session: AioSession) -> str:
    """The Region of the environment or the profile; us-east-1 where there is none.

    Of ``AWS_REGION`` and ``AWS_DEFAULT_REGION`` the first counts, as for the AWS CLI; botocore
    reads the second alone.

    :raises CredentialsError: the profile does not exist.
    """
    with translating("CreateClient"):
        found = os.environ.get("AWS_REGION") or session.get_config_variable("region")
        return found or "us-east-1"


def client_config(aws: AwsOptions, connections: int, user_agent: str, **further: Any) -> AioConfig:
    """How a client of any service calls it; its own retries are off.

    :param connections: the most connections to keep open.
    :param user_agent: text to add to the User-Agent header.
    :param further: fields of botocore's configuration.
    """
    return AioConfig(
        # The caller retries: it knows the part, the budget and the reader that it reports to.
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=connections,
        connect_timeout=aws.connect_timeout,
        read_timeout=aws.read_timeout,
        tcp_keepalive=True,
        user_agent_extra=user_agent,
        http_session_cls=BoundedSession,
        **further,
    )


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
    config = client_config(
        aws,
        connections,
        user_agent,
        use_fips_endpoint=registry.fips or None,
        use_dualstack_endpoint=registry.dual_stack or None,
    )
    session = session or await open_session(registry, aws)
    async with client_of(
        "ecr", session, aws, config, registry.region, aws.endpoint_url, registry=registry.host
    ) as client:
        yield client


@contextlib.asynccontextmanager
async def client_of(
    service: str,
    session: AioSession,
    aws: AwsOptions,
    config: AioConfig,
    region: str,
    endpoint_url: str | None = None,
    **where: str | None,
) -> AsyncIterator[Any]:
    """An aiobotocore client of a service.

    :param service: botocore's name of it.
    :param endpoint_url: its address; None for the one that the configuration names, or AWS's own.
    :param where: what it is for, for errors.
    :raises CredentialsError: the configuration names a profile that does not exist, or the like.
    :raises UsageError: the endpoint's address is none.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            with translating("CreateClient", **where):
                client = await stack.enter_async_context(
                    session.create_client(
                        service,
                        region_name=region,
                        endpoint_url=endpoint_url,
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
