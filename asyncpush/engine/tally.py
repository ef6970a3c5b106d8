"""What one image caused to be done."""

from __future__ import annotations

from dataclasses import dataclass, field

from asyncpush.engine.results import TagResult


@dataclass(slots=True)
class Tally:
    """What an image caused to be sent, and what it found there."""

    bytes_sent: int = 0
    bytes_mounted: int = 0
    blobs_sent: int = 0
    blobs_mounted: int = 0
    blobs_existing: int = 0
    manifests_sent: int = 0
    tags_put: int = 0
    """PutImage calls for tags that pointed to the image already, as nobody could ask for."""
    manifests_put: int = 0
    """The same for manifests by digest."""
    askable: bool = False
    """Whether its tags would have told that all of it is there."""
    tags: dict[str, TagResult] = field(default_factory=dict)

    @property
    def brought_blobs(self) -> bool:
        """Whether the repository lacked a blob of it."""
        return self.blobs_sent > 0 or self.blobs_mounted > 0
