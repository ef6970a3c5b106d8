"""Report files: written whole or not at all, read with every claim of theirs checked."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO, cast

from pydantic import ValidationError

from asyncpush.documents.versioned import read_versioned
from asyncpush.engine.options import PushOptions
from asyncpush.engine.results import ImageStatus, PushReport
from asyncpush.errors import UsageError
from asyncpush.replication.results import ReplicationReport
from asyncpush.report.document import ADAPTER, SCHEMA_VERSION, Blob, Limit, Registry, Report, Totals
from asyncpush.report.recorder import Recorder, status_of

_PACKAGES = ("aiobotocore", "botocore", "aiohttp", "anyio", "uvloop")
_PLAIN_OPTIONS = (
    "images",
    "layers",
    "parts",
    "connections",
    "memory",
    "part_size",
    "attempts",
    "retry_base",
    "retry_cap",
    "temp_space",
    "compress_layers",
    "include_foreign",
    "on_refused",
    "atomic",
    "rollback",
    "transport",
    "plain_http",
)


def check_writable(path: Path) -> None:
    """Find out before a push whether its report could be written.

    :raises UsageError: it could not.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "is a directory")
        probe = _beside(path)
        probe.open("w").close()
        probe.unlink()
    except (OSError, ValueError) as exc:
        raise _unwritable(path, exc) from exc


def write_report(
    path: Path,
    job: str,
    recorder: Recorder,
    report: PushReport,
    options: PushOptions,
    replication: ReplicationReport | None = None,
) -> None:
    """Write a push's report: beside the file first, so that a reader never sees half of it.

    :param job: what people call the push.
    :param replication: what waiting for replication found, where that was asked for.
    :raises UsageError: it cannot be written.
    """
    try:
        with write_whole(path) as file:
            head = _head(job, recorder, report, options)
            if replication is not None:
                head["replication"] = replication.to_dict()
            _write(file, head, recorder, report)
    except OSError as exc:
        raise _unwritable(path, exc) from exc


@contextmanager
def write_whole(path: Path) -> Iterator[TextIO]:
    """Write a file beside another, and put it in that one's place when all of it is written.

    :raises OSError: it cannot be written.
    """
    beside = _beside(path)
    try:
        with beside.open("w", encoding="utf-8") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_report(path: Path) -> Report:
    """Read a report.

    :raises UsageError: it cannot be read, is no report, or one of another version.
    """
    document = read_versioned(path, "report", "schema_version", SCHEMA_VERSION)[1]
    try:
        report = ADAPTER.validate_python(document)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise _damaged(path, first["msg"], *first["loc"]) from exc
    for number, image in enumerate(report["images"]):
        if any(blob >= len(report["blobs"]) for blob in image.get("blobs", ())):
            raise _damaged(path, "it names a blob that is not there", "images", number, "blobs")
    return report


def _head(job: str, recorder: Recorder, report: PushReport, options: PushOptions) -> dict[str, Any]:
    registries = _registries(recorder, report)
    outcome = "failed"
    if not report.complete:
        outcome = "interrupted"
    elif report.ok:
        outcome = "nothing-to-do" if report.nothing_to_do else "pushed"
    if report.count(ImageStatus.STAGED):
        outcome = "failed"
    seconds = recorder.seconds
    ended = recorder.started + timedelta(seconds=seconds)
    return {
        "schema_version": SCHEMA_VERSION,
        "asyncpush": metadata.version("asyncpush"),
        "job": job,
        "outcome": outcome,
        "atomic": options.atomic,
        "started": recorder.started.isoformat(timespec="milliseconds"),
        "ended": ended.isoformat(timespec="milliseconds"),
        "seconds": round(seconds, 3),
        "totals": _totals(registries, report),
        "environment": _environment(),
        "options": _options(options),
        "registries": registries,
        "warnings": recorder.warnings,
    }


