"""Reading sources on other machines, for commands that push nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio.to_thread
import click

from asyncpush.cli.run import run
from asyncpush.engine.log import log_event
from asyncpush.engine.options import PushOptions
from asyncpush.engine.remotes import open_remotes
from asyncpush.plan.sources import Sources
from asyncpush.sources.opener import FromThread, Opener

T = TypeVar("T")


def with_remote(work: Callable[[Sources], T], options: PushOptions) -> T:
    """Do work with sources that may be on other machines.

    :param work: done on a thread.
    :param options: credentials and bounds.
    :return: what the work returned.
    :raises Abort: a signal ended it.
    """
    results: list[T] = []

    async def read() -> None:
        async with open_remotes(options, log_event) as remotes:
            sources = Sources(remote=FromThread(Opener(remotes.connect)))
            results.append(await anyio.to_thread.run_sync(partial(work, sources)))

    if not run(read):
        raise click.Abort
    return results[0]
