"""What a push would send: asked of the registries by their reading call alone, nothing is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from asyncpush.engine.results import ImageResult
from asyncpush.errors import AsyncpushError
from asyncpush.oci.digest import Digest
from asyncpush.plan.graph import Plan, PlannedImage


@dataclass(frozen=True, slots=True)
class ImagePreview:
    """What one image would send; a shared blob counts for the first image that needs it.

    ``bytes`` and ``parts`` are of the missing blobs. ``error`` tells why the registry could not be
    asked; everything counts as missing then.
    """

    name: str
    reference: str
    digest: str
    manifests: int
    blobs: int
    missing: int
    bytes: int
    parts: int
    error: AsyncpushError | None = None

    def to_dict(self) -> dict[str, Any]:
        """The preview as JSON-ready data."""
        return {
            "name": self.name,
            "reference": self.reference,
            "digest": self.digest,
            "manifests": self.manifests,
            "blobs": self.blobs,
            "missing_blobs": self.missing,
            "bytes": self.bytes,
            "parts": self.parts,
            "error": self.error.to_dict() if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class PushPreview:
    """What a push would send, and what of it cannot be pushed at all."""

    images: list[ImagePreview]
    rejected: list[ImageResult]

    @property
    def bytes(self) -> int:
        """Bytes of blobs that would be sent."""
        return sum(image.bytes for image in self.images)

    def to_dict(self) -> dict[str, Any]:
        """The preview as JSON-ready data."""
        return {
            "dry_run": True,
            "bytes": self.bytes,
            "images": [image.to_dict() for image in self.images],
            "rejected": [result.to_dict() for result in self.rejected],
        }


def preview(
    plan: Plan,
    rejected: Iterable[ImageResult],
    answers: Mapping[PlannedImage, Mapping[Digest, bool] | AsyncpushError],
    part_size: int,
) -> PushPreview:
    """Hold a plan against what the registries have.

    :param answers: for each image, which of its blobs are there, or why that is not known.
    :param part_size: bytes of a part.
    """
    counted: set[tuple[str, Digest]] = set()
    images = []
    for image in plan.images():
        graph = plan.repositories[image.repository]
        blobs = graph.blobs_of(image)
        answer = answers[image]
        there = {} if isinstance(answer, AsyncpushError) else answer
        missing = [
            blob.size
            for digest, blob in blobs.items()
            if not there.get(digest) and (str(image.repository), digest) not in counted
        ]
        counted.update((str(image.repository), digest) for digest in blobs)
        images.append(
            ImagePreview(
                name=image.name,
                reference=image.reference,
                digest=image.root,
                manifests=len(image.manifests),
                blobs=len(blobs),
                missing=len(missing),
                bytes=sum(missing),
                parts=sum(-(-size // part_size) for size in missing),
                error=answer if isinstance(answer, AsyncpushError) else None,
            )
        )
    return PushPreview(images, list(rejected))
