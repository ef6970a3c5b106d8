"""From events to records: small ones, for each image, and for each blob of each repository."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from asyncpush.engine.events import (
    BlobExists,
    BlobMounted,
    CallEnded,
    CallRetried,
    Event,
    ImageFinished,
    ImageStarted,
    LayerComplete,
    LayerFailed,
    LayerStarted,
    ManifestCommitted,
    PartSent,
    TagsMoving,
    Warned,
    host_of,
)
from asyncpush.errors import AsyncpushError, ThrottledError, TransientError
from asyncpush.report.document import (
    Blob,
    BlobStates,
    Commit,
    Error,
    ImageTimes,
    Timeline,
)
from asyncpush.report.timeline import Buckets, Stretches, timeline_of

_MOST_WARNINGS = 1000
MOST_STRETCHES_OF_A_BLOB = 64
MOST_STRETCHES = 200_000
"""Stretches of parts in all: 6.4 MB. Blobs that begin when there are so many get none."""


@dataclass(slots=True)
class BlobRecord:
    """What happened to a blob in a repository; ``index`` is its place in the report."""

    index: int
    size: int
    existed: bool = False
    mounted_from: str | None = None
    mounted_at: float = 0.0
    complete: bool = False
    sent: int = 0
    parts: int = 0
    started: float | None = None
    ended: float | None = None
    waited: float = 0.0
    slots: float = 0.0
    sending: float = 0.0
    stretches: Stretches | None = None
    error: AsyncpushError | None = None


@dataclass(slots=True)
class _ImageRecord:
    """When an image had its turn, and what it is made of; blobs by their index."""

    repository: str
    started: float
    blobs: array[int]
    manifests: tuple[str, ...]
    ended: float | None = None


@dataclass(slots=True)
class _CommitRecord:
    tag: str | None
    existed: bool
    ended: float
    seconds: float


class Recorder:
    """Takes a push's events; ``started`` is when it was made.

    It holds 0.6 KiB for each image and for each blob of a repository, and beside that
    what :data:`MOST_STRETCHES` and :class:`~asyncpush.report.timeline.Buckets` bound.
    """

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self.warnings: list[str] = []
        self._begin = time.monotonic()
        self._blobs: dict[tuple[str, str], BlobRecord] = {}
        self._images: dict[str, _ImageRecord] = {}
        self._commits: dict[tuple[str, str], list[_CommitRecord]] = {}
        self._buckets = Buckets()
        self._stretches = 0
        self._tags_moving: float | None = None

    def take(self, event: Event) -> None:
        """Note what an event says."""
        match event:
            case ImageStarted():
                self._start_image(event)
            case BlobExists() | BlobMounted():
                self._get(event)
            case LayerStarted():
                blob = self._blob(event.repository, event.digest, event.size)
                blob.started, blob.ended, blob.error = self.seconds, None, None
                blob.waited = event.waited
            case PartSent():
                self._send(event)
            case LayerComplete():
                blob = self._blobs[event.repository, event.digest]
                blob.complete, blob.ended = True, self.seconds
            case LayerFailed():
                # A file that cannot be opened fails before its upload starts.
                blob = self._blob(event.repository, event.digest, event.size)
                blob.error, blob.ended = event.error, self.seconds
            case ManifestCommitted():
                self._commits.setdefault((event.repository, event.digest), []).append(
                    _CommitRecord(event.tag, event.existed, self.seconds, event.seconds)
                )
            case ImageFinished() if event.result.reference in self._images:
                self._images[event.result.reference].ended = self.seconds
            case CallEnded():
                self._call(event)
            case CallRetried():
                self._series(event.repository, event.call, "delayed", amount=event.delay)
            case TagsMoving():
                self._tags_moving = self.seconds
            case Warned() if len(self.warnings) < _MOST_WARNINGS:
                self.warnings.append(event.message)

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._begin

    def blobs(self) -> list[tuple[str, BlobRecord]]:
        """Each blob's repository and record."""
        return [(repository, blob) for (repository, _), blob in self._blobs.items()]

    def documents(self) -> Iterator[Blob]:
        """The blobs as the report has them, one at a time."""
        for (repository, digest), blob in self._blobs.items():
            yield _document(repository, digest, blob)

    def image(self, reference: str) -> ImageTimes:
        """When an image had its turn, its blobs and its commits, as the report has them."""
        image = self._images.get(reference)
        if image is None:
            return {}
        times = ImageTimes(
            started=round(image.started, 3),
            blobs=list(image.blobs),
            manifests=[
                Commit(
                    digest=digest,
                    tag=commit.tag,
                    existed=commit.existed,
                    ended=round(commit.ended, 3),
                    seconds=round(commit.seconds, 3),
                )
                for digest in image.manifests
                for commit in self._commits.get((image.repository, digest), ())
            ],
        )
        if image.ended is not None:
            times["ended"] = round(image.ended, 3)
        return times

    def timeline(self) -> Timeline:
        """What went on over time, by registry."""
        now = self.seconds
        self._buckets.reach(now)
        flights = Buckets(self._buckets.width)

        def flew(repository: str, what: str, begin: float, end: float | None) -> None:
            end = now if end is None else end
            flights.spread((host_of(repository), what), begin, end, end - begin)

        for (repository, _), blob in self._blobs.items():
            if blob.started is not None:
                flew(repository, "layers", blob.started, blob.ended)
        for image in self._images.values():
            flew(image.repository, "images", image.started, image.ended)
        return timeline_of(self._buckets, flights, self._tags_moving)

    def _start_image(self, event: ImageStarted) -> None:
        blobs = array("I")
        for digest, size in event.blobs.items():
            blobs.append(self._blob(event.repository, digest, size).index)
        self._images[event.reference] = _ImageRecord(
            event.repository, self.seconds, blobs, tuple(event.manifests)
        )

    def _get(self, event: BlobExists | BlobMounted) -> None:
        blob = self._blob(event.repository, event.digest, event.size)
        if isinstance(event, BlobMounted):
            blob.mounted_from, blob.mounted_at = event.source, self.seconds
        else:
            blob.existed = True

    def _send(self, event: PartSent) -> None:
        blob = self._blobs[event.repository, event.digest]
        blob.parts += 1
        blob.sent += event.size
        blob.slots += event.waited
        blob.sending += event.seconds
        now = self.seconds
        begin = max(0.0, now - event.seconds)
        self._buckets.spread((host_of(event.repository), "bytes"), begin, now, event.size)
        if blob.stretches is None:
            if self._stretches >= MOST_STRETCHES:
                return
            blob.stretches = Stretches()
        before = len(blob.stretches)
        room = MOST_STRETCHES - self._stretches + before
        blob.stretches.add(begin, now, event.size, min(MOST_STRETCHES_OF_A_BLOB, max(1, room)))
        self._stretches += len(blob.stretches) - before

    def _call(self, event: CallEnded) -> None:
        self._series(event.repository, event.call, "calls")
        self._series(event.repository, event.call, "seconds", amount=event.seconds)
        if event.waited:
            self._series(event.repository, event.call, "paced", amount=event.waited)
        if event.outcome == ThrottledError.kind:
            self._series(event.repository, event.call, "throttled")
        elif event.outcome == TransientError.kind:
            self._series(event.repository, event.call, "failed")

    def _series(self, repository: str, *name: str, amount: float = 1.0) -> None:
        self._buckets.add((host_of(repository), *name), self.seconds, amount)

    def _blob(self, repository: str, digest: str, size: int) -> BlobRecord:
        key = (repository, digest)
        blob = self._blobs.get(key)
        if blob is None:
            blob = self._blobs[key] = BlobRecord(len(self._blobs), size)
        return blob


