"""Policy documents as IAM and ECR read them, and how their sizes count."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

Document = dict[str, Any]
Statement = dict[str, Any]

MANAGED_POLICY_CHARACTERS = 6144
"""Characters of a managed policy without white space ("IAM and AWS STS quotas")."""
POLICIES_OF_A_ROLE = 10
"""Managed policies that a role takes unless its quota was raised (the same page)."""
REPOSITORY_POLICY_CHARACTERS = 10_240
"""Characters of a repository's policy, white space and all (botocore's ecr model)."""


def document(*statements: Statement) -> Document:
    """A policy of these statements, in the order of AWS's examples."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(actions: Iterable[str], resources: Iterable[str]) -> Statement:
    """A statement that allows actions on resources; one alone stands without a list."""
    return {"Effect": "Allow", "Action": one_or_all(actions), "Resource": one_or_all(resources)}


def one_or_all(values: Iterable[str]) -> str | list[str]:
    """A text where there is one, as AWS writes it, and a list otherwise."""
    listed = list(values)
    return listed[0] if len(listed) == 1 else listed


def size(policy: Document) -> int:
    """Characters of a policy as IAM counts them: without white space."""
    # No name in these documents holds any.
    return len(json.dumps(policy, separators=(",", ":")))


def dumps(policy: Document) -> str:
    """A policy as people read it and the AWS CLI takes it."""
    return json.dumps(policy, indent=2)
