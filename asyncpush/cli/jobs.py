"""What commands that take a job file have in common: its options, and how it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from asyncpush.cli.options import parse_setting
from asyncpush.job.items import Job
from asyncpush.job.load import load_job

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
