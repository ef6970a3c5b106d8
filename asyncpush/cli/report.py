"""``asyncpush report``: a report file for people."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import click

from asyncpush.cli.output import print_avoidable
from asyncpush.errors import UsageError, printable
from asyncpush.registries.distribution.ratelimit import RateLimit
from asyncpush.report.document import Image, Report, Totals
from asyncpush.report.file import read_report
from asyncpush.report.findings import analyse
from asyncpush.report.page.render import write_page
from asyncpush.text import duration, plural, size

_MOST_EXAMPLES = 3
_SLOWEST = 5
_WORDS = {
    "pushed": "everything was pushed",
    "nothing-to-do": "there was nothing to do: everything was there already",
    "failed": "some of it failed",
    "interrupted": "it was interrupted",
}


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.json")
@click.option("--failed", is_flag=True, help="Print only the references of images that failed.")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="OUT.html",
    help="Write it as one page for a browser, which needs nothing beside itself.",
)
def report(file: Path, *, failed: bool, html: Path | None) -> None:
    """Print what the report of a push says, or draw it as a page."""
    if html is not None and failed:
        raise UsageError("--html and --failed exclude each other")
    if html is not None and html.resolve() == file.resolve():
        raise UsageError("the page would take the report's place", file=str(html))
    document = read_report(file)
    if html is not None:
        write_page(html, document)
        click.echo(printable(f"wrote {html}"))
        return
    broken = [image for image in document["images"] if image["status"] == "failed"]
    if failed:
        for image in broken:
            click.echo(printable(image["reference"]))
        return
    _print_sums(document)
    _print_failures(broken)
    _print_findings(document)
    _print_replication(document)
    _print_slowest(document)
    for warning in document["warnings"]:
        click.echo(printable(f"warning: {warning}"))
    if document["outcome"] in ("failed", "interrupted"):
        click.echo("the same command goes on with what is missing")


def _print_sums(document: Report) -> None:
    totals = document["totals"]
    click.echo(
        printable(f"{document['job']}: {_WORDS[document['outcome']]}")
        + f" ({document['started']}, {duration(document['seconds'])})"
    )
    states = ", ".join(f"{count} {state}" for state, count in totals["images"].items() if count)
    click.echo(
        f"{plural(len(document['images']), 'image')}: {states or 'none ended'};"
        f" {size(totals['bytes_sent'])} in {plural(totals['parts'], 'part')},"
        f"{_mounted(totals)}"
        f" {plural(totals['calls'], 'call')}, {totals['retries']} retried,"
        f" {totals['throttles']} throttled"
    )
    print_avoidable(totals.get("avoidable_puts", 0))
    for host, sums in document["registries"].items():
        states = ", ".join(f"{count} {state}" for state, count in sums["images"].items() if count)
        click.echo(
            f"{host}: {states or 'no image ended'}; blobs: {sums['blobs_sent']} sent,"
            f" {sums.get('blobs_mounted', 0)} mounted, {sums['blobs_existing']} there,"
            f" {sums['blobs_failed']} failed;"
            f" {size(sums['bytes_sent'])}"
        )
        if limit := sums.get("rate_limit"):
            stated = RateLimit(limit["limit"], limit["remaining"], limit["window_seconds"])
            click.echo(f"  {stated}")
        for name, call in sums["calls"].items():
            rate = f", {call['rate']:.1f}/s" if call["rate"] is not None else ""
            throttled = f", throttled {call['throttled']} times" if call["throttled"] else ""
            click.echo(f"  {name}: {call['calls']}{rate} of {call['quota']:g}/s{throttled}")


def _mounted(totals: Totals) -> str:
    mounted = totals.get("bytes_mounted", 0)
    return f" {size(mounted)} mounted," if mounted else ""


def _print_failures(broken: list[Image]) -> None:
    kinds: defaultdict[str, list[Image]] = defaultdict(list)
    for image in broken:
        kinds[image["error"]["kind"] if image["error"] else "unknown"].append(image)
    for kind, images in sorted(kinds.items(), key=lambda item: -len(item[1])):
        click.echo(f"{plural(len(images), 'image')} failed: {kind}")
        for image in images[:_MOST_EXAMPLES]:
            error = image["error"]
            why = f"{error['message']}; {error['advice']}" if error else ""
            click.echo(printable(f"  {image['reference']}: {why.rstrip('; ')}"))
        if len(images) > _MOST_EXAMPLES:
            click.echo(f"  and {len(images) - _MOST_EXAMPLES} more (--failed lists all)")


def _print_findings(document: Report) -> None:
    findings = analyse(document).findings
    if findings:
        click.echo("what took the time:")
    for finding in findings:
        click.echo(printable(f"  {finding.title} ({duration(finding.seconds)}): {finding.advice}"))


def _print_replication(document: Report) -> None:
    replication = document.get("replication")
    if replication is None:
        return
    states = ", ".join(f"{count} {state}" for state, count in replication["counts"].items())
    ended = "" if replication["complete"] else ", interrupted"
    click.echo(
        f"replication of {plural(len(replication['images']), 'image')}:"
        f" {states or 'none to wait for'}{ended}; waited {duration(replication['seconds'])}"
    )
    for image in replication["images"]:
        for one in image["destinations"]:
            if one["status"] != "complete":
                code = f": {one['failure_code']}" if one["failure_code"] else ""
                where = f"{one['account']} in {one['region']}"
                click.echo(printable(f"  {image['reference']} to {where}: {one['status']}{code}"))
        if image["error"]:
            click.echo(printable(f"  {image['reference']}: {image['error']['message']}"))


def _print_slowest(document: Report) -> None:
    timed = [(blob["seconds"], blob) for blob in document["blobs"] if blob["seconds"]]
    slowest = sorted(timed, key=lambda pair: -pair[0])[:_SLOWEST]
    if slowest:
        click.echo("slowest blobs:")
    for seconds, blob in slowest:
        click.echo(
            f"  {duration(seconds)} {blob['repository']}@{blob['digest']} ({size(blob['size'])},"
            f" {plural(blob['parts'], 'part')})"
        )