def _registries(recorder: Recorder, report: PushReport) -> dict[str, Registry]:
    hosts = {image.reference.partition("/")[0] for image in report.images} | set(report.calls)
    registries: dict[str, Registry] = {
        host: Registry(
            calls=report.calls.get(host, {}),
            images={str(status): 0 for status in ImageStatus},  # type: ignore[misc]
            bytes_sent=0,
            bytes_mounted=0,
            parts=0,
            blobs_sent=0,
            blobs_mounted=0,
            blobs_existing=0,
            blobs_failed=0,
            avoidable_puts=0,
        )
        for host in sorted(hosts)
    }
    for host, limit in report.rate_limits.items():
        if host in registries:
            registries[host]["rate_limit"] = Limit(
                limit=limit.limit, remaining=limit.remaining, window_seconds=limit.window
            )
    for image in report.images:
        part = registries[image.reference.partition("/")[0]]
        part["images"][image.status.value] += 1
        part["avoidable_puts"] += image.avoidable_puts
    for repository, blob in recorder.blobs():
        sums = registries.get(repository.partition("/")[0])
        if sums is None:
            continue  # Interrupted before an image of it ended or a call was made.
        sums["bytes_sent"] += blob.sent
        sums["parts"] += blob.parts
        status = status_of(blob)
        sums["blobs_sent"] += status == "sent"
        if status == "mounted":
            sums["blobs_mounted"] += 1
            sums["bytes_mounted"] += blob.size
        sums["blobs_existing"] += status == "existed"
        sums["blobs_failed"] += status == "failed"
    return registries


def _totals(registries: Mapping[str, Registry], report: PushReport) -> Totals:
    images: Counter[str] = Counter({str(status): 0 for status in ImageStatus})
    for sums in registries.values():
        images.update(cast("dict[str, int]", sums["images"]))

    def total(key: str) -> int:
        return sum(cast("dict[str, int]", sums)[key] for sums in registries.values())

    return Totals(
        images=dict(images),  # type: ignore[typeddict-item]
        bytes_sent=total("bytes_sent"),
        bytes_mounted=total("bytes_mounted"),
        parts=total("parts"),
        blobs_sent=total("blobs_sent"),
        blobs_mounted=total("blobs_mounted"),
        blobs_existing=total("blobs_existing"),
        blobs_failed=total("blobs_failed"),
        calls=sum(c["calls"] for sums in registries.values() for c in sums["calls"].values()),
        retries=report.retries,
        throttles=report.throttles,
        avoidable_puts=report.avoidable_puts,
    )


def _environment() -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": str(os.cpu_count()),
    }
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # uvloop is not to be had everywhere.
    return found


def _options(options: PushOptions) -> dict[str, Any]:
    """The options that are no secrets: named one by one, so that a new one cannot slip in."""
    document = {name: getattr(options, name) for name in _PLAIN_OPTIONS}
    document["quotas"] = dict(options.quotas)
    document["create_repositories"] = options.create is not None
    document["profile"] = options.aws.profile
    document["endpoint_url"] = options.aws.endpoint_url
    document["registries"] = {
        registry.host: {
            "profile": own.aws.profile,
            "role_arn": own.aws.role_arn,
            "endpoint_url": own.aws.endpoint_url,
            "quotas": dict(own.quotas),
            "transport": own.transport,
        }
        for registry, own in options.registries.items()
    }
    return document


def _write(file: TextIO, head: dict[str, Any], recorder: Recorder, report: PushReport) -> None:
    """Write the document image by image: as a whole it may be larger than memory has room for."""
    text = json.dumps(head, indent=2)
    file.write(text[: text.rindex("\n}")])
    file.write(f',\n  "timeline": {json.dumps(recorder.timeline())}')
    rows = ({**image.to_dict(), **recorder.image(image.reference)} for image in report.images)
    _write_list(file, "images", rows)
    _write_list(file, "blobs", recorder.documents())
    file.write("\n}\n")


def _write_list(file: TextIO, key: str, rows: Iterable[Mapping[str, Any] | Blob]) -> None:
    file.write(f',\n  "{key}": [')
    separator = "\n    "
    for row in rows:
        file.write(separator + json.dumps(row))
        separator = ",\n    "
    file.write("\n  ]")


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _damaged(path: Path, message: str, *where: str | int) -> UsageError:
    key = ".".join(map(str, where))
    return UsageError(f"the report is damaged: {message}", file=str(path), key=key)


def _unwritable(path: Path, exc: Exception) -> UsageError:
    return UsageError(
        f"the report cannot be written: {getattr(exc, 'strerror', None) or exc}",
        advice="choose another file for --report",
        file=str(path),
    )
