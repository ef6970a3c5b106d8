"""What commands print when they are done: summaries for people, JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import click

from asyncpush.engine.preview import PushPreview
from asyncpush.engine.results import ImageStatus, PushReport, TagStatus
from asyncpush.engine.verify import VerifyReport
from asyncpush.errors import AsyncpushError, printable
from asyncpush.registries.distribution.ratelimit import RateLimit
from asyncpush.text import duration, plural, size


def print_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document to standard output."""
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_error(error: AsyncpushError | str, *, name: str = "", reference: str = "") -> None:
    """Write one error as one line to standard error.

    :param name: the image that it is about, if it is about one,
    :param reference: and where that should go.
    """
    fields: dict[str, Any] = {}
    if isinstance(error, AsyncpushError):
        fields["error"] = error.to_dict()
    text = str(error)
    if reference:
        fields |= {"name": name, "reference": reference}
        text = printable(f"{name} -> {reference}: {error}")
    extra = {"event": "error", "fields": fields}
    logging.getLogger("asyncpush.cli").error("%s", text, extra=extra)


def print_avoidable(puts: int) -> None:
    """Say what ecr:BatchGetImage would save, where it is not granted.

    :param puts: PutImage calls that found everything there.
    """
    if puts:
        click.echo(
            f"{plural(puts, 'PutImage call')} could be saved by granting ecr:BatchGetImage"
            " (asyncpush iam policy --with unchanged)"
        )


def print_summary(report: PushReport, *, atomic: bool = False) -> None:
    """Write a finished (or interrupted) push's outcome to standard output, and what to do next.

    :param atomic: say of each tag whether it moved, unless all did.
    """
    counts = [
        f"{report.count(status)} {word}"
        for status, word in (
            (ImageStatus.PUSHED, "pushed"),
            (ImageStatus.EXISTS, "there already"),
            (ImageStatus.REFUSED, "refused"),
            (ImageStatus.STAGED, "there without their tags"),
            (ImageStatus.FAILED, "failed"),
        )
        if report.count(status)
    ]
    rate = report.bytes_sent / report.seconds if report.seconds > 0 else 0
    line = (
        f"{plural(len(report.images), 'image')}: {', '.join(counts) or 'none ended'};"
        f" {size(report.bytes_sent)} sent in {duration(report.seconds)} ({size(rate)}/s)"
    )
    if report.bytes_mounted:
        line += f", {size(report.bytes_mounted)} mounted"
    if report.retries:
        line += f", {report.retries} calls retried"
    click.echo(line)
    if report.nothing_to_do:
        click.echo("nothing to do: everything was there already, no layer was uploaded")
    print_avoidable(report.avoidable_puts)
    for registry, calls in report.calls.items():
        for call, figures in calls.items():
            if figures["throttled"]:
                click.echo(
                    f"{registry} throttled {call} {figures['throttled']} times;"
                    f" it ran at {figures['rate']} calls/s of a quota of {figures['quota']:g}"
                    f" (--quota {call}=RATE sets another)"
                )
    _print_rate_limits(report.rate_limits)
    if atomic and not report.ok:
        _print_tags(report)
    if not report.complete:
        click.echo("interrupted: the same command goes on with what is missing")
    elif report.failed:
        click.echo(
            "run the same command again when the errors above are mended;"
            " what is there is not sent again"
        )


def _print_tags(report: PushReport) -> None:
    """Say which tags moved, all others did not."""
    tags = [(image, tag) for image in report.images for tag in image.tags]
    counts = Counter(tag.status for _, tag in tags)
    click.echo("tags: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    for image, tag in tags:
        if tag.status in (TagStatus.MOVED, TagStatus.MOVED_EARLIER):
            before = f" from {tag.previous}" if tag.previous else ""
            repository = image.reference.rpartition(":")[0]
            click.echo(f"  {repository}:{tag.tag} moved{before} to {image.digest}")


def print_verdicts(report: VerifyReport, *, quiet: bool = False) -> None:
    """Write the sum of a verification to standard output; problems were told as they were found."""
    wrong = sum(bool(verdict.problems) for verdict in report.verdicts)
    if not quiet:
        depth = "byte for byte" if report.deep else "manifests byte for byte, blobs by digest"
        click.echo(
            f"verified {plural(len(report.verdicts), 'image')} ({depth}):"
            f" {len(report.verdicts) - wrong} good, {wrong} not"
        )


def print_preview(preview: PushPreview) -> None:
    """Write what a push would send to standard output."""
    for image in preview.images:
        if image.error is not None:
            print_error(image.error, name=image.name, reference=image.reference)
        click.echo(
            f"{image.name} -> {image.reference}:"
            f" {image.missing - image.mounts} of {plural(image.blobs, 'blob')} to send,"
            f"{_mounts(image.mounts, image.bytes_mounted)}"
            f" {size(image.bytes)} in {plural(image.parts, 'part')},"
            f" {plural(image.manifests, 'manifest')}"
        )
    for result in preview.rejected:
        if result.error is not None:
            print_error(result.error, name=result.name, reference=result.reference)
    for registry, sums in preview.registries.items():
        calls = ", ".join(f"{call} {count}" for call, count in sums.calls.items())
        click.echo(
            f"{registry}: {plural(sums.blobs - sums.missing, 'blob')} there,"
            f" {sums.missing - sums.mounts} to send,"
            f"{_mounts(sums.mounts, sums.bytes_mounted)}"
            f" {size(sums.bytes)} in {plural(sums.parts, 'part')};"
            f" calls: {calls}; {duration(sums.seconds)} at least under its quotas"
        )
    _print_rate_limits(preview.rate_limits)
    click.echo(
        f"dry run: {size(preview.bytes)} to send, {duration(preview.seconds)} at least"
        " under the quotas; nothing was sent"
    )


def _print_rate_limits(limits: Mapping[str, RateLimit]) -> None:
    for host, limit in limits.items():
        click.echo(f"{host}: {limit}")


def _mounts(count: int, saved: int) -> str:
    return f" {count} to mount ({size(saved)})," if count else ""
