"""Identity-based policies: read strictly, so that nothing in them is ignored, and evaluated."""

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


class Decision(Enum):
    """What a policy says of one action on one resource."""

    ALLOWED = "allowed"
    DENIED = "explicitly denied"
    UNMENTIONED = "not mentioned"


@dataclass(frozen=True, slots=True)
class _Statement:
    allow: bool
    actions: tuple[re.Pattern[str], ...]
    resources: tuple[tuple[re.Pattern[str], ...], ...]
    accounts: tuple[str, ...]

    def covers(self, action: str, resource: str) -> bool:
        """Whether the statement speaks of this action on this resource."""
        return any(p.fullmatch(action) for p in self.actions) and any(
            _matches(pattern, resource) for pattern in self.resources
        )

    def names(self, account: str, resource: str) -> bool:
        """Whether a resource of the statement names the account outright, without a wildcard."""
        return any(
            own == account and _matches(pattern, resource)
            for own, pattern in zip(self.accounts, self.resources, strict=True)
        )


class Policy:
    """An identity-based policy of IAM's grammar, without conditions.

    Wildcards ``*`` and ``?`` work in actions (any case) and within the fields of an ARN; a deny
    beats every allow.

    :param document: the decoded policy document.
    :raises ValueError: it breaks the grammar, or uses what is not implemented here (``NotAction``,
        ``NotResource``, ``Condition``, principals, policy variables).
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
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
        self._statements = tuple(
            _read_statement(value, f"policy.Statement[{i}]") for i, value in enumerate(statements)
        )

    def decide(self, action: str, resource: str, foreign_account: str | None = None) -> Decision:
        """Evaluate the policy.

        :param action: such as ``ecr:PutImage``.
        :param resource: an ARN, or ``*`` for actions that have no resource.
        :param foreign_account: the account of the resource, where it is not the caller's own; an
            allow counts only where its ``Resource`` names that account outright.
        """
        covering = [s for s in self._statements if s.covers(action, resource)]
        if any(not s.allow for s in covering):
            return Decision.DENIED
        for statement in covering:
            if foreign_account is None or statement.names(foreign_account, resource):
                return Decision.ALLOWED
        return Decision.UNMENTIONED


def _read_statement(value: Any, where: str) -> _Statement:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: not an object")
    _refuse_unknown(value, _STATEMENT_MEMBERS, where)
    effect = value.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise ValueError(f"{where}.Effect: {effect!r} is neither Allow nor Deny")
    actions = _texts(value.get("Action"), f"{where}.Action")
    resources = _texts(value.get("Resource"), f"{where}.Resource")
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
        accounts=tuple(_fields(r)[4] if r != "*" else "*" for r in resources),
    )


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