def _document(repository: str, digest: str, blob: BlobRecord) -> Blob:
    began, ended = blob.started, blob.ended
    document = Blob(
        repository=repository,
        digest=digest,
        size=blob.size,
        status=status_of(blob),
        bytes_sent=blob.sent,
        parts=blob.parts,
        started=None if began is None else round(began, 3),
        seconds=None if began is None or ended is None else round(ended - began, 3),
        error=None if blob.error is None else error_of(blob.error),
    )
    if began is not None:
        document["waited"] = round(blob.waited, 3)
        document["slots"] = round(blob.slots, 3)
        document["sending"] = round(blob.sending, 3)
    if blob.mounted_from is not None:
        document["mounted_from"] = blob.mounted_from
        document["mounted_at"] = round(blob.mounted_at, 3)
    if blob.stretches is not None:
        document["stretches"] = blob.stretches.rows()
    return document


def status_of(blob: BlobRecord) -> BlobStates:
    """How a blob stands."""
    if blob.complete:
        return "sent"
    if blob.error is not None:
        return "failed"
    if blob.mounted_from is not None:
        return "mounted"
    return "existed" if blob.existed else "unfinished"


def error_of(error: AsyncpushError) -> Error:
    """An error as the report has it."""
    return Error(
        kind=error.kind, message=error.message, where=dict(error.where), advice=error.advice
    )
