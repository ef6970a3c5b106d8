"""IAM's policies, of identities and of resources: read strictly, nothing ignored, and evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

_ARN_FIELDS = 6
_VERSIONS = ("2008-10-17", "2012-10-17")
_POLICY_MEMBERS = {"Version", "Id", "Statement"}
_STATEMENT_MEMBERS = {"Sid", "Effect", "Action", "Resource"}
_ACCOUNT = re.compile(r"[0-9]{12}")
_PRINCIPAL = re.compile(
    r"arn:aws[a-z0-9-]*:(iam|sts)::([0-9]{12}):(root|(?:user|role|assumed-role)/[\w+=,.@/-]+)",
    re.ASCII,
)


class Decision(Enum):
    """What a policy says of one action on one resource."""

    ALLOWED = "allowed"
    DELEGATED = "left to the caller's account"
    DENIED = "explicitly denied"
    UNMENTIONED = "not mentioned"


@dataclass(frozen=True, slots=True)
class _Statement:
    allow: bool
    actions: tuple[re.Pattern[str], ...]
    resources: tuple[tuple[re.Pattern[str], ...], ...]
    principals: tuple[str, ...] = ()

    def covers(self, action: str, resource: str) -> bool:
        """Whether the statement speaks of this action on this resource."""
        return any(p.fullmatch(action) for p in self.actions) and any(
            _matches(pattern, resource) for pattern in self.resources
        )

    def means(self, caller: str) -> bool:
        """Whether the statement names a caller itself, or everybody."""
        return "*" in self.principals or caller in self.principals


class Policy:
    """An identity-based policy of IAM's grammar, without conditions.

    Wildcards ``*`` and ``?`` work in actions (any case) and within the fields of an ARN; a deny
    beats every allow.

    :param document: the decoded policy document.
    :raises ValueError: it breaks the grammar, or uses what is not implemented here (``NotAction``,
        ``NotResource``, ``Condition``, principals, policy variables).
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._statements = tuple(
            _read_statement(value, where, _STATEMENT_MEMBERS)
            for value, where in _statements(document)
        )

    def decide(self, action: str, resource: str) -> Decision:
        """Evaluate the policy.

        :param action: such as ``ecr:PutImage``.
        :param resource: an ARN, or ``*`` for actions that have no resource.
        """
        covering = [s for s in self._statements if s.covers(action, resource)]
        if any(not s.allow for s in covering):
            return Decision.DENIED
        return Decision.ALLOWED if covering else Decision.UNMENTIONED


class ResourcePolicy:
    """A policy of a repository: it names principals, and no resources, since it has just one.

    :param document: the decoded policy document.
    :raises ValueError: it breaks the grammar, or uses what is not implemented here.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        members = {*_STATEMENT_MEMBERS, "Principal"} - {"Resource"}
        self._statements = tuple(
            _read_statement(value, where, members) for value, where in _statements(document)
        )

    def decide(self, action: str, caller: str) -> Decision:
        """Evaluate the policy.

        :param action: such as ``ecr:PutImage``.
        :param caller: the caller's ARN.
        :return: ``DELEGATED`` if it is the caller's account that is allowed, so that the policies
            of that account decide.
        """
        account = _root(caller)
        covering = [s for s in self._statements if s.covers(action, "*")]
        if any(not s.allow and (s.means(caller) or s.means(account)) for s in covering):
            return Decision.DENIED
        if any(s.means(caller) for s in covering):
            return Decision.ALLOWED
        if any(s.means(account) for s in covering):
            return Decision.DELEGATED
        return Decision.UNMENTIONED


class RegistryPolicy:
    """A policy of a registry: it names principals of other accounts, and resources.

    :param document: the decoded policy document.
    :raises ValueError: it breaks the grammar, or uses what is not implemented here.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        members = {*_STATEMENT_MEMBERS, "Principal"}
        self._statements = tuple(
            _read_statement(value, where, members) for value, where in _statements(document)
        )

    def decide(self, action: str, resource: str, account: str) -> Decision:
        """Evaluate the policy.

        :param action: such as ``ecr:ReplicateImage``.
        :param resource: the ARN of a repository of the registry.
        :param account: the account that asks, as a whole: it is ECR itself that acts for it.
        """
        root = f"arn:aws:iam::{account}:root"
        covering = [s for s in self._statements if s.covers(action, resource) and s.means(root)]
        if any(not s.allow for s in covering):
            return Decision.DENIED
        return Decision.ALLOWED if covering else Decision.UNMENTIONED


