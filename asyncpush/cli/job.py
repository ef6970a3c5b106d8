"""``asyncpush run`` and ``asyncpush plan``: everything that a job file names."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from asyncpush.cli.exitcodes import ExitCode
from asyncpush.cli.jobs import read_job
from asyncpush.cli.options import (
    Output,
    engine_options,
    output_options,
    push_options,
    referrers_of,
    referrers_options,
)
from asyncpush.cli.session import Task, push_task
from asyncpush.errors import UsageError
from asyncpush.job.items import Job
from asyncpush.plan.graph import Plan
from asyncpush.plan.lock import Lock, LockItem, is_lock, read_lock
from asyncpush.plan.shards import Shard, cut
from asyncpush.registries.base import RepositorySettings

_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


def _job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.argument("job", type=click.Path(path_type=Path), metavar="JOB.yaml|LOCK.json"),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="Value of {set.KEY} in the job's templates. Repeatable.",
        ),
        click.option(
            "--only",
            multiple=True,
            metavar="PATTERN",
            help="Push only images whose directory, entry, repository, registry or reference"
            " matches. Repeatable.",
        ),
        click.option(
            "--exclude",
            multiple=True,
            metavar="PATTERN",
            help="Leave out images that match. Repeatable.",
        ),
        click.option(
            "--from-lock",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="LOCK.json",
            help="Push exactly what a lock names, with the job's registries, credentials and"
            " options.",
        ),
        click.option(
            "--shard",
            metavar="K/N",
            help="Push the K-th of N shards of the job, with its share of the quotas.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return referrers_options(engine_options(output_options(command)))


@click.command("run")
@_job_options
@click.pass_context
def run_job(context: click.Context, /, **flags: Any) -> None:
    """Push everything that a job file names, or exactly what a lock file names.

    The same command goes on after an interruption, and does nothing when all is there.
    """
    context.exit(_run(flags))


@click.command()
@_job_options
@click.pass_context
def plan(context: click.Context, /, **flags: Any) -> None:
    """Show what a job would send: the same as run --dry-run.

    Asks the registries which blobs they have, and sends nothing.
    """
    context.exit(_run({**flags, "dry_run": True}))


def _run(flags: dict[str, Any]) -> ExitCode:
    output = Output.of(flags)
    shard = _parse_shard(flags["shard"])
    if shard is not None and flags["atomic"]:
        raise UsageError(
            "--atomic and --shard exclude each other",
            advice="a shard cannot know when the others have sent everything",
        )
    if is_lock(flags["job"]):
        return _run_lock(flags, output, shard)
    job = read_job(flags["job"], flags)
    if (referrers := referrers_of(flags)) is not None:
        job = job.with_referrers(referrers)
    options = push_options(
        flags,
        **job.options,
        registries=job.registries,
        create=job.create if flags["create_repositories"] else None,
    )
    lock = None if flags["from_lock"] is None else _lock_of(flags["from_lock"], flags)
    fingerprint = job.fingerprint() if lock is None else lock.fingerprint
    if shard is not None:
        fingerprint = f"{fingerprint} {shard}"
    task = Task(
        items=job.items if lock is None else lambda: _items_of(lock, job),
        title=job.name,
        fingerprint=fingerprint,
        strict=True,
        shard=partial(_shard_of, shard) if shard else None,
        notes=job.notes,
        whole=not flags["only"] and not flags["exclude"],
        nothing_to_do=ExitCode.NOTHING_TO_DO,
    )
    return push_task(task, options, output)


def _run_lock(flags: dict[str, Any], output: Output, shard: tuple[int, int] | None) -> ExitCode:
    """Push exactly what a lock names, to where it went."""
    if flags["settings"] or flags["from_lock"] is not None:
        raise UsageError(
            "--set and --from-lock are for job files",
            advice="leave them out: a lock is pushed as it is",
            file=str(flags["job"]),
        )
    lock = _lock_of(flags["job"], flags)
    create = RepositorySettings() if flags["create_repositories"] else None
    task = Task(
        items=lambda: lock.items,
        title=flags["job"].name,
        fingerprint=lock.fingerprint if shard is None else f"{lock.fingerprint} {shard}",
        shard=partial(_shard_of, shard) if shard else None,
        nothing_to_do=ExitCode.NOTHING_TO_DO,
    )
    return push_task(task, push_options(flags, create=create), output)


def _lock_of(path: Path, flags: dict[str, Any]) -> Lock:
    if referrers_of(flags) is not None:
        raise UsageError(
            "--referrers does not add to a lock",
            advice="leave it out: a lock names the referrers that went with its images",
            file=str(path),
        )
    if flags["only"] or flags["exclude"]:
        raise UsageError(
            "--only and --exclude do not choose from a lock",
            advice="leave them out: a lock is pushed as it is",
            file=str(path),
        )
    return read_lock(path)


def _items_of(lock: Lock, job: Job) -> list[LockItem]:
    """A lock's images, each read with the credentials of the job's source that it came from."""
    return [replace(item, access=job.access_of(item.origin.source)) for item in lock.items]


def _shard_of(shard: tuple[int, int], plan: Plan) -> Shard:
    number, count = shard
    return cut(plan, count)[number - 1]


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _SHARD.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"{text!r} is no shard", advice="write 2/5 for the second of five")
    return int(match[1]), int(match[2])
