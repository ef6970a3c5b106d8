"""What came of a push: one record an image, and the sum of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from asyncpush.errors import AsyncpushError, CredentialsError
from asyncpush.plan.graph import Origin
from asyncpush.registries.distribution.ratelimit import RateLimit


class ImageStatus(StrEnum):
    """How an image ended."""

    PUSHED = "pushed"
    """Something was sent: a blob, a manifest or a tag."""
    EXISTS = "exists"
    """The registry had all of it."""
    REFUSED = "refused"
    """The registry does not take it, and the user let that pass."""
    STAGED = "staged"
    """All of it is in the registry, but an atomic push moved no tag, or moved them back."""
    FAILED = "failed"
    """It is not, or not wholly, in the registry."""


class TagStatus(StrEnum):
    """What became of a tag."""

    MOVED = "moved"
    """It points to the image now, and did not before."""
    MOVED_EARLIER = "moved-earlier"
    """As ``MOVED``, by an earlier run of the same job."""
    UNCHANGED = "unchanged"
    """It pointed to the image already."""
    RETURNED = "returned"
    """It had been moved, and points again to what it pointed to before."""
    NOT_MOVED = "not-moved"
    """It was left as it was."""
    UNKNOWN = "unknown"
    """The answer to the call that moves it was lost: it may point to the image."""


@dataclass(frozen=True, slots=True)
class TagResult:
    """What became of one tag; ``previous`` is the digest that it had, where that was asked."""

    tag: str
    status: TagStatus
    previous: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready data."""
        return {"tag": self.tag, "status": str(self.status), "previous": self.previous}


@dataclass(frozen=True, slots=True)
class ImageResult:
    """How one image ended.

    ``bytes_sent`` are the bytes of blobs that were uploaded on this image's behalf: a shared layer
    counts for the image that brought it up. ``bytes_mounted`` are those of blobs that another
    repository of the registry gave it. ``seconds`` run from its turn to its end.
    ``origin`` is where it was read from. ``avoidable_puts`` are the PutImage calls that found its
    manifests and tags there already, and that would not have been made if ecr:BatchGetImage, by
    which tags are asked about, had been granted.
    """

    name: str
    reference: str
    digest: str
    status: ImageStatus
    bytes_sent: int = 0
    blobs_sent: int = 0
    blobs_existing: int = 0
    seconds: float = 0.0
    error: AsyncpushError | None = None
    tags: tuple[TagResult, ...] = ()
    bytes_mounted: int = 0
    blobs_mounted: int = 0
    origin: Origin | None = None
    avoidable_puts: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready data."""
        return {
            "name": self.name,
            "reference": self.reference,
            "digest": self.digest,
            "status": str(self.status),
            "bytes_sent": self.bytes_sent,
            "bytes_mounted": self.bytes_mounted,
            "blobs_sent": self.blobs_sent,
            "blobs_mounted": self.blobs_mounted,
            "blobs_existing": self.blobs_existing,
            "seconds": round(self.seconds, 3),
            "error": self.error.to_dict() if self.error else None,
            "tags": [tag.to_dict() for tag in self.tags],
        }


@dataclass(slots=True)
class PushReport:
    """What came of a push, in the order in which the images ended.

    :param bytes_mounted: bytes of blobs that were mounted from other repositories instead of sent.
    :param retries: calls that were made again because they failed.
    :param throttles: calls that were made again because the registry throttled them.
    :param calls: by registry and call: how often it was made and throttled, its quota, its rate.
    :param rate_limits: by registry that images come from, what it stated last of its rate limit.
    :param complete: False while the push runs, and for good if it was cancelled.
    """

    images: list[ImageResult] = field(default_factory=list)
    bytes_sent: int = 0
    retries: int = 0
    throttles: int = 0
    calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    complete: bool = False
    bytes_mounted: int = 0
    rate_limits: dict[str, RateLimit] = field(default_factory=dict)

    @property
    def avoidable_puts(self) -> int:
        """PutImage calls that granting ecr:BatchGetImage saves: see :class:`ImageResult`."""
        return sum(image.avoidable_puts for image in self.images)

    @property
    def failed(self) -> list[ImageResult]:
        """The images that failed."""
        return [image for image in self.images if image.status is ImageStatus.FAILED]

    @property
    def ok(self) -> bool:
        """Whether the push came to its end and no image failed."""
        return self.complete and not self.failed

    @property
    def nothing_to_do(self) -> bool:
        """Whether everything was there before."""
        return self.ok and self.count(ImageStatus.EXISTS) == len(self.images)

    @property
    def only_credentials_failed(self) -> bool:
        """Whether images failed, and all of them for want of credentials."""
        failed = self.failed
        return bool(failed) and all(isinstance(i.error, CredentialsError) for i in failed)

    def count(self, status: ImageStatus) -> int:
        """How many images ended so."""
        return sum(image.status is status for image in self.images)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return {
            "complete": self.complete,
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "bytes_sent": self.bytes_sent,
            "bytes_mounted": self.bytes_mounted,
            "retries": self.retries,
            "throttles": self.throttles,
            "avoidable_puts": self.avoidable_puts,
            "calls": self.calls,
            "rate_limits": {host: limit.to_dict() for host, limit in self.rate_limits.items()},
            "counts": {str(status): self.count(status) for status in ImageStatus},
            "images": [image.to_dict() for image in self.images],
        }
