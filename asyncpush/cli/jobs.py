"""What commands that take a job file have in common: its options, and how it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any

import click

from asyncpush.cli.options import parse_setting
from asyncpush.errors import UsageError
from asyncpush.job.items import Job
from asyncpush.job.load import load_job
from asyncpush.plan.graph import Plan

_ENDINGS = (".yaml", ".yml", ".json")


def is_job(argument: str) -> bool:
    """Whether an argument names a job file, and no source or target."""
    return argument.endswith(_ENDINGS)


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose of a job; :func:`read_job` reads them."""
    options = [
        click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="As for run."),
        click.option("--only", multiple=True, metavar="PATTERN", help="As for run."),
        click.option("--exclude", multiple=True, metavar="PATTERN", help="As for run."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def read_job(path: str | Path, flags: Mapping[str, Any]) -> Job:
    """Read a job file, and choose what of it is asked for.

    :param flags: the command's parameters.
    :raises JobError: it holds mistakes.
    """
    settings = dict(map(parse_setting, flags["settings"]))
    return load_job(Path(path), settings, os.environ).select(flags["only"], flags["exclude"])


def require_images(plan: Plan, rejected: Sized, *, chosen: bool) -> None:
    """Refuse a choice of a job that leaves nothing: a typo, which looks like a job that is done.

    :param plan: what ``--only`` and ``--exclude`` leave of the job.
    :param rejected: what cannot be planned, which has an error of its own.
    :param chosen: whether there is such a choice.
    :raises UsageError: they leave no image.
    """
    if chosen and not plan.repositories and not rejected:
        raise UsageError(
            "no image of the job is chosen by --only and --exclude",
            advice="patterns are matched, whole and with case, against directory, DIRECTORY:ENTRY,"
            " entry, repository, registry and reference; asyncpush plan JOB.yaml lists them",
        )