def _statements(document: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """The statements of a policy, each with where it stands."""
    if not isinstance(document, Mapping):
        raise ValueError("policy: not an object")
    _refuse_unknown(document, _POLICY_MEMBERS, "policy")
    version = document.get("Version", _VERSIONS[0])
    if version not in _VERSIONS:
        raise ValueError(f"policy.Version: {version!r} is no version of the policy language")
    statements = document.get("Statement")
    if isinstance(statements, Mapping):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise ValueError("policy.Statement: missing, or no statements in it")
    return [(value, f"policy.Statement[{i}]") for i, value in enumerate(statements)]


def _read_statement(value: Any, where: str, members: set[str]) -> _Statement:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: not an object")
    _refuse_unknown(value, members, where)
    effect = value.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise ValueError(f"{where}.Effect: {effect!r} is neither Allow nor Deny")
    actions = _texts(value.get("Action"), f"{where}.Action")
    resources = _texts(value.get("Resource"), f"{where}.Resource") if "Resource" in members else "*"
    for resource in resources:
        if resource != "*" and not resource.startswith("arn:"):
            raise ValueError(f"{where}.Resource: {resource!r} is neither an ARN nor *")
        if "${" in resource:
            raise ValueError(f"{where}.Resource: policy variables are not implemented")
    for action in actions:
        if action != "*" and ":" not in action:
            raise ValueError(f"{where}.Action: {action!r} has no service before a colon")
    return _Statement(
        allow=effect == "Allow",
        actions=tuple(_wildcards([a], re.IGNORECASE)[0] for a in actions),
        resources=tuple(_wildcards(_fields(r)) for r in resources),
        principals=(
            _principals(value.get("Principal"), f"{where}.Principal")
            if "Principal" in members
            else ()
        ),
    )


def _principals(value: Any, where: str) -> tuple[str, ...]:
    """The principals of a statement: ``*``, or ARNs; an account's number is its root's ARN."""
    if value == "*":
        return ("*",)
    if not isinstance(value, Mapping) or set(value) != {"AWS"}:
        raise ValueError(f'{where}: neither "*" nor {{"AWS": ...}}')
    found = []
    for text in _texts(value["AWS"], f"{where}.AWS"):
        arn = f"arn:aws:iam::{text}:root" if _ACCOUNT.fullmatch(text) else text
        if arn != "*" and not _PRINCIPAL.fullmatch(arn):
            raise ValueError(f"{where}.AWS: {text!r} is no principal")
        found.append(_root(arn) if arn.endswith(":root") else arn)
    return tuple(found)


def _root(arn: str) -> str:
    """The ARN of an account as a whole, whatever the partition: here there is one."""
    return f"arn:aws:iam::{arn.split(':')[4]}:root"


def _refuse_unknown(value: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(str(k) for k in value if k not in known)
    if unknown:
        raise ValueError(f"{where}.{unknown[0]}: not implemented by the local registry")


def _texts(value: Any, where: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise ValueError(f"{where}: missing, or neither a text nor a list of texts")
    return texts


def _fields(resource: str) -> list[str]:
    # IAM completes an ARN that has fewer than six fields with wildcards.
    if resource == "*":
        return ["*"]
    fields = resource.split(":", _ARN_FIELDS - 1)
    return fields + ["*"] * (_ARN_FIELDS - len(fields))


def _wildcards(texts: Iterable[str], flags: int = 0) -> tuple[re.Pattern[str], ...]:
    def to_pattern(text: str) -> re.Pattern[str]:
        # Runs of * are one *: as separate groups they would backtrack without end.
        parts = re.split(r"(\*+|\?)", text)
        joined = "".join(
            ".*" if p.startswith("*") else "." if p == "?" else re.escape(p) for p in parts if p
        )
        return re.compile(joined, flags | re.DOTALL)

    return tuple(to_pattern(text) for text in texts)


def _matches(pattern: tuple[re.Pattern[str], ...], resource: str) -> bool:
    if len(pattern) == 1:
        return pattern[0].fullmatch(resource) is not None
    fields = resource.split(":", _ARN_FIELDS - 1)
    return len(fields) == len(pattern) and all(
        p.fullmatch(f) for p, f in zip(pattern, fields, strict=True)
    )
