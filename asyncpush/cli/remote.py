"""Reading sources on other machines, for commands that push nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio.from_thread
import anyio.to_thread
import click

from asyncpush.cli.run import run
from asyncpush.engine.log import log_event
from asyncpush.engine.options import PushOptions
from asyncpush.engine.remotes import open_remotes
from asyncpush.oci.scratch import Scratch
from asyncpush.plan.sources import Sources
from asyncpush.sources.catalog import RegistryCatalog
from asyncpush.sources.opener import FromThread, Opener

T = TypeVar("T")


def with_remote(work: Callable[[Sources], T], options: PushOptions) -> T:
    """Do work with sources that may be on other machines.

    :param work: done on a thread.
    :param options: credentials and bounds, the temporary file's among them.
    :return: what the work returned.
    :raises Abort: a signal ended it.
    """
    results: list[T] = []

    async def read() -> None:
        async with open_remotes(options, log_event) as remotes:
            scratch = Scratch(options.temp_space, anyio.from_thread.check_cancelled)
            opener = Opener(remotes.connect, remotes.s3_client, scratch)
            catalog = RegistryCatalog(remotes.connect, remotes.list_ecr)
            sources = Sources(scratch, remote=FromThread(opener), catalog=catalog)
            results.append(await anyio.to_thread.run_sync(partial(work, sources)))

    if not run(read):
        raise click.Abort
    return results[0]
