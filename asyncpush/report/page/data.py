"""What the page's script gets: the report in columns, and what was found out about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from asyncpush.engine.events import host_of
from asyncpush.report.document import Blob, Image, Report
from asyncpush.report.findings import Analysis, steps_for_people
from asyncpush.report.path import Cause

_IMAGE_FIELDS = (
    "name",
    "reference",
    "digest",
    "status",
    "bytes_sent",
    "seconds",
    "error",
    "tags",
    "started",
    "ended",
    "blobs",
    "manifests",
)
_BLOB_FIELDS = (
    "repository",
    "digest",
    "size",
    "status",
    "bytes_sent",
    "parts",
    "started",
    "seconds",
    "error",
    "waited",
    "slots",
    "sending",
    "stretches",
    "mounted_from",
    "mounted_at",
)


def page_data(report: Report, analysis: Analysis) -> dict[str, Any]:
    """The page's data, JSON-ready.

    Images and blobs are in columns, a list for each field, since a report may have many of them.
    """
    whole = {key: value for key, value in report.items() if key not in ("images", "blobs")}
    return {
        **whole,
        "hosts": sorted({*report["registries"], *_hosts(report)}),
        "images": _columns(report["images"], _IMAGE_FIELDS),
        "blobs": _columns(report["blobs"], _BLOB_FIELDS),
        "analysis": {
            "causes": _causes(analysis.path.causes()),
            "steps": [
                {
                    "kind": step.kind,
                    "begin": round(step.begin, 3),
                    "end": round(step.end, 3),
                    "image": step.image,
                    "blob": step.blob,
                    "causes": _causes(step.causes),
                }
                for step in steps_for_people(analysis.path)
            ],
            "findings": [
                {
                    "title": finding.title,
                    "text": finding.text,
                    "advice": finding.advice,
                    "seconds": round(finding.seconds, 3),
                    "blob": finding.blob,
                }
                for finding in analysis.findings
            ],
            "slowest": analysis.slowest,
        },
    }


def _hosts(report: Report) -> Iterable[str]:
    return (host_of(image["reference"]) for image in report["images"])


def _columns(rows: Iterable[Image] | Iterable[Blob], fields: tuple[str, ...]) -> dict[str, Any]:
    columns: dict[str, Any] = {field: [] for field in fields}
    for row in rows:
        for field, column in columns.items():
            column.append(row.get(field))
    return columns


def _causes(causes: dict[Cause, float]) -> list[dict[str, Any]]:
    ordered = sorted(causes.items(), key=lambda item: -item[1])
    return [
        {
            "kind": cause.kind,
            "registry": cause.registry,
            "call": cause.call,
            "seconds": round(seconds, 3),
        }
        for cause, seconds in ordered
    ]
