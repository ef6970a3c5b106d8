"""Whose credentials a push would use: where they were found, until when, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.parsers import ResponseParserError

from asyncpush.plan.reference import Registry
from asyncpush.registries.ecr.errors import translating
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.registries.ecr.session import is_aws

# Names of botocore's credential providers (botocore.credentials, METHOD of each).
_SOURCES: Mapping[str, str] = {
    "assume-role": "an assumed role",
    "assume-role-with-web-identity": "a web identity",
    "config-file": "the configuration file",
    "container-role": "the container's role",
    "custom-process": "a credential process",
    "ec2-credentials-file": "the EC2 credentials file",
    "env": "the environment",
    "explicit": "the program",
    "iam-role": "the instance's role",
    "login": "aws login",
    "shared-credentials-file": "the credentials file",
    "sso": "SSO",
}
_STS_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The credentials of one registry.

    :param source: where they were found.
    :param key: the last characters of the access key's id.
    :param expires: when they end; credentials that renew themselves are renewed before.
    :param account: the AWS account that they belong to.
    :param arn: the user, or the session of a role.
    :param unknown: why STS has not told account and ARN; empty if it has.
    """

    source: str
    key: str
    expires: datetime | None
    account: str | None
    arn: str | None
    unknown: str

    def to_dict(self) -> dict[str, Any]:
        """The identity as JSON-ready data."""
        return {
            "source": self.source,
            "key": self.key,
            "expires": self.expires.isoformat() if self.expires else None,
            "account": self.account,
            "arn": self.arn,
            "unknown": self.unknown,
        }


async def identify(
    session: AioSession, registry: Registry, aws: AwsOptions, endpoint: str
) -> Identity:
    """Find a session's credentials, and ask STS whose they are.

    STS answers GetCallerIdentity whatever a policy says. It is not asked where ECR's endpoint is
    none of AWS, unless it has an endpoint of its own, too: such credentials are none of AWS's.

    :param endpoint: the address of the ECR API.
    :raises CredentialsError: there are none, or they cannot be had.
    """
    with translating("GetCredentials", registry=registry.host):
        credentials = await session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        frozen = await credentials.get_frozen_credentials()
    source = _SOURCES.get(credentials.method, credentials.method)
    if aws.role_arn is not None:
        source = f"the role {aws.role_arn}"
    elif aws.profile is not None:
        source = f"the profile {aws.profile} ({source})"
    account, arn, unknown = await _caller(session, registry, endpoint)
    return Identity(
        source=source,
        key=f"...{frozen.access_key[-4:]}",
        # botocore has no public name for it; credentials without it do not end, or do not say so.
        expires=getattr(credentials, "_expiry_time", None),
        account=account or frozen.account_id,
        arn=arn,
        unknown=unknown,
    )


async def _caller(
    session: AioSession, registry: Registry, endpoint: str
) -> tuple[str | None, str | None, str]:
    """Account and ARN as STS tells them, or why it does not."""
    config = AioConfig(
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=_STS_SECONDS,
        read_timeout=_STS_SECONDS,
        use_fips_endpoint=registry.fips or None,
    )
    try:
        async with session.create_client(
            "sts", region_name=registry.region, config=config
        ) as client:
            if is_aws(client.meta.endpoint_url) and not is_aws(endpoint):
                return None, None, "STS is not asked, since the endpoint is none of AWS"
            answer = await client.get_caller_identity()
    except ClientError as exc:
        code = exc.response.get("Error", {}).get("Code", "an error")
        return None, None, f"STS answered {code}"
    except (BotoCoreError, ResponseParserError, ValueError) as exc:
        return None, None, f"STS could not be asked: {type(exc).__name__}"
    return str(answer["Account"]), str(answer["Arn"]), ""
