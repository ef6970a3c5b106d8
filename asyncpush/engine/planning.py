"""From items to a plan: on a thread, a few entries at a time; what fails becomes a result."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import anyio.from_thread
import anyio.to_thread

from asyncpush.engine.events import PushPlanned, RegistryTotals
from asyncpush.engine.options import PushOptions
from asyncpush.engine.results import ImageResult, ImageStatus
from asyncpush.errors import AsyncpushError
from asyncpush.oci.scratch import Scratch
from asyncpush.plan.graph import Plan, PlannedImage, Planner
from asyncpush.plan.items import Item, ResolvedEntry
from asyncpush.plan.reference import without_password
from asyncpush.plan.sources import Sources

# Entries that one trip to a thread plans: enough to make the trip cheap, few enough to cancel soon.
_CHUNK = 64

A = TypeVar("A")
B = TypeVar("B")


async def plan_items(items: Iterable[Item], options: PushOptions) -> tuple[Plan, list[ImageResult]]:
    """Plan items.

    :return: the plan, and a failed result for whatever cannot be pushed.
    """
    planner = Planner(include_foreign=options.include_foreign, part_size=options.part_size)
    rejected: list[ImageResult] = []
    # Starts no thread before there is a layer to compress.
    pool = ThreadPoolExecutor(os.cpu_count() or 2, thread_name_prefix="asyncpush-compress")
    try:
        scratch = Scratch(
            options.temp_space, anyio.from_thread.check_cancelled, partial(_side_by_side, pool)
        )
        sources = Sources(scratch, compress_layers=options.compress_layers)
        steps = _plan_items(items, planner, rejected, sources)
        while await anyio.to_thread.run_sync(_advance, steps):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return planner.plan, rejected


def planned(plan: Plan, rejected: int, *, atomic: bool) -> PushPlanned:
    """The event that sums a plan up.

    :param rejected: how many images cannot be pushed.
    :param atomic: whether everything is committed by digest before tags move.
    """
    repositories = plan.repositories.values()
    registries: dict[str, RegistryTotals] = {}
    for graph in repositories:
        host = graph.repository.registry.host
        before = registries.get(host, RegistryTotals())
        registries[host] = RegistryTotals(
            images=before.images + len(graph.images),
            blobs=before.blobs + len(graph.blobs),
            bytes=before.bytes + sum(blob.size for blob in graph.blobs.values()),
            commits=before.commits + graph.commits(atomic=atomic),
        )
    return PushPlanned(
        images=rejected + sum(totals.images for totals in registries.values()),
        repositories=len(plan.repositories),
        manifests=sum(len(r.manifests) for r in repositories),
        blobs=sum(totals.blobs for totals in registries.values()),
        bytes=sum(totals.bytes for totals in registries.values()),
        registries=registries,
    )


def _plan_items(
    items: Iterable[Item], planner: Planner, rejected: list[ImageResult], sources: Sources
) -> Iterator[None]:
    """Plan items entry by entry, yielding behind each; failures go to ``rejected``."""
    for item in items:
        try:
            for resolved in item.resolve(sources):
                if (result := _plan_entry(resolved, planner)) is not None:
                    rejected.append(result)
                yield
        except AsyncpushError as exc:
            target = without_password(item.target)
            rejected.append(ImageResult(item.label, target, "", ImageStatus.FAILED, error=exc))
            yield


def _plan_entry(resolved: ResolvedEntry, planner: Planner) -> ImageResult | None:
    """Plan one entry; a failed result if it cannot be pushed."""
    reference, digest = resolved.target, resolved.digest
    try:
        chosen = resolved.chosen()
        digest = str(chosen.digest)
        repository, tags = resolved.destination()
        reference = PlannedImage(resolved.name, repository, chosen.digest, tags).reference
        planner.add(resolved.layout, chosen, repository, tags)
    except AsyncpushError as exc:
        return ImageResult(resolved.name, reference, digest, ImageStatus.FAILED, error=exc)
    return None


def _side_by_side(
    pool: ThreadPoolExecutor, work: Callable[[A], B], items: Iterable[A], /
) -> Iterator[B]:
    """Work on items on threads; results in the order of the items, a few of them ahead."""
    ahead = 2 * (os.cpu_count() or 2)
    running: deque[Future[B]] = deque()
    for item in items:
        running.append(pool.submit(work, item))
        if len(running) >= ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _advance(steps: Iterator[None]) -> bool:
    """Take some steps; False when there are none left."""
    return sum(1 for _ in itertools.islice(steps, _CHUNK)) == _CHUNK
