"""Where a push stands, kept up from its events alone; what shows it is elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from asyncpush.engine.events import (
    BlobExists,
    CallRetried,
    Event,
    ImageFinished,
    ImageStarted,
    LayerComplete,
    PartSent,
    PushPlanned,
    UploadResumed,
)
from asyncpush.engine.results import ImageStatus

_RATE_WINDOW = 10.0


@dataclass(slots=True)
class ActiveImage:
    """An image whose turn has come."""

    name: str
    repository: str
    blobs: Mapping[str, int]
    since: float


@dataclass(slots=True)
class Tracker:
    """Counts of a running push.

    ``total`` are the bytes of all planned blobs; ``there`` of them exist or were acknowledged, and
    ``sent`` went over the wire.
    """

    images: int = 0
    total: int = 0
    there: int = 0
    sent: int = 0
    retries: int = 0
    ended: dict[ImageStatus, int] = field(default_factory=lambda: dict.fromkeys(ImageStatus, 0))
    active: dict[str, ActiveImage] = field(default_factory=dict)
    begin: float = field(default_factory=time.monotonic)
    _blobs: dict[tuple[str, str], int] = field(default_factory=dict)
    _rate: deque[tuple[float, int]] = field(default_factory=deque)

    def take(self, event: Event) -> None:
        """Count one event."""
        match event:
            case PushPlanned():
                self.images, self.total = event.images, event.bytes
            case ImageStarted():
                self.active[event.reference] = ActiveImage(
                    event.name, event.repository, event.blobs, time.monotonic()
                )
            case BlobExists():
                self._reach(event.repository, event.digest, event.size)
            case UploadResumed():
                self._reach(event.repository, event.digest, event.offset)
            case PartSent():
                self._send(event)
            case LayerComplete():
                self._reach(event.repository, event.digest, event.size)
            case CallRetried():
                self.retries += 1
            case ImageFinished():
                self.ended[event.result.status] += 1
                self.active.pop(event.result.reference, None)

    @property
    def done(self) -> int:
        """Images that ended, well or not."""
        return sum(self.ended.values())

    def progress(self, image: ActiveImage) -> tuple[int, int]:
        """Bytes of an image that are there, and all its bytes, shared blobs included."""
        there = sum(
            min(self._blobs.get((image.repository, digest), 0), size)
            for digest, size in image.blobs.items()
        )
        return there, sum(image.blobs.values())

    def rate(self) -> float:
        """Acknowledged bytes a second, over the last seconds."""
        now = time.monotonic()
        while self._rate and self._rate[0][0] < now - _RATE_WINDOW:
            self._rate.popleft()
        span = min(_RATE_WINDOW, now - self.begin)
        return sum(size for _, size in self._rate) / span if span > 0 else 0.0

    def seconds_left(self) -> float | None:
        """Estimated seconds until all bytes are there; None while nobody can know."""
        rate = self.rate()
        return (self.total - self.there) / rate if rate > 0 else None

    def _send(self, event: PartSent) -> None:
        self.sent += event.size
        self._rate.append((time.monotonic(), event.size))
        self._reach(event.repository, event.digest, event.offset + event.size)

    def _reach(self, repository: str, digest: str, upto: int) -> None:
        key = (repository, digest)
        before = self._blobs.get(key, 0)
        if upto > before:
            self._blobs[key] = upto
            self.there += upto - before
