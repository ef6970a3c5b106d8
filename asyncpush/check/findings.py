"""What a check finds: the state of each registry and repository, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from asyncpush.engine.preview import PushPreview
from asyncpush.plan.reference import AnyRegistry, Repository
from asyncpush.registries.ecr.identity import Identity


class Outcome(StrEnum):
    """Whether an action is allowed, as far as that can be known."""

    ALLOWED = "allowed"
    DENIED = "denied"
    UNKNOWN = "unknown"


class Tags(StrEnum):
    """How the tags of a push stand to those of a repository."""

    FREE = "free"
    """None of them is one that may not move, and points elsewhere."""
    CONFLICT = "conflict"
    """At least one is immutable and points elsewhere."""
    UNKNOWN = "unknown"


class Severity(StrEnum):
    """What a finding means for the push."""

    PROBLEM = "problem"
    """Something of the push will fail."""
    WARNING = "warning"
    """The push goes on, but not as one might expect."""
    UNKNOWN = "unknown"
    """It could not be found out."""


class Subject(StrEnum):
    """What a finding is about."""

    SOURCE = "source"
    CREDENTIALS = "credentials"
    ENDPOINT = "endpoint"
    CLOCK = "clock"
    REPOSITORY = "repository"
    ACTION = "action"
    TAG = "tag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or could not be known.

    :param where: the registry, repository, reference or source that it is about.
    :param registry: the host of its registry; empty for a source.
    :param action: the action that it is about, such as ``ecr:PutImage``.
    :param advice: what to do; the same for all findings of one cause.
    """

    severity: Severity
    subject: Subject
    where: str
    message: str
    advice: str = ""
    registry: str = ""
    action: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON-ready data."""
        return {
            "severity": str(self.severity),
            "subject": str(self.subject),
            "registry": self.registry or None,
            "where": self.where,
            "action": self.action,
            "message": self.message,
            "advice": self.advice,
        }


@dataclass(slots=True)
class RegistryState:
    """How one registry stands.

    :param reached: whether its endpoint answered; None where it was not asked.
    :param accepted: whether it took the credentials.
    :param skew: seconds that its clock is ahead of this machine's.
    :param default_region: the Region that the credentials' configuration names.
    """

    registry: AnyRegistry
    endpoint: str | None = None
    identity: Identity | None = None
    reached: bool | None = None
    accepted: bool = False
    skew: float | None = None
    default_region: str | None = None
    token: Outcome = Outcome.UNKNOWN

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON-ready data."""
        return {
            "registry": self.registry.host,
            "endpoint": self.endpoint,
            "reached": self.reached,
            "credentials_accepted": self.accepted,
            "credentials": self.identity.to_dict() if self.identity else None,
            "clock_skew_seconds": None if self.skew is None else round(self.skew, 1),
            "default_region": self.default_region,
            "actions": {"GetAuthorizationToken": str(self.token)},
        }


@dataclass(slots=True)
class RepositoryState:
    """How one repository stands.

    :param exists: None where that could not be found out.
    :param elsewhere: other Regions of the same account in which one of its name exists.
    """

    repository: Repository
    exists: bool | None = None
    actions: dict[str, Outcome] = field(default_factory=dict)
    tags: Tags | None = None
    elsewhere: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON-ready data."""
        return {
            "repository": str(self.repository),
            "exists": self.exists,
            "actions": {action: str(outcome) for action, outcome in self.actions.items()},
            "tags": None if self.tags is None else str(self.tags),
            "elsewhere": self.elsewhere,
        }


@dataclass(slots=True)
class CheckReport:
    """All that was found; ``complete`` is False if the check was interrupted.

    :param preview: what the push would send, where its sources are known.
    """

    registries: list[RegistryState] = field(default_factory=list)
    repositories: list[RepositoryState] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    preview: PushPreview | None = None
    complete: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing was found that will fail."""
        return self.complete and not self.problems

    @property
    def problems(self) -> list[Finding]:
        """The findings that something will fail for."""
        return [f for f in self.findings if f.severity is Severity.PROBLEM]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        preview = self.preview
        return {
            "ok": self.ok,
            "complete": self.complete,
            "registries": [state.to_dict() for state in self.registries],
            "repositories": [state.to_dict() for state in self.repositories],
            "findings": [finding.to_dict() for finding in self.findings],
            "estimate": None
            if preview is None
            else {
                "bytes": preview.bytes,
                "seconds_under_quotas": round(preview.seconds, 1),
                "registries": {r.host: sums.to_dict() for r, sums in preview.registries.items()},
            },
        }
