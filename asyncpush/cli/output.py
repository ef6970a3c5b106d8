"""What commands print when they are done: summaries for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from asyncpush.cli.text import duration, plural, size
from asyncpush.engine.preview import PushPreview
from asyncpush.engine.results import ImageStatus, PushReport
from asyncpush.errors import AsyncpushError


def print_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document to standard output."""
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_error(error: AsyncpushError | str) -> None:
    """Write one error as one line to standard error."""
    click.echo(f"error: {error}", err=True)


def print_summary(report: PushReport) -> None:
    """Write a finished (or interrupted) push's outcome to standard output, and what to do next."""
    counts = [
        f"{report.count(status)} {word}"
        for status, word in (
            (ImageStatus.PUSHED, "pushed"),
            (ImageStatus.EXISTS, "there already"),
            (ImageStatus.REFUSED, "refused"),
            (ImageStatus.FAILED, "failed"),
        )
        if report.count(status)
    ]
    rate = report.bytes_sent / report.seconds if report.seconds > 0 else 0
    line = (
        f"{plural(len(report.images), 'image')}: {', '.join(counts) or 'none ended'};"
        f" {size(report.bytes_sent)} sent in {duration(report.seconds)} ({size(rate)}/s)"
    )
    if report.retries:
        line += f", {report.retries} calls retried"
    click.echo(line)
    for registry, calls in report.calls.items():
        for call, figures in calls.items():
            if figures["throttled"]:
                click.echo(
                    f"{registry} throttled {call} {figures['throttled']} times;"
                    f" it ran at {figures['rate']} calls/s of a quota of {figures['quota']:g}"
                    f" (--quota {call}=RATE sets another)"
                )
    if not report.complete:
        click.echo("interrupted: the same command goes on with what is missing")
    elif report.failed:
        click.echo(
            "run the same command again when the errors above are mended;"
            " what is there is not sent again"
        )


def print_preview(preview: PushPreview) -> None:
    """Write what a push would send to standard output."""
    for image in preview.images:
        if image.error is not None:
            print_error(f"{image.name} -> {image.reference}: {image.error}")
        click.echo(
            f"{image.name} -> {image.reference}:"
            f" {image.missing} of {plural(image.blobs, 'blob')} to send,"
            f" {size(image.bytes)} in {plural(image.parts, 'part')},"
            f" {plural(image.manifests, 'manifest')}"
        )
    for result in preview.rejected:
        print_error(f"{result.name} -> {result.reference}: {result.error}")
    click.echo(f"dry run: {size(preview.bytes)} to send, nothing was sent")
