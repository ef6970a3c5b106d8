"""Identity-based policies: what the principal that pushes must be allowed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from asyncpush.errors import UsageError
from asyncpush.iam.actions import AUTHORIZE, EXTRAS, PUSH, Extra
from asyncpush.iam.document import (
    MANAGED_POLICY_CHARACTERS,
    Document,
    Statement,
    allow,
    document,
    size,
)

# What is between two elements of a list: two quotes and a comma.
_AROUND = 3


def push_policy(extras: Collection[Extra] = ()) -> Document:
    """The policy that allows pushing to any repository of the account: AWS's own."""
    first, *rest = PUSH
    repository, registry = _extra_actions(extras)
    return document(allow([first, AUTHORIZE, *rest, *repository, *registry], ["*"]))


def push_policies(
    resources: Iterable[str],
    extras: Collection[Extra] = (),
    *,
    tagged: bool = False,
    kms_keys: Iterable[str] = (),
) -> list[Document]:
    """The policies that allow pushing to these repositories and no others.

    There is one, with a statement for each account, unless IAM would not take it for its size: then
    each stands for itself, and the principal needs all of them.

    :param resources: ARNs of repositories, or patterns of them.
    :param extras: what the push does beyond its six calls.
    :param tagged: whether repositories that are created get tags.
    :param kms_keys: ARNs of the keys that encrypt repositories which are created.
    """
    repository, registry = _extra_actions(extras)
    if tagged:
        repository = [*repository, "ecr:TagResource"]
    actions = [*PUSH, *repository]
    rest: list[Statement] = [allow([AUTHORIZE, *registry], ["*"])]
    if keys := sorted(set(kms_keys)):
        # ECR has a grant on the key made for it when the repository is created ("Encryption at
        # rest"). Without a key of one's own, AWS's key for ECR allows that by itself.
        rest.append(allow(["kms:CreateGrant", "kms:DescribeKey"], keys))
    room = MANAGED_POLICY_CHARACTERS - size(document(*rest))
    return [
        document(*(allow(actions, group) for group in groups), *rest)
        for groups in _packed(_by_account(resources), actions, room)
    ]


def _extra_actions(extras: Collection[Extra]) -> tuple[list[str], list[str]]:
    """The actions on repositories and those without a resource that extras add, each once."""
    grants = [EXTRAS[extra] for extra in Extra if extra in extras]
    repository = dict.fromkeys(action for grant in grants for action in grant.repository)
    registry = dict.fromkeys(action for grant in grants for action in grant.registry)
    return list(repository), list(registry)


def _by_account(resources: Iterable[str]) -> list[list[str]]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for resource in sorted(set(resources)):
        groups[resource.split(":")[4]].append(resource)
    return [groups[account] for account in sorted(groups)]


def _packed(
    accounts: Iterable[list[str]], actions: list[str], room: int
) -> Iterator[list[list[str]]]:
    """Fill documents one after the other with the resources of one account after the other.

    :param room: characters that statements about repositories may have in one document.
    """
    # A statement with an empty list of resources, and the comma behind it.
    frame = size(allow(actions, [])) + 1
    groups: list[list[str]] = []
    left = room
    for resources in accounts:
        new = True
        for resource in resources:
            cost = len(resource) + _AROUND
            if cost + frame > room:
                raise UsageError(
                    "one repository with these actions is more than a policy takes",
                    advice="ask for fewer of --with at a time",
                    resource=resource,
                )
            if cost + (frame if new else 0) > left:
                yield groups
                groups, left, new = [], room, True
            if new:
                groups.append([])
                left -= frame
                new = False
            groups[-1].append(resource)
            left -= cost
    if groups:
        yield groups
