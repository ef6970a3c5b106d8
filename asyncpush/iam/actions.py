"""Which actions of ECR a push calls, and which each option adds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from asyncpush.replication.actions import (
    APPLY_ON_REGISTRY,
    WAIT_ON_REGISTRY,
    WAIT_ON_REPOSITORY,
)

AUTHORIZE = "ecr:GetAuthorizationToken"
"""The one action of a push that no resource can scope."""

# In the order of AWS's own policy for pushing ("IAM permissions for pushing an image").
PUSH = (
    "ecr:CompleteLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:InitiateLayerUpload",
    "ecr:BatchCheckLayerAvailability",
    "ecr:PutImage",
)
"""The actions of a push that concern a repository."""


class Extra(StrEnum):
    """What a push may be asked to do beyond its six calls."""

    CREATE = "create"
    """``--create-repositories``."""
    MOUNT = "mount"
    """Layers are mounted from one repository into another; the grant is on the source."""
    VERIFY = "verify"
    """``verify`` and ``--verify``."""
    VERIFY_DEEP = "verify-deep"
    """``verify --deep``."""
    ROLLBACK = "rollback"
    """``--rollback``."""
    REPLICATION = "replication"
    """``--wait-for-replication``."""
    REPLICATION_RULES = "replication-rules"
    """``replication apply``."""
    CHECK = "check"
    """``check`` foresees conflicts on immutable tags."""
    UNCHANGED = "unchanged"
    """What the repositories have already is found by asking about 100 tags at once."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Actions on the job's repositories, and actions that have no resource."""

    repository: tuple[str, ...] = ()
    registry: tuple[str, ...] = ()


def _ecr(calls: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"ecr:{call}" for call in calls)


EXTRAS: dict[Extra, Grant] = {
    Extra.CREATE: Grant(("ecr:CreateRepository",)),
    Extra.MOUNT: Grant(("ecr:GetDownloadUrlForLayer",)),
    Extra.VERIFY: Grant(("ecr:BatchGetImage",)),
    Extra.VERIFY_DEEP: Grant(("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")),
    Extra.ROLLBACK: Grant(("ecr:BatchGetImage",)),
    Extra.REPLICATION: Grant(_ecr(WAIT_ON_REPOSITORY), _ecr(WAIT_ON_REGISTRY)),
    Extra.REPLICATION_RULES: Grant((), _ecr(APPLY_ON_REGISTRY)),
    Extra.UNCHANGED: Grant(("ecr:BatchGetImage",)),
    Extra.CHECK: Grant(("ecr:DescribeRepositories", "ecr:BatchGetImage")),
}
