"""The document of a report: its types, from which its JSON Schema is made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

SCHEMA_VERSION = 1
"""Grows when a reader of older documents would misread a new one."""

ImageStates = Literal["pushed", "exists", "refused", "staged", "failed"]
TagStates = Literal["moved", "moved-earlier", "unchanged", "returned", "not-moved"]


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


class Image(TypedDict):
    """One image in one repository."""

    name: str
    reference: str
    digest: str
    status: ImageStates
    bytes_sent: int
    blobs_sent: int
    blobs_existing: int
    seconds: float
    error: Error | None
    tags: list[Tag]


class Blob(TypedDict):
    """One blob in one repository; ``started`` in seconds since the push began."""

    repository: str
    digest: str
    size: int
    status: Literal["sent", "existed", "failed", "unfinished"]
    bytes_sent: int
    parts: int
    started: float | None
    seconds: float | None
    error: Error | None


class Call(TypedDict):
    """How often a call was made; quota and rate in calls a second."""

    calls: int
    throttled: int
    quota: float
    rate: float | None


class Registry(TypedDict):
    """One registry's part."""

    calls: dict[str, Call]
    images: dict[ImageStates, int]
    bytes_sent: int
    parts: int
    blobs_sent: int
    blobs_existing: int
    blobs_failed: int


class Totals(TypedDict):
    """The sums of all registries."""

    images: dict[ImageStates, int]
    bytes_sent: int
    parts: int
    blobs_sent: int
    blobs_existing: int
    blobs_failed: int
    calls: int
    retries: int
    throttles: int


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
    seconds: float
    totals: Totals
    environment: dict[str, str]
    options: dict[str, Any]
    registries: dict[str, Registry]
    warnings: list[str]
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
