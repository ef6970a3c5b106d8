"""What a push would send: asked of the registries by their reading call alone, nothing is sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from asyncpush.engine.options import PushOptions
from asyncpush.engine.pace import PUBLISHED_QUOTAS
from asyncpush.engine.questions import BATCH
from asyncpush.engine.results import ImageResult
from asyncpush.errors import AsyncpushError
from asyncpush.oci.digest import Digest
from asyncpush.plan.graph import Plan, PlannedImage
from asyncpush.plan.limits import ECR
from asyncpush.plan.reference import AnyRegistry, Repository
from asyncpush.registries.distribution.ratelimit import RateLimit


@dataclass(frozen=True, slots=True)
class ImagePreview:
    """What one image would send; a shared blob counts for the first image that needs it.

    ``mounts`` of the missing blobs would be mounted from other repositories, unless that is
    refused; ``bytes`` and ``parts`` are of the others. ``error`` tells why the registry could not
    be asked; everything counts as missing then.
    """

    name: str
    reference: str
    digest: str
    manifests: int
    blobs: int
    missing: int
    bytes: int
    parts: int
    mounts: int = 0
    bytes_mounted: int = 0
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
            "mounts": self.mounts,
            "bytes_mounted": self.bytes_mounted,
            "error": self.error.to_dict() if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class RegistryPreview:
    """What a push would send to one registry, and which calls that takes.

    :param blobs: blobs that its repositories must hold, ``missing`` of them are not there.
    :param bytes: bytes of the missing blobs that would be sent.
    :param parts: parts that these make.
    :param mounts: missing blobs that would be mounted, unless that is refused.
    :param bytes_mounted: their bytes.
    :param calls: how often each call would be made.
    :param quotas: how often each may be made in a second.
    """

    blobs: int
    missing: int
    bytes: int
    parts: int
    mounts: int
    bytes_mounted: int
    calls: Mapping[str, int]
    quotas: Mapping[str, float]

    @property
    def slowest(self) -> str:
        """The call whose quota takes longest."""
        return max(self.calls, key=lambda call: self.calls[call] / self.quotas[call])

    @property
    def seconds(self) -> float:
        """How long the calls take at least under the quotas; the line is not in it."""
        return self.calls[self.slowest] / self.quotas[self.slowest]

    def to_dict(self) -> dict[str, Any]:
        """The preview as JSON-ready data."""
        return {
            "blobs": self.blobs,
            "missing_blobs": self.missing,
            "bytes": self.bytes,
            "parts": self.parts,
            "mounts": self.mounts,
            "bytes_mounted": self.bytes_mounted,
            "calls": dict(self.calls),
            "seconds_under_quotas": round(self.seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class PushPreview:
    """What a push would send, and what of it cannot be pushed at all.

    ``rate_limits`` are what registries that images come from have stated last.
    """

    images: list[ImagePreview]
    rejected: list[ImageResult]
    registries: Mapping[AnyRegistry, RegistryPreview]
    rate_limits: Mapping[str, RateLimit] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes of blobs that would be sent."""
        return sum(image.bytes for image in self.images)

    @property
    def seconds(self) -> float:
        """How long it takes at least under the quotas: registries go side by side."""
        return max((sums.seconds for sums in self.registries.values()), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """The preview as JSON-ready data."""
        return {
            "dry_run": True,
            "bytes": self.bytes,
            "seconds_under_quotas": round(self.seconds, 1),
            "registries": {r.host: sums.to_dict() for r, sums in self.registries.items()},
            "rate_limits": {host: limit.to_dict() for host, limit in self.rate_limits.items()},
            "images": [image.to_dict() for image in self.images],
            "rejected": [result.to_dict() for result in self.rejected],
        }


def preview(
    plan: Plan,
    rejected: Iterable[ImageResult],
    answers: Mapping[PlannedImage, Mapping[Digest, bool] | AsyncpushError],
    options: PushOptions,
    mounted: Collection[tuple[Repository, Digest]] = (),
    unchanged: Set[PlannedImage] = frozenset(),
) -> PushPreview:
    """Hold a plan against what the registries have.

    :param answers: for each image, which of its blobs are there, or why that is not known.
    :param mounted: the missing blobs that would be mounted.
    :param unchanged: images that are there with all of their tags.
    """
    part_size = options.part_size or ECR.part_bytes
    sums: defaultdict[AnyRegistry, list[ImagePreview]] = defaultdict(list)
    counted: set[tuple[Repository, Digest]] = set()
    images = []
    for image in plan.images():
        graph = plan.repositories[image.repository]
        blobs = graph.blobs_of(image)
        answer = answers[image]
        there = {} if isinstance(answer, AsyncpushError) else answer
        missing = {
            digest: blob.size
            for digest, blob in blobs.items()
            if not there.get(digest) and (image.repository, digest) not in counted
        }
        counted.update((image.repository, digest) for digest in blobs)
        sent = [size for d, size in missing.items() if (image.repository, d) not in mounted]
        one = ImagePreview(
            name=image.name,
            reference=image.reference,
            digest=image.root,
            manifests=len(image.manifests),
            blobs=len(blobs),
            missing=len(missing),
            bytes=sum(sent),
            parts=sum(-(-size // part_size) for size in sent),
            mounts=len(missing) - len(sent),
            bytes_mounted=sum(missing.values()) - sum(sent),
            error=answer if isinstance(answer, AsyncpushError) else None,
        )
        images.append(one)
        sums[image.repository.registry].append(one)
    registries = {
        registry: _sum_up(registry, previews, plan, options, unchanged)
        for registry, previews in sums.items()
    }
    return PushPreview(images, list(rejected), registries)


def _sum_up(
    registry: AnyRegistry,
    images: Iterable[ImagePreview],
    plan: Plan,
    options: PushOptions,
    unchanged: Set[PlannedImage],
) -> RegistryPreview:
    images = list(images)
    graphs = [r for r in plan.repositories.values() if r.repository.registry == registry]
    missing = sum(image.missing for image in images)
    parts = sum(image.parts for image in images)
    mounts = sum(image.mounts for image in images)
    calls = {
        "GetAuthorizationToken": 1,
        "BatchCheckLayerAvailability": sum(-(-len(graph.blobs) // BATCH) for graph in graphs),
        # A mount has the quota of the upload that it saves.
        "InitiateLayerUpload": missing,
        "UploadLayerPart": parts,
        "CompleteLayerUpload": missing - mounts,
        "PutImage": sum(
            graph.commits(atomic=options.atomic, unchanged=unchanged & set(graph.images))
            for graph in graphs
        ),
    }
    quotas = {**PUBLISHED_QUOTAS, **options.settings(registry).quotas}
    return RegistryPreview(
        blobs=sum(len(graph.blobs) for graph in graphs),
        missing=missing,
        bytes=sum(image.bytes for image in images),
        parts=parts,
        mounts=mounts,
        bytes_mounted=sum(image.bytes_mounted for image in images),
        calls=calls,
        quotas=quotas,
    )
