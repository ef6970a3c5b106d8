"""The document of a report: its types, from which its JSON Schema is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, FiniteFloat, NonNegativeInt, TypeAdapter, with_config
from typing_extensions import TypedDict

SCHEMA_VERSION = 1
"""Grows when a reader of older documents would misread a new one."""

ImageStates = Literal["pushed", "exists", "refused", "staged", "failed"]
BlobStates = Literal["sent", "mounted", "existed", "failed", "unfinished"]
TagStates = Literal["moved", "moved-earlier", "unchanged", "returned", "not-moved", "unknown"]


Seconds = Annotated[float, Field(ge=0, le=1e9)]
"""A moment, counted from the push's begin, or a duration."""


class Error(TypedDict):
    """Why something failed."""

    kind: str
    message: str
    where: dict[str, str]
    advice: str


class Tag(TypedDict):
    """What became of a tag; ``previous`` is the digest that it had, where that was asked."""

    tag: str
    status: TagStates
    previous: str | None


class Commit(TypedDict):
    """A manifest that was put; ``seconds`` before ``ended`` it could be, and began to wait."""

    digest: str
    tag: str | None
    existed: bool
    ended: Seconds
    seconds: Seconds


class ImageTimes(TypedDict, total=False):
    """From when to when an image had its turn, in seconds since the push began.

    ``blobs`` are places in the report's list of blobs, counted from 0. Images that were not begun
    have none of these.
    """

    started: Seconds
    ended: Seconds
    blobs: list[NonNegativeInt]
    manifests: list[Commit]


class Image(ImageTimes):
    """One image in one repository."""

    name: str
    reference: str
    digest: str
    status: ImageStates
    bytes_sent: int
    bytes_mounted: NotRequired[int]
    blobs_sent: int
    blobs_mounted: NotRequired[int]
    blobs_existing: int
    seconds: Seconds
    error: Error | None
    tags: list[Tag]


class Blob(TypedDict):
    """One blob in one repository; ``started`` in seconds since the push began.

    Of its seconds, it waited ``slots`` for slots of parts and for memory, and parts were on their
    way for ``sending``; before it started it waited ``waited`` for a layer's slot. ``stretches``
    say when its parts went: begin and end in seconds since the push began, bytes, parts. There are
    at most 64 of a blob, each of several parts where it has more. ``mounted_from`` is the
    repository that gave it, at ``mounted_at``.
    """

    repository: str
    digest: str
    size: int
    status: BlobStates
    bytes_sent: int
    parts: int
    started: Seconds | None
    seconds: Seconds | None
    error: Error | None
    waited: NotRequired[Seconds]
    slots: NotRequired[Seconds]
    sending: NotRequired[Seconds]
    stretches: NotRequired[list[tuple[Seconds, Seconds, int, int]]]
    mounted_from: NotRequired[str]
    mounted_at: NotRequired[Seconds]


class ReplicationDestination(TypedDict):
    """A registry that an image is replicated to.

    ``seconds`` ran from the beginning of the waiting until it was seen to have ended.
    """

    account: str
    region: str
    status: Literal["complete", "failed", "in-progress", "not-started"]
    failure_code: str | None
    seconds: FiniteFloat | None


class ReplicatedImage(TypedDict):
    """One image; ``error`` tells why its replication is unknown, or cannot be."""

    reference: str
    digest: str | None
    status: Literal["complete", "failed", "in-progress", "not-started", "not-covered", "unknown"]
    destinations: list[ReplicationDestination]
    error: Error | None


class Replication(TypedDict):
    """What waiting for replication found; ``complete`` is false if it was interrupted."""

    complete: bool
    ok: bool
    seconds: FiniteFloat
    counts: dict[str, int]
    images: list[ReplicatedImage]


class Call(TypedDict):
    """How often a call was made; quota and rate in calls a second."""

    calls: int
    throttled: int
    quota: FiniteFloat
    rate: FiniteFloat | None


class Limit(TypedDict):
    """What a source stated last of its rate limit: pulls in a window of seconds, and those left."""

    limit: int | None
    remaining: int
    window_seconds: int | None


class Registry(TypedDict):
    """One registry's part.

    ``avoidable_puts`` are PutImage calls that found everything there already, and that granting
    ecr:BatchGetImage saves.
    """

    calls: dict[str, Call]
    images: dict[ImageStates, int]
    bytes_sent: int
    bytes_mounted: NotRequired[int]
    parts: int
    blobs_sent: int
    blobs_mounted: NotRequired[int]
    blobs_existing: int
    blobs_failed: int
    rate_limit: NotRequired[Limit]
    avoidable_puts: NotRequired[int]


class Totals(TypedDict):
    """The sums of all registries."""

    images: dict[ImageStates, int]
    bytes_sent: int
    bytes_mounted: NotRequired[int]
    parts: int
    blobs_sent: int
    blobs_mounted: NotRequired[int]
    blobs_existing: int
    blobs_failed: int
    calls: int
    retries: int
    throttles: int
    avoidable_puts: NotRequired[int]


class CallSeries(TypedDict):
    """A call over time: tries, those that were throttled or failed in passing.

    ``paced`` are the seconds that tries waited for the call's pace, ``seconds`` those from then to
    their end, ``delayed`` those before they were made again. What is missing is 0 throughout.
    """

    calls: list[int]
    throttled: NotRequired[list[int]]
    failed: NotRequired[list[int]]
    paced: NotRequired[list[Seconds]]
    delayed: NotRequired[list[Seconds]]
    seconds: NotRequired[list[Seconds]]


class RegistrySeries(TypedDict):
    """A registry over time: acknowledged bytes, layers and images in flight (means), calls."""

    bytes: list[int]
    layers: list[FiniteFloat]
    images: list[FiniteFloat]
    calls: dict[str, CallSeries]


class Timeline(TypedDict):
    """Figures for each ``width`` seconds since the push began; each list ends with its last one.

    ``tags_moving`` is when an atomic push began to move tags.
    """

    width: Annotated[float, Field(ge=0.001, le=1e9)]
    tags_moving: NotRequired[Seconds]
    registries: dict[str, RegistrySeries]


@with_config(ConfigDict(title="Report of a push by asyncpush"))
class Report(TypedDict):
    """Times are UTC in ISO 8601, sizes in bytes, durations in seconds."""

    schema_version: Literal[1]
    asyncpush: str
    job: str
    outcome: Literal["pushed", "nothing-to-do", "failed", "interrupted"]
    atomic: bool
    started: str
    ended: str
    seconds: Seconds
    totals: Totals
    environment: dict[str, str]
    options: dict[str, Any]
    registries: dict[str, Registry]
    warnings: list[str]
    timeline: NotRequired[Timeline]
    replication: NotRequired[Replication]
    images: list[Image]
    blobs: list[Blob]


ADAPTER: TypeAdapter[Report] = TypeAdapter(Report)


def report_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of reports."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:asyncpush:report:{SCHEMA_VERSION}",
        **ADAPTER.json_schema(),
    }
