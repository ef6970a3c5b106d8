"""Reading sources on other machines, for commands that push nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio.to_thread

from asyncpush.cli.run import run
from asyncpush.engine.log import log_event
from asyncpush.engine.options import PushOptions
from asyncpush.engine.remotes import open_remotes
from asyncpush.plan.sources import Sources
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.sources.opener import FromThread, Opener

T = TypeVar("T")


def with_remote(
    work: Callable[[Sources], T], aws: AwsOptions, *, plain_http: bool = False
) -> T | None:
    """Do work with sources that may be on other machines.

    :param work: done on a thread.
    :param aws: credentials and endpoint of ECR sources.
    :param plain_http: ask registries that are not ECR's without TLS.
    :return: what the work returned, or None if a signal ended it.
    """
    results: list[T] = []

    async def read() -> None:
        async with open_remotes(PushOptions(aws=aws, plain_http=plain_http), log_event) as remotes:
            sources = Sources(remote=FromThread(Opener(remotes.connect)))
            results.append(await anyio.to_thread.run_sync(partial(work, sources)))

    return results[0] if run(read) else None
