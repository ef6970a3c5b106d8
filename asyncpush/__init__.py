"""asyncpush: many container images into Amazon ECR, at once.

::

    import anyio
    from asyncpush import Pusher, PushItem, PushOptions

    async def main() -> None:
        async with Pusher(PushOptions(layers=32)) as pusher:
            report = await pusher.push(
                [PushItem("layouts/app", "111122223333.dkr.ecr.eu-central-1.amazonaws.com/app")]
            )
        assert report.ok, [image.error for image in report.failed]

    anyio.run(main)
"""

import logging

from asyncpush.engine.events import (
    BlobExists,
    BlobMounted,
    CallEnded,
    CallRetried,
    Event,
    EventSink,
    ImageFinished,
    ImageReplicated,
    ImageStaged,
    ImageStarted,
    ImageVerified,
    LayerComplete,
    LayerFailed,
    LayerStarted,
    ManifestCommitted,
    PartSent,
    PushEnded,
    PushPlanned,
    RegistryTotals,
    ReplicationAwaited,
    RepositoryCreated,
    TagsMoving,
    UploadResumed,
    Warned,
)
from asyncpush.engine.journal import open_journal
from asyncpush.engine.options import PushOptions, RegistrySettings
from asyncpush.engine.pusher import Pusher
from asyncpush.engine.replication_wait import WaitOptions
from asyncpush.engine.results import ImageResult, ImageStatus, PushReport
from asyncpush.errors import AsyncpushError
from asyncpush.plan.items import PushItem
from asyncpush.plan.reference import Reference, Registry, Repository, parse_reference
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.replication.results import ImageReplication, ReplicationReport, ReplicationStatus

__all__ = [
    "AsyncpushError",
    "AwsOptions",
    "BlobExists",
    "BlobMounted",
    "CallEnded",
    "CallRetried",
    "Event",
    "EventSink",
    "ImageFinished",
    "ImageReplicated",
    "ImageReplication",
    "ImageResult",
    "ImageStaged",
    "ImageStarted",
    "ImageStatus",
    "ImageVerified",
    "LayerComplete",
    "LayerFailed",
    "LayerStarted",
    "ManifestCommitted",
    "PartSent",
    "PushEnded",
    "PushItem",
    "PushOptions",
    "PushPlanned",
    "PushReport",
    "Pusher",
    "Reference",
    "Registry",
    "RegistrySettings",
    "RegistryTotals",
    "ReplicationAwaited",
    "ReplicationReport",
    "ReplicationStatus",
    "Repository",
    "RepositoryCreated",
    "TagsMoving",
    "UploadResumed",
    "WaitOptions",
    "Warned",
    "open_journal",
    "parse_reference",
]

# Whoever wants records configures handlers; until then none of them goes to standard error.
logging.getLogger(__name__).addHandler(logging.NullHandler())
