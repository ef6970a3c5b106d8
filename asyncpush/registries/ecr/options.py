"""Where AWS credentials and endpoints come from; costs no import of the AWS client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from asyncpush.errors import UsageError

TransportName = Literal["native", "distribution", "hybrid", "auto"]
"""The ways to speak to ECR."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsOptions:
    """Where credentials and endpoints come from, beside AWS's standard configuration.

    Everything that is left out comes from the environment and the shared configuration files, as
    for the AWS CLI: profiles, SSO, assumed roles, web identity, instance roles,
    ``AWS_ENDPOINT_URL_ECR``, ``AWS_CA_BUNDLE``, ``HTTPS_PROXY``.

    :param access_key_id: an access key, with its secret and, if it has one, its session token;
        None looks for credentials in all the places named above.
    :param profile: a profile of the shared configuration.
    :param role_arn: a role to assume with those credentials; its own are renewed before they
        expire.
    :param external_id: what the role's trust policy asks for (STS, AssumeRole).
    :param endpoint_url: the ECR API's address, such as that of a local registry.
    :param connect_timeout: seconds to wait for a connection.
    :param read_timeout: seconds to wait for the next bytes of an answer.
    """

    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = None
    endpoint_url: str | None = None
    connect_timeout: float = 10.0
    read_timeout: float = 60.0

    def __post_init__(self) -> None:
        # Options are written into reports; whether it is an address turns out beside the others.
        if self.endpoint_url is not None:
            _refuse_user(self.endpoint_url)


def check_endpoint(url: str) -> None:
    """Refuse an address that no call can go to, before calls are tried again and again.

    :raises UsageError: it is no address for HTTP, or has a name or password in it.
    """
    _refuse_user(url)
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme not in ("http", "https"):
        raise UsageError(
            f"{url!r} is no address of an API", advice="write http://HOST[:PORT] or https://"
        )


def _refuse_user(url: str) -> None:
    user, at, host = url.rpartition("@")
    if at:
        scheme, slashes, _ = user.partition("://")
        shown = f"{scheme}://***@{host}" if slashes else f"***@{host}"
        raise UsageError(
            f"{shown!r} has a name or password in it, which calls to AWS do not take",
            advice="leave it out: they are signed with AWS credentials",
        )
