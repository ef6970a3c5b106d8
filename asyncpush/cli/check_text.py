"""What a check found, for people: tables of how things stand, a line for each cause of trouble."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import click

from asyncpush.check.findings import (
    CheckReport,
    Finding,
    Outcome,
    RegistryState,
    RepositoryState,
    Severity,
    Tags,
)
from asyncpush.errors import printable
from asyncpush.text import duration, plural, size

_MOST_EXAMPLES = 3
_MARKS = {Outcome.ALLOWED: "yes", Outcome.DENIED: "NO", Outcome.UNKNOWN: "?"}
_TAGS = {None: "-", Tags.FREE: "free", Tags.CONFLICT: "CONFLICT", Tags.UNKNOWN: "?"}
_REACHED = {True: "reached", False: "NOT REACHED", None: "?"}
_THERE = {True: "yes", False: "NO", None: "?"}
# The heads of columns, short of the actions' names, in the order of a push.
_ACTIONS = {
    "BatchCheckLayerAvailability": "check",
    "InitiateLayerUpload": "initiate",
    "UploadLayerPart": "part",
    "CompleteLayerUpload": "complete",
    "PutImage": "put",
}
# What no check can tell is no reason to show a repository.
_ALWAYS_UNKNOWN = "InitiateLayerUpload"


def print_check(report: CheckReport, *, verbose: bool, quiet: bool) -> None:
    """Write what was found to standard output.

    :param verbose: show all repositories, not only those of which something is to be said.
    :param quiet: nothing but problems and warnings.
    """
    if not quiet:
        _print_registries(report.registries)
        _print_repositories(report.repositories, verbose=verbose)
        _print_estimate(report)
    for line in _lines(report.findings, quiet=quiet):
        click.echo(line)
    if not report.complete:
        click.echo("interrupted: not everything was looked at")
    elif not quiet:
        click.echo(
            f"{plural(_count(report, Severity.PROBLEM), 'problem')},"
            f" {plural(_count(report, Severity.WARNING), 'warning')},"
            f" {_count(report, Severity.UNKNOWN):,} unknown; nothing was changed"
        )


def _count(report: CheckReport, severity: Severity) -> int:
    return sum(found.severity is severity for found in report.findings)


def _print_registries(states: Sequence[RegistryState]) -> None:
    rows = [("registry", "credentials", "account", "expire", "endpoint", "clock", "token")]
    for state in states:
        who = state.identity
        source, account, expires = "-", "?", "-"
        if who is not None:
            source = f"{who.source} {who.key}"
            account = (who.arn or who.account or "?").removeprefix("arn:aws:")
            expires = who.expires.strftime("%Y-%m-%d %H:%M UTC") if who.expires else "-"
        rows.append(
            (
                state.registry.host,
                source,
                account,
                expires,
                _REACHED[state.reached],
                _clock(state.skew),
                _MARKS[state.token],
            )
        )
    _print_table(rows)


def _clock(skew: float | None) -> str:
    if skew is None:
        return "?"
    # An answer's date has whole seconds.
    return "right" if abs(skew) < 2 else f"{skew:+.0f} s"


def _print_repositories(states: Sequence[RepositoryState], *, verbose: bool) -> None:
    shown = [state for state in states if verbose or _is_notable(state)]
    rows = [("repository", "there", *_ACTIONS.values(), "tags")]
    for state in shown:
        marks = (
            _MARKS[state.actions[action]] if action in state.actions else "-" for action in _ACTIONS
        )
        rows.append((str(state.repository), _THERE[state.exists], *marks, _TAGS[state.tags]))
    if shown:
        _print_table(rows)
    if rest := len(states) - len(shown):
        word = plural(rest, "repository").replace("repositorys", "repositories")
        click.echo(f"{word}{' more' if shown else ''}: there, and all that can be known is allowed")


def _is_notable(state: RepositoryState) -> bool:
    return (
        not state.exists
        or state.tags in (Tags.CONFLICT, Tags.UNKNOWN)
        or any(
            outcome is not Outcome.ALLOWED
            for action, outcome in state.actions.items()
            if action != _ALWAYS_UNKNOWN
        )
    )


def _print_estimate(report: CheckReport) -> None:
    if report.preview is None:
        return
    for registry, sums in report.preview.registries.items():
        call = sums.slowest
        click.echo(
            f"{registry}: {sums.missing:,} of {plural(sums.blobs, 'blob')} to send,"
            f" {size(sums.bytes)}; {duration(sums.seconds)} at least under its quotas"
            f" ({sums.calls[call]:,} {call} at {sums.quotas[call]:g}/s)"
        )


def _lines(findings: Iterable[Finding], *, quiet: bool) -> Iterator[str]:
    """A line for each cause: findings that differ in their place alone are one."""
    groups: defaultdict[tuple[object, ...], list[Finding]] = defaultdict(list)
    for found in findings:
        # What cannot be known anywhere is one line; what is wrong is one for each registry.
        place = "" if found.severity is Severity.UNKNOWN else found.registry or found.where
        cause = found.action or found.advice or found.message
        groups[found.severity, found.subject, place, cause].append(found)
    for severity in Severity:
        if quiet and severity is Severity.UNKNOWN:
            continue
        for group in groups.values():
            if group[0].severity is severity:
                yield printable(f"{severity}: {_line(group)}")


def _line(group: Sequence[Finding]) -> str:
    first = group[0]
    examples = ", ".join(found.where for found in group[:_MOST_EXAMPLES])
    if len(group) > _MOST_EXAMPLES:
        examples += f" and {len(group) - _MOST_EXAMPLES:,} more"
    line = f"{examples}: {first.message}"
    return f"{line}; {first.advice}" if first.advice else line


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(printable(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
