"""From items to a plan: on a thread, a few entries at a time; what fails becomes a result."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections import deque
from collections.abc import (
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import anyio.from_thread
import anyio.to_thread

from asyncpush.engine.events import EventSink, PushPlanned, RegistryTotals, Warned
from asyncpush.engine.log import log_event
from asyncpush.engine.options import PushOptions
from asyncpush.engine.referring import Referring
from asyncpush.engine.remotes import Remotes, open_remotes
from asyncpush.engine.results import ImageResult, ImageStatus
from asyncpush.engine.work import for_each
from asyncpush.errors import AsyncpushError, UsageError, unforeseen
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import Content
from asyncpush.oci.remote import RemoteContent
from asyncpush.oci.scratch import Scratch
from asyncpush.plan.graph import Plan, PlannedImage
from asyncpush.plan.items import Item, ResolvedEntry, SettledEntry
from asyncpush.plan.listing import FindTags
from asyncpush.plan.planner import Planner
from asyncpush.plan.reference import Repository, without_password
from asyncpush.plan.referrers import ReferrerEntry
from asyncpush.plan.sources import Sources
from asyncpush.sources.bridge import on_loop
from asyncpush.sources.catalog import RegistryCatalog
from asyncpush.sources.opener import FromThread, Opener

# Entries that one trip to a thread plans: enough to make the trip cheap, few enough to cancel soon.
_CHUNK = 64
# Sources that are opened, and entries whose manifests are fetched, before the first of them is
# planned, where that means to ask other machines.
_OPENED_AHEAD = 256
_FETCHED_AT_ONCE = 1024
# Repositories of targets that are asked what their tags point to.
_ASKED_AT_ONCE = 32

_log = logging.getLogger("asyncpush.push")

A = TypeVar("A")
B = TypeVar("B")


AskTargets = Callable[[Repository, Sequence[str]], Coroutine[Any, Any, Mapping[str, Digest]]]
"""Asks what tags of a target point to, less those that do not exist or may not be asked for."""


async def plan_items(
    items: Iterable[Item],
    options: PushOptions,
    remotes: Remotes | None = None,
    find_tags: AskTargets | None = None,
    emit: EventSink = log_event,
) -> tuple[Plan, list[ImageResult]]:
    """Plan items.

    :param remotes: the registries that images come from; None connects them for this plan alone.
    :param find_tags: asked before manifests are fetched from other machines: those of images whose
        tags all point to them need not be; None fetches all.
    :param emit: told of referrers that are left behind.
    :return: the plan, and a failed result for whatever cannot be pushed.
    """
    if remotes is None:
        async with open_remotes(options, log_event) as own:
            return await plan_items(items, options, own, find_tags, emit)
    planner = Planner(include_foreign=options.include_foreign, part_size=options.part_size)
    rejected: list[ImageResult] = []
    warnings: list[str] = []
    # Starts no thread before there is a layer to compress.
    pool = ThreadPoolExecutor(os.cpu_count() or 2, thread_name_prefix="asyncpush-compress")
    try:
        scratch = Scratch(
            options.temp_space, anyio.from_thread.check_cancelled, partial(_side_by_side, pool)
        )
        opener = Opener(
            remotes.connect,
            remotes.s3_client,
            scratch,
            compress_layers=options.compress_layers,
        )
        catalog = RegistryCatalog(remotes.connect, remotes.list_ecr)
        sources = Sources(
            scratch,
            compress_layers=options.compress_layers,
            remote=FromThread(opener),
            catalog=catalog,
            find_tags=find_tags and _from_thread(find_tags),
        )
        referring = Referring(planner, sources, warnings.append)
        steps = _Steps(planner, rejected, sources, find_tags, referring).run(items)
        while await anyio.to_thread.run_sync(_advance, steps):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    for text in dict.fromkeys(warnings):
        emit(Warned(text))
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
        images=rejected
        + len(plan.unchanged)
        + sum(totals.images for totals in registries.values()),
        repositories=len(plan.repositories),
        manifests=sum(len(r.manifests) for r in repositories),
        blobs=sum(totals.blobs for totals in registries.values()),
        bytes=sum(totals.bytes for totals in registries.values()),
        registries=registries,
    )


class _Steps:
    """Plans entries, some at a time; what fails goes to ``rejected``."""

    def __init__(
        self,
        planner: Planner,
        rejected: list[ImageResult],
        sources: Sources,
        find_tags: AskTargets | None,
        referring: Referring,
    ) -> None:
        self._planner = planner
        self._rejected = rejected
        self._sources = sources
        self._find_tags = find_tags
        self._referring = referring

    def run(self, items: Iterable[Item]) -> Iterator[None]:
        """Plan items entry by entry, yielding behind each."""
        waiting: list[ResolvedEntry] = []
        for resolved in _resolve(items, self._rejected, self._sources):
            if isinstance(resolved, SettledEntry):
                self._settle(resolved)
            elif resolved is not None:
                waiting.append(resolved)
            # What is on this machine is planned at once; other machines are asked for many at a
            # time.
            remote = any(isinstance(entry.layout, RemoteContent) for entry in waiting[:1])
            if len(waiting) >= (_FETCHED_AT_ONCE if remote else 1):
                yield from self._plan(waiting)
                waiting.clear()
            elif resolved is None:
                yield
        yield from self._plan(waiting)

    def _settle(self, entry: SettledEntry) -> None:
        try:
            self._planner.leave(entry.image)
        except UsageError as exc:
            self._rejected.append(
                ImageResult(entry.name, entry.target, entry.digest, ImageStatus.FAILED, error=exc)
            )

    def _plan(self, waiting: Sequence[ResolvedEntry]) -> Iterator[None]:
        images = self._referring.images(waiting)
        changed = self._changed(images)
        _fetch(changed, self._sources)
        failed = yield from self._plan_each(changed)
        subjects = [entry for entry in waiting if id(entry) not in failed]
        referrers = list(self._referring.behind(subjects, self._rejected))
        changed = self._changed(referrers)
        # What they refer to is planned, or there.
        self._sources.prefetch([(e.layout, [e.entry]) for e in changed], nested=False)
        yield from self._plan_each(changed)

    def _changed(self, entries: Sequence[ResolvedEntry]) -> Sequence[ResolvedEntry]:
        if self._find_tags is None:
            return entries
        return _leave_unchanged(entries, self._planner, self._find_tags)

    def _plan_each(self, entries: Sequence[ResolvedEntry]) -> Generator[None, None, set[int]]:
        """Plan entries; the ids of those that failed."""
        failed = set()
        for entry in entries:
            if (result := _plan_entry(entry, self._planner)) is not None:
                self._rejected.append(result)
                failed.add(id(entry))
            yield
        return failed


def _resolve(
    items: Iterable[Item], rejected: list[ImageResult], sources: Sources
) -> Iterator[ResolvedEntry | None]:
    """The entries of all items; None behind an item whose failure is in ``rejected``."""
    pending = iter(items)
    while ahead := list(itertools.islice(pending, _OPENED_AHEAD)):
        sources.open_ahead([item.opens for item in ahead])
        for item in ahead:
            problems: dict[str, AsyncpushError] = {}
            try:
                for resolved in item.resolve(sources):
                    if isinstance(resolved.layout, RemoteContent):
                        problems.update(resolved.layout.problems)
                    yield resolved
            except AsyncpushError as exc:
                rejected.append(_rejected(item, item.label, exc))
                yield None
            except Exception as exc:  # noqa: BLE001 - the last net, as below
                _log.debug("%s: not foreseen", item.label, exc_info=True)
                rejected.append(_rejected(item, item.label, unforeseen(exc)))
                yield None
            for name, problem in problems.items():
                rejected.append(_rejected(item, name, problem))
                yield None


def _rejected(item: Item, name: str, error: AsyncpushError) -> ImageResult:
    return ImageResult(name, without_password(item.target), "", ImageStatus.FAILED, error=error)


def _from_thread(find_tags: AskTargets) -> FindTags:
    def find(repository: Repository, tags: Sequence[str]) -> Mapping[str, Digest]:
        return on_loop(partial(find_tags, repository, tags))

    return find


def _leave_unchanged(
    waiting: Sequence[ResolvedEntry], planner: Planner, find_tags: AskTargets
) -> list[ResolvedEntry]:
    """Note the entries of other machines that need not be read; the others.

    What is on this machine is read anyway: it may have blobs that other repositories mount.
    """
    images: dict[PlannedImage, ResolvedEntry] = {}
    for entry in waiting:
        if not isinstance(entry.layout, RemoteContent) or entry.narrowed:
            continue
        # One whose target cannot be made out fails when it is planned.
        with contextlib.suppress(AsyncpushError):
            repository, tags = entry.destination()
            if tags:
                root = entry.entry.digest
                image = PlannedImage(entry.name, repository, root, tags, (), entry.origin)
                images[image] = entry
    unchanged = on_loop(partial(_unchanged, list(images), find_tags)) if images else ()
    left = set()
    for image in unchanged:
        with contextlib.suppress(UsageError):  # as above
            planner.leave(image)
            left.add(id(images[image]))
    return [entry for entry in waiting if id(entry) not in left]


async def _unchanged(images: Sequence[PlannedImage], find_tags: AskTargets) -> set[PlannedImage]:
    """Those of some images that their repositories have, all of their tags included."""
    wanted: dict[Repository, list[PlannedImage]] = {}
    for image in images:
        wanted.setdefault(image.repository, []).append(image)
    found: set[PlannedImage] = set()

    async def ask(repository: Repository) -> None:
        tags = dict.fromkeys(tag for image in wanted[repository] for tag in image.tags)
        where = await find_tags(repository, list(tags))
        found.update(
            image
            for image in wanted[repository]
            if all(where.get(tag) == image.root for tag in image.tags)
        )

    await for_each(wanted, min(_ASKED_AT_ONCE, len(wanted)), ask)
    return found


def _fetch(waiting: Sequence[ResolvedEntry], sources: Sources) -> None:
    """Fetch the manifests of entries, unless they are on this machine."""
    if not any(isinstance(entry.layout, RemoteContent) for entry in waiting):
        return
    narrowed = [(entry.layout, [entry.entry]) for entry in waiting if entry.narrowed]
    sources.prefetch(narrowed, nested=False)
    chosen: list[tuple[Content, list[Descriptor]]] = []
    for entry in waiting:
        # One that cannot be chosen fails when it is planned.
        with contextlib.suppress(AsyncpushError):
            chosen.append((entry.layout, [entry.chosen()]))
    sources.prefetch(chosen)


def _plan_entry(resolved: ResolvedEntry, planner: Planner) -> ImageResult | None:
    """Plan one entry; a failed result if it cannot be pushed."""
    reference, digest = resolved.target, resolved.digest
    try:
        chosen = resolved.chosen()
        digest = str(chosen.digest)
        repository, tags = resolved.destination()
        reference = PlannedImage(resolved.name, repository, chosen.digest, tags).reference
        planner.add(
            resolved.layout,
            chosen,
            repository,
            tags,
            resolved.origin,
            follow_subject=not isinstance(resolved, ReferrerEntry),
        )
    except AsyncpushError as exc:
        error = exc
    except Exception as exc:  # noqa: BLE001 - the last net: one image fails, the others go on
        _log.debug("%s: not foreseen", reference, exc_info=True)
        error = unforeseen(exc)
    else:
        return None
    return ImageResult(resolved.name, reference, digest, ImageStatus.FAILED, error=error)


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
