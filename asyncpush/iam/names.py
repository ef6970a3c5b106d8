"""How users name the repositories of a policy: references, ARNs, and patterns of ARNs."""

from __future__ import annotations

import re

from asyncpush.errors import UsageError
from asyncpush.plan.reference import Registry, Repository, parse_reference

_PATTERN = re.compile(
    r"arn:aws[a-z0-9-]*:ecr:[a-z0-9][a-z0-9-]*:[0-9]{12}:repository/[a-z0-9._/*?-]{1,256}"
)


def parse_resource(text: str) -> str:
    """The ARN of a repository, from a reference or an ARN; a pattern of ARNs is taken as it is.

    :raises UsageError: it is none of them, or not ECR's.
    """
    if "*" not in text and "?" not in text:
        return resource_of(parse_reference(text).repository)
    if not _PATTERN.fullmatch(text):
        raise UsageError(
            f"{text!r} is no pattern of repository ARNs",
            advice="write arn:aws:ecr:REGION:ACCOUNT:repository/PREFIX*; wildcards are for the"
            " repository's name alone",
        )
    return text


def resource_of(repository: Repository) -> str:
    """The ARN of a repository.

    :raises UsageError: it is not ECR's.
    """
    if repository.arn is None:
        raise UsageError(f"{repository} is not ECR's, and IAM has no say there")
    return repository.arn


def key_of(kms_key: str, registry: Registry) -> str | None:
    """The ARN of the key that encrypts a registry's new repositories.

    :param kms_key: a key's ARN or id, as CreateRepository takes it.
    :return: None for an alias, which a policy cannot name in the place of its key.
    """
    if "alias/" in kms_key:
        return None
    if kms_key.startswith("arn:"):
        return kms_key
    return f"arn:{registry.partition}:kms:{registry.region}:{registry.account}:key/{kms_key}"
