"""Policies of registries: which account may do what, and what is no such policy."""

from __future__ import annotations

from typing import Any

import pytest

from asyncpush.localregistry.access.policy import Decision, RegistryPolicy

ARN = "arn:aws:ecr:us-east-1:444455556666:repository/"
ACCOUNT = "111122223333"
STATEMENT: dict[str, Any] = {
    "Sid": "replication",
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
    "Action": ["ecr:CreateRepository", "ecr:ReplicateImage"],
    "Resource": f"{ARN}team/*",
}


def policy(*statements: dict[str, Any]) -> RegistryPolicy:
    return RegistryPolicy({"Version": "2012-10-17", "Statement": list(statements)})


@pytest.mark.parametrize(
    ("principal", "decision"),
    [
        ({"AWS": "arn:aws:iam::111122223333:root"}, Decision.ALLOWED),
        ({"AWS": "111122223333"}, Decision.ALLOWED),
        ({"AWS": ["777788889999", "111122223333"]}, Decision.ALLOWED),
        ({"AWS": "*"}, Decision.ALLOWED),
        ("*", Decision.ALLOWED),
        ({"AWS": "arn:aws:iam::111122223333:user/ann"}, Decision.UNMENTIONED),
        ({"AWS": "777788889999"}, Decision.UNMENTIONED),
    ],
)
def test_a_statement_is_for_its_principals(principal: Any, decision: Decision) -> None:
    found = policy({**STATEMENT, "Principal": principal})
    assert found.decide("ecr:ReplicateImage", f"{ARN}team/app", ACCOUNT) is decision


def test_actions_and_resources_count_as_in_any_policy() -> None:
    found = policy(STATEMENT)
    assert found.decide("ecr:PutImage", f"{ARN}team/app", ACCOUNT) is Decision.UNMENTIONED
    assert found.decide("ecr:ReplicateImage", f"{ARN}other/app", ACCOUNT) is Decision.UNMENTIONED


def test_a_deny_beats_every_allow() -> None:
    found = policy(STATEMENT, {**STATEMENT, "Effect": "Deny", "Resource": f"{ARN}team/secret"})
    assert found.decide("ecr:ReplicateImage", f"{ARN}team/app", ACCOUNT) is Decision.ALLOWED
    assert found.decide("ecr:ReplicateImage", f"{ARN}team/secret", ACCOUNT) is Decision.DENIED


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"Principal": None}, "Statement[0].Principal"),
        ({"Principal": {"Service": "ecr.amazonaws.com"}}, "Statement[0].Principal"),
        ({"Principal": {"AWS": []}}, "Statement[0].Principal.AWS"),
        ({"Principal": {"AWS": "ann"}}, "Statement[0].Principal.AWS"),
        ({"Effect": "Perhaps"}, "Statement[0].Effect"),
        ({"Resource": None}, "Statement[0].Resource"),
        ({"Condition": {}}, "Statement[0].Condition"),
    ],
)
def test_what_cannot_be_enforced_is_refused(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ValueError, match="Statement") as caught:
        policy({**STATEMENT, **change})
    assert where in str(caught.value)
