"""What came of replication: a record for each image, one for each of its destinations."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from asyncpush.errors import (
    AsyncpushError,
    CredentialsError,
    ManifestsNotFoundError,
    ReplicationError,
    RepositoryNotFoundError,
)
from asyncpush.replication.rules import Destination


class ReplicationStatus(StrEnum):
    """How an image, or its way to one destination, stands."""

    COMPLETE = "complete"
    """It is there."""
    FAILED = "failed"
    """ECR gave up, with a failure code; or the image is not in the source repository."""
    IN_PROGRESS = "in-progress"
    """It was on its way when the waiting ended."""
    NOT_STARTED = "not-started"
    """A rule covers it, and the registry knows of no replication: it was pushed before the rule."""
    NOT_COVERED = "not-covered"
    """No rule covers its repository, so it goes nowhere."""
    UNKNOWN = "unknown"
    """The registry could not be asked."""


_NOT_THERE = (RepositoryNotFoundError, ManifestsNotFoundError)
_UNFINISHED = (ReplicationStatus.NOT_STARTED, ReplicationStatus.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class DestinationResult:
    """One destination of an image.

    ``seconds`` ran from the beginning of the waiting until it was seen to have ended.
    """

    destination: Destination
    status: ReplicationStatus
    failure_code: str | None = None
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready data."""
        return {
            "account": self.destination.account,
            "region": self.destination.region,
            "status": str(self.status),
            "failure_code": self.failure_code,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
        }


_ADVICE = {
    ReplicationStatus.FAILED: "mend the cause (in another account the registry policy must allow"
    " ecr:ReplicateImage, and ecr:CreateRepository where the repository is missing), then push"
    " under a further tag: only a push is replicated",
    ReplicationStatus.NOT_STARTED: "it was pushed before the rule; push it under a further tag, or"
    " delete it and push it again",
    ReplicationStatus.IN_PROGRESS: "asyncpush replication wait goes on waiting for it",
}


@dataclass(frozen=True, slots=True)
class ImageReplication:
    """One image; ``error`` tells why its replication is unknown, or cannot be."""

    reference: str
    digest: str | None
    destinations: tuple[DestinationResult, ...] = ()
    error: AsyncpushError | None = None

    @property
    def status(self) -> ReplicationStatus:
        """The worst of all destinations."""
        found = {destination.status for destination in self.destinations}
        if isinstance(self.error, _NOT_THERE) or ReplicationStatus.FAILED in found:
            return ReplicationStatus.FAILED
        if self.error is not None:
            return ReplicationStatus.UNKNOWN
        if not found:
            return ReplicationStatus.NOT_COVERED
        return next((s for s in _UNFINISHED if s in found), ReplicationStatus.COMPLETE)

    @property
    def problems(self) -> list[AsyncpushError]:
        """What is wrong, one error for each destination that does not have it."""
        found: list[AsyncpushError] = [] if self.error is None else [self.error]
        for one in self.destinations:
            if one.status in _ADVICE:
                how = {
                    ReplicationStatus.FAILED: f"failed: {one.failure_code or 'no code is given'}",
                    ReplicationStatus.NOT_STARTED: "has not begun",
                    ReplicationStatus.IN_PROGRESS: "has not ended",
                }[one.status]
                found.append(
                    ReplicationError(
                        f"replication to {one.destination} {how}",
                        advice=_ADVICE[one.status],
                        digest=self.digest,
                    )
                )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready data."""
        return {
            "reference": self.reference,
            "digest": self.digest,
            "status": str(self.status),
            "destinations": [destination.to_dict() for destination in self.destinations],
            "error": self.error.to_dict() if self.error else None,
        }


@dataclass(slots=True)
class ReplicationReport:
    """What was found, image by image, in the order in which they were settled.

    :param complete: False while the waiting runs, and for good if it was cancelled.
    """

    images: list[ImageReplication] = field(default_factory=list)
    seconds: float = 0.0
    complete: bool = False

    @property
    def ok(self) -> bool:
        """Whether every image that a rule covers is in all of its destinations."""
        good = (ReplicationStatus.COMPLETE, ReplicationStatus.NOT_COVERED)
        return self.complete and all(image.status in good for image in self.images)

    @property
    def only_unknown(self) -> bool:
        """Whether nothing is known to be wrong, but something could not be asked."""
        good = (
            ReplicationStatus.COMPLETE,
            ReplicationStatus.NOT_COVERED,
            ReplicationStatus.UNKNOWN,
        )
        return not self.ok and all(image.status in good for image in self.images)

    @property
    def only_credentials_failed(self) -> bool:
        """Whether nothing could be asked, and all of it for want of credentials."""
        return bool(self.images) and all(
            isinstance(image.error, CredentialsError) for image in self.images
        )

    def count(self, status: ReplicationStatus) -> int:
        """How many images ended so."""
        return sum(image.status is status for image in self.images)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return {
            "complete": self.complete,
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "counts": {s.value: count for s in ReplicationStatus if (count := self.count(s))},
            "images": [image.to_dict() for image in self.images],
        }
