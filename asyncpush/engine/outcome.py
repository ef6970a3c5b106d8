"""One image on its way, in one phase or several, and what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from asyncpush.engine.repository import RepositoryPush
from asyncpush.engine.results import ImageResult, ImageStatus, TagResult, TagStatus
from asyncpush.engine.tally import Tally
from asyncpush.errors import AsyncpushError, RefusedError, unforeseen
from asyncpush.plan.graph import PlannedImage

_log = logging.getLogger("asyncpush.push")


@dataclass(slots=True)
class ImagePush:
    """An image, what it caused to be sent, and how it stands.

    :param image: the image.
    :param repository: opens, or has open, the repository that it goes to.
    :param lenient: whether a registry that refuses it does not make it a failure.
    """

    image: PlannedImage
    repository: Callable[[], Awaitable[RepositoryPush]]
    lenient: bool
    tally: Tally = field(default_factory=Tally)
    status: ImageStatus = ImageStatus.FAILED
    error: AsyncpushError | None = None
    seconds: float = 0.0

    async def run(self, work: Callable[[RepositoryPush], Awaitable[None]]) -> None:
        """Do a phase's work; a failure becomes the image's own."""
        begin = time.monotonic()
        try:
            await work(await self.repository())
        except AsyncpushError as exc:
            self.fail(exc)
        except Exception as exc:  # noqa: BLE001 - the last net: one image fails, the others go on
            _log.debug("%s: not foreseen", self.image.reference, exc_info=True)
            self.fail(unforeseen(exc))
        else:
            sent = self.tally.brought_blobs or self.tally.manifests_sent
            self.status = ImageStatus.PUSHED if sent else ImageStatus.EXISTS
        finally:
            self.seconds += time.monotonic() - begin

    def fail(self, error: AsyncpushError) -> None:
        """End it with an error."""
        self.error = error.at(repository=str(self.image.repository))
        passes = self.lenient and isinstance(error, RefusedError)
        self.status = ImageStatus.REFUSED if passes else ImageStatus.FAILED

    def tags(self) -> tuple[TagResult, ...]:
        """What has become of its tags so far."""
        return tuple(
            self.tally.tags.get(tag) or TagResult(tag, TagStatus.NOT_MOVED)
            for tag in self.image.tags
        )

    def result(self) -> ImageResult:
        """What came of it."""
        return ImageResult(
            name=self.image.name,
            reference=self.image.reference,
            digest=self.image.root,
            status=self.status,
            bytes_sent=self.tally.bytes_sent,
            bytes_mounted=self.tally.bytes_mounted,
            blobs_sent=self.tally.blobs_sent,
            blobs_mounted=self.tally.blobs_mounted,
            blobs_existing=self.tally.blobs_existing,
            seconds=self.seconds,
            error=self.error,
            tags=self.tags(),
            origin=self.image.origin,
            avoidable_puts=self._avoidable_puts(),
        )

    def _avoidable_puts(self) -> int:
        """PutImage calls that would not have been made if tags could have been asked for."""
        by_digest = self.tally.askable and self.status is ImageStatus.EXISTS
        return self.tally.tags_put + (self.tally.manifests_put if by_digest else 0)
