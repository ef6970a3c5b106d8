"""From events to records: one small record for each blob of each repository."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from asyncpush.engine.events import (
    BlobExists,
    Event,
    LayerComplete,
    LayerFailed,
    LayerStarted,
    PartSent,
    Warned,
)
from asyncpush.errors import AsyncpushError
from asyncpush.report.document import Blob, Error

_MOST_WARNINGS = 1000


@dataclass(slots=True)
class BlobRecord:
    """What happened to a blob in a repository."""

    size: int
    existed: bool = False
    complete: bool = False
    sent: int = 0
    parts: int = 0
    started: float | None = None
    ended: float | None = None
    error: AsyncpushError | None = None


class Recorder:
    """Takes a push's events; ``started`` is when it was made."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self.warnings: list[str] = []
        self._begin = time.monotonic()
        self._blobs: dict[tuple[str, str], BlobRecord] = {}

    def take(self, event: Event) -> None:
        """Note what an event says of a blob."""
        match event:
            case BlobExists():
                self._blob(event.repository, event.digest, event.size).existed = True
            case LayerStarted():
                blob = self._blob(event.repository, event.digest, event.size)
                blob.started, blob.ended, blob.error = self._now(), None, None
            case PartSent():
                blob = self._blobs[event.repository, event.digest]
                blob.parts += 1
                blob.sent += event.size
            case LayerComplete():
                blob = self._blobs[event.repository, event.digest]
                blob.complete, blob.ended = True, self._now()
            case LayerFailed():
                # A file that cannot be opened fails before its upload starts.
                blob = self._blob(event.repository, event.digest, event.size)
                blob.error, blob.ended = event.error, self._now()
            case Warned() if len(self.warnings) < _MOST_WARNINGS:
                self.warnings.append(event.message)

    def blobs(self) -> list[tuple[str, BlobRecord]]:
        """Each blob's repository and record."""
        return [(repository, blob) for (repository, _), blob in self._blobs.items()]

    def documents(self) -> Iterator[Blob]:
        """The blobs as the report has them, one at a time."""
        for (repository, digest), blob in self._blobs.items():
            yield self._document(repository, digest, blob)

    def _blob(self, repository: str, digest: str, size: int) -> BlobRecord:
        return self._blobs.setdefault((repository, digest), BlobRecord(size))

    def _now(self) -> float:
        return time.monotonic() - self._begin

    def _document(self, repository: str, digest: str, blob: BlobRecord) -> Blob:
        began, ended = blob.started, blob.ended
        return Blob(
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


def status_of(blob: BlobRecord) -> Literal["sent", "existed", "failed", "unfinished"]:
    """How a blob stands."""
    if blob.complete:
        return "sent"
    if blob.error is not None:
        return "failed"
    return "existed" if blob.existed else "unfinished"


def error_of(error: AsyncpushError) -> Error:
    """An error as the report has it."""
    return Error(
        kind=error.kind, message=error.message, where=dict(error.where), advice=error.advice
    )
