"""Proof after a push: what the registries hold is what the layouts hold."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from asyncpush.engine.availability import Availability
from asyncpush.engine.context import Context
from asyncpush.engine.work import Once, for_each
from asyncpush.errors import (
    AsyncpushError,
    ManifestsNotFoundError,
    TransientError,
    VerificationError,
)
from asyncpush.oci.digest import Digest
from asyncpush.plan.graph import PlannedBlob, PlannedImage, RepositoryPlan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one image; without problems it is all there."""

    name: str
    reference: str
    digest: str
    problems: tuple[AsyncpushError, ...]

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON-ready data."""
        return {
            "name": self.name,
            "reference": self.reference,
            "digest": self.digest,
            "ok": not self.problems,
            "problems": [problem.to_dict() for problem in self.problems],
        }


@dataclass(slots=True)
class VerifyReport:
    """What was found, image by image; ``complete`` is False if it was interrupted."""

    verdicts: list[Verdict] = field(default_factory=list)
    deep: bool = False
    complete: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything is there and as it should be."""
        return self.complete and not any(verdict.problems for verdict in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return {
            "ok": self.ok,
            "complete": self.complete,
            "deep": self.deep,
            "images": [verdict.to_dict() for verdict in self.verdicts],
        }


class RepositoryCheck:
    """Looks at one repository; each blob and manifest once, however many images name it.

    :param deep: read every blob back and hash it, instead of asking whether it is there.
    """

    def __init__(self, plan: RepositoryPlan, context: Context, *, deep: bool) -> None:
        self._plan = plan
        self._context = context
        self._transport = context.transport
        self._name = plan.repository.name
        self._deep = deep
        self._availability = Availability(self._ask)
        self._sizes: dict[Digest, int | None] = {}
        self._manifests: Once[Digest, None] = Once()
        self._blobs: Once[Digest, None] = Once()

    async def check(self, image: PlannedImage) -> Verdict:
        """Compare one image with what the repository holds."""
        problems: list[AsyncpushError] = []
        for digest in image.manifests:
            await _collect(problems, self._manifests.do(digest, partial(self._manifest, digest)))
        if image.tags:
            await _collect(problems, self._tags(image, problems))
        await _collect(problems, self._all_blobs(image, problems))
        where = str(image.repository)
        for problem in problems:
            problem.at(repository=where)
        return Verdict(image.name, image.reference, image.root, tuple(problems))

    async def _all_blobs(self, image: PlannedImage, problems: list[AsyncpushError]) -> None:
        blobs = self._plan.blobs_of(image)
        if not self._deep:
            there = await self._availability.has(blobs)
            for digest, blob in blobs.items():
                if not there[digest]:
                    missing = "the repository does not have this blob"
                    problems.append(VerificationError(missing, digest=digest))
                elif self._sizes[digest] not in (None, blob.size):
                    problems.append(_other_size(self._sizes[digest], blob))
            return

        async def look(blob: PlannedBlob) -> None:
            work = partial(self._read_back, blob)
            await _collect(problems, self._blobs.do(blob.digest, work))

        layers = self._context.options.layers
        await for_each(blobs.values(), min(len(blobs), layers), look)

    async def _manifest(self, digest: Digest) -> None:
        planned = self._plan.manifests[digest]
        raw = await self._context.reads.manifest(planned.source, digest)
        get = partial(self._transport.get_manifest, self._name, digest)
        try:
            found = await self._call("BatchGetImage", get)
        except ManifestsNotFoundError as exc:
            raise VerificationError(
                "the repository does not have this manifest", digest=digest
            ) from exc
        if found.raw != raw:
            raise VerificationError(
                f"the manifest differs: {len(found.raw)} bytes there, {len(raw)} here",
                digest=digest,
            )

    async def _tags(self, image: PlannedImage, problems: list[AsyncpushError]) -> None:
        ask = partial(self._transport.tagged, self._name, image.tags)
        found = await self._call("BatchGetImage", ask)
        for tag in image.tags:
            if found.get(tag) != image.root:
                what = f"points to {found[tag]}" if tag in found else "does not exist"
                problems.append(VerificationError(f"the tag {what}", tag=tag, digest=image.root))

    async def _read_back(self, blob: PlannedBlob) -> None:
        async with self._context.limits.layers:
            await self._call("GetDownloadUrlForLayer", partial(self._hash, blob))

    async def _hash(self, blob: PlannedBlob) -> None:
        digest = hashlib.new(blob.digest.partition(":")[0])
        size = 0
        async with self._read(blob.digest) as pieces:
            async for piece in pieces:
                digest.update(piece)
                size += len(piece)
                if size > blob.size:
                    break  # It may have no end.
        if size != blob.size:
            raise _other_size(size, blob)
        if digest.hexdigest() != blob.digest.partition(":")[2]:
            raise VerificationError(
                f"the blob's content is another: its digest is {digest.hexdigest()}",
                digest=blob.digest,
            )

    def _read(self, digest: Digest) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._transport.read_blob(self._name, digest)

    async def _ask(self, digests: Iterable[Digest]) -> set[Digest]:
        ask = partial(self._transport.sizes, self._name, list(digests))
        found = await self._call("BatchCheckLayerAvailability", ask)
        self._sizes.update(found)
        return set(found)

    async def _call(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        return await self._context.call(name, str(self._plan.repository), call)


def _other_size(size: int | None, blob: PlannedBlob) -> VerificationError:
    return VerificationError(
        f"the blob has {size} bytes there, and must have {blob.size}", digest=blob.digest
    )


async def _collect(problems: list[AsyncpushError], work: Awaitable[object]) -> None:
    """Let a step's failure be one of the image's problems, and go on with the next step."""
    try:
        await work
    except TransientError as exc:
        exc.advice = exc.advice or "verify again"
        problems.append(exc)
    except AsyncpushError as exc:
        problems.append(exc)
