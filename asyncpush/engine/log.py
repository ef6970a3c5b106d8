"""Events as records of standard logging: the loggers ``asyncpush.*`` tell what a line is worth.

No handler is configured here. A record has the event's name as ``event`` and its data, ready for
JSON, as ``fields``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from asyncpush.engine.events import (
    BlobExists,
    BlobMounted,
    CallEnded,
    CallRetried,
    Event,
    ImageFinished,
    ImageReplicated,
    ImageStarted,
    ImageVerified,
    LayerComplete,
    LayerFailed,
    LayerStarted,
    ManifestCommitted,
    PartSent,
    PushEnded,
    PushPlanned,
    ReplicationAwaited,
    RepositoryCreated,
    TagsMoving,
    UploadResumed,
    Warned,
)
from asyncpush.engine.results import ImageResult, ImageStatus
from asyncpush.errors import AsyncpushError, printable
from asyncpush.replication.results import ImageReplication, ReplicationStatus
from asyncpush.text import duration, plural, size

_LOGGER = logging.getLogger("asyncpush.push")
_SILENT = frozenset({ImageStarted, BlobExists, LayerStarted, PartSent, CallEnded})
"""There are many of them, and each is part of something that is told when it ends."""

_STATUS_LEVELS = {ImageStatus.FAILED: logging.ERROR, ImageStatus.REFUSED: logging.WARNING}


@dataclass(frozen=True, slots=True)
class Line:
    """What one line of a log says.

    :param level: a level of :mod:`logging`.
    :param message: the line for people, without its level.
    :param data: the same for machines.
    """

    level: int
    message: str
    data: dict[str, Any] = field(default_factory=dict)


def log_event(event: Event) -> None:
    """Log an event, if it is worth a line."""
    if type(event) in _SILENT:
        return
    for line in lines_of(event):
        if _LOGGER.isEnabledFor(line.level):
            extra = {"event": _name_of(event), "fields": line.data}
            # What names in a layout hold must not act on the terminal that shows the log.
            _LOGGER.log(line.level, "%s", printable(line.message), extra=extra)


def lines_of(event: Event) -> Iterator[Line]:
    """The lines that an event is worth."""
    match event:
        case ImageFinished():
            yield _image_line(event.result)
        case ImageReplicated():
            yield from _replicated(event.result)
        case ImageVerified():
            yield from _verified(event)
        case Warned():
            yield Line(logging.WARNING, event.message)
        case PushPlanned():
            yield Line(
                logging.INFO,
                f"{plural(event.images, 'image')}: {plural(event.manifests, 'manifest')},"
                f" {plural(event.blobs, 'blob')}, {size(event.bytes)}",
                {
                    "images": event.images,
                    "repositories": event.repositories,
                    "manifests": event.manifests,
                    "blobs": event.blobs,
                    "bytes": event.bytes,
                },
            )
        case ReplicationAwaited() if event.images:
            images = plural(event.images, "image")
            message = f"waiting for the replication of {images} from {event.registry}"
            yield Line(logging.INFO, message, _data(event))
        case TagsMoving():
            message = f"everything is there by digest; moving {plural(event.tags, 'tag')}"
            yield Line(logging.INFO, message, _data(event))
        case RepositoryCreated():
            message = f"created the repository {event.repository}"
            yield Line(logging.INFO, message, _data(event))
        case PushEnded():
            yield _end(event)
        case _:
            yield Line(logging.DEBUG, _detail(event), _data(event))


def _detail(event: Event) -> str:
    """What is told on request alone."""
    match event:
        case CallRetried():
            text = f"retry {event.attempt} of {event.call} in {event.delay:.2f} s: {event.error}"
        case UploadResumed():
            text = f"resumed {event.digest} at {size(event.offset)} in {event.repository}"
        case LayerComplete():
            text = f"uploaded {event.digest} ({size(event.size)}) to {event.repository}"
        case BlobMounted():
            text = (
                f"mounted {event.digest} ({size(event.size)}) from {event.source}"
                f" in {event.repository}"
            )
        case LayerFailed():
            text = f"could not upload {event.digest} to {event.repository}: {event.error}"
        case ManifestCommitted():
            what = "found" if event.existed else "committed"
            tag = f" as {event.tag}" if event.tag else ""
            text = f"{what} {event.digest}{tag} in {event.repository}"
        case _:
            where = ", ".join(f"{key} {value}" for key, value in _data(event).items())
            text = f"{_name_of(event).replace('_', ' ')}: {where}"
    return text


def _image_line(result: ImageResult) -> Line:
    level = _STATUS_LEVELS.get(result.status, logging.INFO)
    if result.error is not None:
        message = f"{result.name} -> {result.reference}: {result.error}"
    else:
        sent = f"{size(result.bytes_sent)} sent, {duration(result.seconds)}"
        message = f"{result.status:<7} {result.reference} ({sent})"
    return Line(level, message, result.to_dict())


def _verified(event: ImageVerified) -> Iterator[Line]:
    data = {"name": event.name, "reference": event.reference, "digest": event.digest}
    for problem in event.problems:
        message = f"{event.name} -> {event.reference}: {problem}"
        yield Line(logging.ERROR, message, {**data, "ok": False, "error": problem.to_dict()})
    if not event.problems:
        yield Line(logging.DEBUG, f"verified {event.reference}", {**data, "ok": True})


def _replicated(result: ImageReplication) -> Iterator[Line]:
    if result.status is ReplicationStatus.UNKNOWN:
        return  # A warning has said why, once for all images that it is true of.
    data = result.to_dict()
    problems = result.problems
    for problem in problems:
        message = f"{result.reference}: {problem}"
        yield Line(logging.ERROR, message, {**data, "error": problem.to_dict()})
    if result.status is ReplicationStatus.NOT_COVERED:
        yield Line(logging.INFO, f"no replication rule covers {result.reference}", data)
    elif not problems:
        where = ", ".join(
            f"{one.destination} ({duration(one.seconds or 0)})" for one in result.destinations
        )
        yield Line(logging.INFO, f"replicated {result.reference} to {where}", data)


def _end(event: PushEnded) -> Line:
    report = event.report
    document = report.to_dict()
    del document["images"], document["calls"]
    counts = ", ".join(f"{count} {status}" for status, count in document["counts"].items() if count)
    message = f"{plural(len(report.images), 'image')}: {counts or 'none ended'}"
    if not report.complete:
        message += "; interrupted"
    return Line(logging.INFO, message, document)


def _data(event: Event) -> dict[str, Any]:
    """An event's fields, ready for JSON; also of events that nobody here knows."""
    return {f.name: _plain(getattr(event, f.name)) for f in fields(event)}


def _plain(value: object) -> object:
    if isinstance(value, AsyncpushError):
        return value.to_dict()
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _name_of(event: Event) -> str:
    return _snake(type(event).__name__)


@cache
def _snake(name: str) -> str:
    return re.sub(r"(?<=.)([A-Z])", r"_\1", name).lower()
