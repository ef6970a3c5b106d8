"""Resource-based policies: what a repository or a registry must allow to other accounts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace

from asyncpush.errors import UsageError
from asyncpush.iam.actions import EXTRAS, PUSH, Extra
from asyncpush.iam.document import (
    REPOSITORY_POLICY_CHARACTERS,
    Document,
    document,
    dumps,
    one_or_all,
)
from asyncpush.plan.reference import Registry
from asyncpush.replication.policy import destination_policies
from asyncpush.replication.rules import Destination, Rule

_ACCOUNT = re.compile(r"[0-9]{12}")
# IAM's reference, "Principal": an account, a user, a role, or a session of a role.
_PRINCIPAL = re.compile(
    r"arn:aws[a-z0-9-]*:(?:iam::[0-9]{12}:(?:root|(?:user|role)/[\w+=,.@/-]+)"
    r"|sts::[0-9]{12}:assumed-role/[\w+=,.@-]+/[\w+=,.@-]+)",
    re.ASCII,
)
# ecr model: RepositoryFilterValue, which a replication's rules name repositories by.
_PREFIX = re.compile(
    r"(?=.{2,256}\Z)(?:[a-z0-9]+(?:[._-][a-z0-9]*)*/)*[a-z0-9]*(?:[._-][a-z0-9]*)*"
)


def parse_principal(text: str) -> str:
    """A principal's ARN, from an ARN or an account's number.

    :raises UsageError: it is neither, or means everybody.
    """
    if _ACCOUNT.fullmatch(text):
        return f"arn:aws:iam::{text}:root"
    if not _PRINCIPAL.fullmatch(text):
        raise UsageError(
            f"{text!r} is no principal",
            advice="write an account's 12 digits, or the ARN of a role or user:"
            " arn:aws:iam::ACCOUNT:role/NAME",
        )
    return text


def repository_policy(principals: Iterable[str], extras: Collection[Extra] = ()) -> Document:
    """What a repository must allow to principals of other accounts that push to it.

    The token is none of its business: each principal's own policy allows that.

    :param principals: what :func:`parse_principal` takes.
    :raises UsageError: a principal is none, there are too many, or an extra cannot be allowed so.
    """
    if Extra.CREATE in extras:
        raise UsageError(
            "no repository can allow its own creation",
            advice="let a principal of the account create repositories, and leave create out",
        )
    actions = list(PUSH)
    for extra in (extra for extra in Extra if extra in extras):
        if not EXTRAS[extra].repository:
            raise UsageError(f"{extra} concerns no repository", advice="leave it out here")
        actions += EXTRAS[extra].repository
    named = list(dict.fromkeys(map(parse_principal, principals)))
    policy = document(
        {
            "Sid": "AllowPush",
            "Effect": "Allow",
            "Principal": {"AWS": one_or_all(named)},
            "Action": list(dict.fromkeys(actions)),
        }
    )
    if (length := len(dumps(policy))) > REPOSITORY_POLICY_CHARACTERS:
        raise UsageError(
            f"the policy has {length:,} characters, and a repository takes"
            f" {REPOSITORY_POLICY_CHARACTERS:,}",
            advice="name accounts, or one role that all of them assume, instead of each principal",
        )
    return policy


def registry_policy(
    destination: Registry, sources: Iterable[str], prefixes: Iterable[str] = ()
) -> Document:
    """What a registry must allow to other accounts that replicate into it.

    :param destination: the registry whose policy it is.
    :param sources: the accounts whose images come.
    :param prefixes: what names of repositories begin with; none is all repositories.
    :raises UsageError: an account or a prefix cannot be meant.
    """
    for prefix in prefixes:
        if not _PREFIX.fullmatch(prefix):
            raise UsageError(f"no repository's name begins with {prefix!r}")
    rule = Rule(
        frozenset({Destination(destination.account, destination.region)}), frozenset(prefixes)
    )
    statements = []
    for account in dict.fromkeys(sources):
        if not _ACCOUNT.fullmatch(account):
            raise UsageError(f"{account!r} is no AWS account", advice="an account has 12 digits")
        if account == destination.account:
            raise UsageError(
                f"{account} is the registry's own account",
                advice="replication within an account needs no policy",
            )
        for policy in destination_policies(replace(destination, account=account), [rule]):
            statements += policy.document["Statement"]
    return document(*statements)
