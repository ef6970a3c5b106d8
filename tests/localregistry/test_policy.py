"""Policies: what is allowed, what denied, and what is not read at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.localregistry import Key, load_keys
from asyncpush.localregistry.access.policy import Decision, Policy, ResourcePolicy

ARN = "arn:aws:ecr:eu-west-1:111122223333:repository/team/app"


def policy(*statements: dict[str, Any]) -> Policy:
    return Policy({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: Any, resource: Any = "*", effect: str = "Allow") -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource}


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        ("ecr:PutImage", "*", True),
        ("ECR:putimage", "*", True),
        ("ecr:Put*", ARN, True),
        ("ecr:?utImage", ARN, True),
        ("*", ARN, True),
        (["ecr:Get*", "ecr:PutImage"], ["arn:x", ARN], True),
        ("ecr:PutImag", "*", False),
        ("ecr:PutImage", ARN + "2", False),
        ("ecr:PutImage", ARN.upper().replace("ARN", "arn"), False),
        ("ecr:PutImage", "arn:aws:ecr:*:111122223333:repository/team/*", True),
        ("ecr:PutImage", "arn:aws:ecr:eu-west-1:111122223333:repository/*", True),
        ("ecr:PutImage", "arn:aws:ecr:eu-west-1:111122223333:repository/?eam/app", True),
        ("ecr:PutImage", "arn:aws:ecr:eu-west-1:111122223333", True),
        ("ecr:PutImage", "arn:aws:ecr:eu-west-1:444455556666:repository/*", False),
        ("ecr:PutImage", "arn:aws:ecr:*/app", False),
        ("ecr:PutImage", "arn:aws:ecr:eu-west-1:111122223333:repository/team", False),
    ],
)
def test_actions_and_resources_match_with_wildcards(
    action: Any, resource: Any, allowed: bool
) -> None:
    decision = policy(allow(action, resource)).decide("ecr:PutImage", ARN)
    assert decision is (Decision.ALLOWED if allowed else Decision.UNMENTIONED)


def test_deny_beats_every_allow() -> None:
    found = policy(allow("*"), allow("ecr:Put*", ARN, "Deny"), allow("ecr:PutImage", ARN))
    assert found.decide("ecr:PutImage", ARN) is Decision.DENIED
    assert found.decide("ecr:PutImage", ARN + "2") is Decision.ALLOWED


def test_action_without_resource_needs_a_star() -> None:
    scoped = policy(allow("ecr:*", ARN))
    assert scoped.decide("ecr:GetAuthorizationToken", "*") is Decision.UNMENTIONED
    everywhere = policy(allow("ecr:GetAuthorizationToken"))
    assert everywhere.decide("ecr:GetAuthorizationToken", "*") is Decision.ALLOWED


def resource_policy(principal: Any, effect: str = "Allow", **more: Any) -> ResourcePolicy:
    statement = {"Effect": effect, "Principal": principal, "Action": "ecr:Put*", **more}
    return ResourcePolicy({"Version": "2012-10-17", "Statement": [statement]})


CALLER = "arn:aws:iam::444455556666:user/ci"


@pytest.mark.parametrize(
    ("principal", "decision"),
    [
        ("*", Decision.ALLOWED),
        ({"AWS": "*"}, Decision.ALLOWED),
        ({"AWS": CALLER}, Decision.ALLOWED),
        ({"AWS": ["arn:aws:iam::777788889999:root", CALLER]}, Decision.ALLOWED),
        ({"AWS": "444455556666"}, Decision.DELEGATED),
        ({"AWS": "arn:aws:iam::444455556666:root"}, Decision.DELEGATED),
        ({"AWS": "arn:aws-cn:iam::444455556666:root"}, Decision.DELEGATED),
        ({"AWS": f"{CALLER}2"}, Decision.UNMENTIONED),
        ({"AWS": "arn:aws:iam::777788889999:root"}, Decision.UNMENTIONED),
    ],
)
def test_a_resources_policy_means_users_accounts_or_everybody(
    principal: Any, decision: Decision
) -> None:
    assert resource_policy(principal).decide("ecr:PutImage", CALLER) is decision
    assert resource_policy(principal).decide("ecr:GetX", CALLER) is Decision.UNMENTIONED
    denied = resource_policy(principal, "Deny").decide("ecr:PutImage", CALLER)
    assert (denied is Decision.DENIED) == (decision is not Decision.UNMENTIONED)


@pytest.mark.parametrize(
    ("principal", "more"),
    [
        (None, {}),
        ({"AWS": []}, {}),
        ({"AWS": "nobody"}, {}),
        ({"AWS": "arn:aws:iam::444455556666:user/*"}, {}),
        ({"Service": "codebuild.amazonaws.com"}, {}),
        ({"AWS": CALLER, "Service": "codebuild.amazonaws.com"}, {}),
        ("*", {"Resource": "*"}),
        ("*", {"Condition": {}}),
        ("*", {"NotPrincipal": "*"}),
    ],
)
def test_a_resources_policy_that_cannot_be_enforced_is_refused(
    principal: Any, more: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"Statement\[0\]"):
        resource_policy(principal, **more)


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_wildcards_agree_with_a_plain_definition(pattern: str, text: str) -> None:
    def match(p: str, t: str) -> bool:
        if not p:
            return not t
        if p[0] == "*":
            return match(p[1:], t) or (bool(t) and match(p, t[1:]))
        return bool(t) and p[0] in ("?", t[0]) and match(p[1:], t[1:])

    found = policy(allow(f"ecr:{pattern}")).decide(f"ecr:{text}", "*")
    assert (found is Decision.ALLOWED) == match(pattern, text)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"Statement": [{**allow("ecr:*"), "Condition": {}}]}, r"Statement\[0\].Condition"),
        ({"Statement": [{"Effect": "Allow", "NotAction": "x", "Resource": "*"}]}, "NotAction"),
        ({"Statement": {"Effect": "Allow", "Action": "*", "NotResource": "*"}}, "NotResource"),
        ({"Statement": [{**allow("ecr:*"), "Principal": "*"}]}, "Principal"),
        ({"Statement": [allow("ecr:*", "arn:aws:ecr:*:*:repository/${aws:username}")]}, "variable"),
        ({"Statement": [allow("PutImage")]}, "no service"),
        ({"Statement": [allow("ecr:*", "team/app")]}, "neither an ARN"),
        ({"Statement": [allow([])]}, "Action"),
        ({"Statement": [allow("ecr:*", effect="allow")]}, "Effect"),
        ({"Statement": []}, "Statement"),
        ({"Version": "2020", "Statement": [allow("*")]}, "Version"),
        ({"Statement": [allow("*")], "Extra": 1}, "Extra"),
        ([], "not an object"),
    ],
)
def test_what_cannot_be_enforced_is_refused_when_it_is_read(document: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Policy(document)


KEY = {"access_key_id": "AKIDPUSHERPUSHER0000", "secret_access_key": "hidden"}


def write(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_keys_file_gives_keys_with_their_policies(tmp_path: Path) -> None:
    write(tmp_path / "push.json", {"Statement": [allow("ecr:*")]})
    second = KEY | {
        "access_key_id": "ASIATEMPORARY0000000",
        "account": "111122223333",
        "session_token": "hidden-token",
        "user": "ci",
        "expires": "2030-01-01T00:00:00+00:00",
        "policy_file": "push.json",
    }
    keys = load_keys(write(tmp_path / "keys.json", {"keys": [KEY, second]}))
    assert keys[0] == Key("AKIDPUSHERPUSHER0000", "hidden")
    assert keys[1].policy == {"Statement": [allow("ecr:*")]}
    assert keys[1].arn == "arn:aws:iam::111122223333:user/ci"
    assert keys[1].expires is not None
    assert "hidden" not in repr(keys)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "keys.json: no JSON"),
        ([], "keys.json: keys: missing"),
        ({"keys": []}, "keys.json: keys"),
        ({"keys": [3]}, r"keys.json: keys\[0\].access_key_id"),
        ({"keys": [{"access_key_id": "AKIDPUSHERPUSHER0000"}]}, r"keys\[0\].secret_access_key"),
        ({"keys": [KEY | {"account": "12"}]}, r"keys\[0\].account"),
        ({"keys": [KEY | {"account": 5}]}, r"keys\[0\].account: no text"),
        ({"keys": [KEY | {"secret": "x"}]}, r"keys\[0\].secret: unknown field"),
        ({"keys": [KEY | {"expires": "soon"}]}, r"keys\[0\].expires"),
        ({"keys": [KEY | {"expires": "2030-01-01"}]}, r"keys\[0\].expires: has no time zone"),
        ({"keys": [KEY | {"policy_file": "no.json"}]}, r"policy_file: .*no.json: No such file"),
        ({"keys": [KEY | {"policy": {"Statement": [{}]}}]}, r"keys\[0\].policy.Statement\[0\]"),
        ({"keys": [KEY | {"policy": {}, "policy_file": "x"}]}, "policy_file: there is a policy"),
        ({"keys": [KEY, KEY]}, "keys.json: access_key_id: .* twice"),
    ],
)
def test_wrong_keys_file_is_one_line_that_names_file_and_field(
    tmp_path: Path, document: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words) as info:
        load_keys(write(tmp_path / "keys.json", document))
    assert "\n" not in str(info.value)


def test_missing_keys_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json: No such file"):
        load_keys(tmp_path / "none.json")
