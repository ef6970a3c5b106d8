"""The public engine: items in, events out, a report at the end."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType

import anyio

from asyncpush.engine.ahead import connecting_ahead
from asyncpush.engine.connections import Connections
from asyncpush.engine.events import (
    CallRetried,
    Event,
    EventSink,
    ImageFinished,
    ImageStarted,
    ImageVerified,
    PushEnded,
)
from asyncpush.engine.journal import NoJournal
from asyncpush.engine.log import log_event
from asyncpush.engine.options import PushOptions
from asyncpush.engine.outcome import ImagePush
from asyncpush.engine.planning import plan_items, planned
from asyncpush.engine.preview import PushPreview, preview
from asyncpush.engine.release import Release
from asyncpush.engine.remotes import Remotes
from asyncpush.engine.replication_wait import ReplicationWait, WaitOptions, pushed_images
from asyncpush.engine.repositories import Repositories
from asyncpush.engine.results import (
    ImageResult,
    ImageStatus,
    PushReport,
    TagResult,
    TagStatus,
)
from asyncpush.engine.tags import where_tags_point
from asyncpush.engine.verify import RepositoryCheck, Verdict, VerifyReport
from asyncpush.engine.work import for_each
from asyncpush.errors import AsyncpushError, UsageError
from asyncpush.oci.digest import Digest
from asyncpush.plan.graph import Plan, PlannedImage
from asyncpush.plan.items import Item
from asyncpush.plan.reference import AnyRegistry, Repository
from asyncpush.replication.results import ReplicationReport

_CLOSE_SECONDS = 2.0


class Pusher:
    """Pushes many images at once.

    Use it as an async context manager; its connections stay open until the context ends::

        async with Pusher(PushOptions(layers=32)) as pusher:
            report = await pusher.push([PushItem("layouts/app", "1234….amazonaws.com/app")])

    :param options: bounds, retries, credentials.
    :param on_event: called with every :data:`~asyncpush.engine.events.Event`, on the event loop.
    """

    def __init__(
        self, options: PushOptions | None = None, *, on_event: EventSink | None = None
    ) -> None:
        self.options = options or PushOptions()
        self.report = PushReport()
        self._on_event = on_event
        self._pushing = False
        # Whether calls count for the report, or for that of the push that is planned.
        self._reporting = self._planned = False
        self._ahead = PushReport()
        # What tags of targets pointed to when they were asked about for a plan.
        self._pointing: dict[Repository, dict[str, Digest | None]] = {}
        self._connections = Connections(self.options, self._emit)
        self._remotes = Remotes(self.options, self._emit)

    async def __aenter__(self) -> Pusher:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Closing must be let finish, also when cancelled, and must not hold a cancelled push up.
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await self._connections.aclose()
            await self._remotes.aclose()

    async def plan(
        self, items: Iterable[Item], *, skip_unchanged: bool = False
    ) -> tuple[Plan, list[ImageResult]]:
        """Read the sources and plan what goes where.

        :param items: what to push.
        :param skip_unchanged: ask the targets before an image is read from another registry, and
            do not read one that they have; without it no registry but those of sources is asked.
        :return: the plan, and a failed result for whatever cannot be pushed.
        """
        if not self._reporting:
            self._connections.begin({})
            self._remotes.begin()
            self._planned = True
        if not skip_unchanged:
            return await plan_items(items, self.options, self._remotes, emit=self._emit)
        async with connecting_ahead(self._connections.get) as ahead:
            return await plan_items(
                ahead(items), self.options, self._remotes, self._find_tags, self._emit
            )

    async def push(self, items: Iterable[Item], journal: NoJournal | None = None) -> PushReport:
        """Push items; one that fails stops nothing that does not need it.

        When this is cancelled, ``report`` holds what was done by then.

        :param items: what to push.
        :param journal: remembers what is needed to take the push up again after it was killed
            (:func:`~asyncpush.engine.journal.open_journal`).
        :return: what came of every image. Failures are in it, never raised.
        :raises UsageError: this Pusher is pushing already.
        """
        with self._alone():
            plan, rejected = await self.plan(items, skip_unchanged=True)
            return await self._push_plan(plan, rejected, journal, {})

    async def push_plan(
        self,
        plan: Plan,
        rejected: Iterable[ImageResult] = (),
        *,
        journal: NoJournal | None = None,
        sharing: Mapping[AnyRegistry, int] | None = None,
    ) -> PushReport:
        """Push what :meth:`plan` made, or a shard of it.

        :param sharing: how many machines share each registry's quotas
            (:class:`~asyncpush.plan.shards.Shard`).
        :raises UsageError: this Pusher is pushing already.
        """
        with self._alone():
            return await self._push_plan(plan, rejected, journal, sharing or {})

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One push at a time: its report is the Pusher's, and so are its counts of calls."""
        if self._pushing:
            raise UsageError(
                "this Pusher is pushing already",
                advice="wait until that push has ended, give it all items at once, or use a Pusher"
                " for each push",
            )
        self._pushing = True
        try:
            yield
        finally:
            self._pushing = False

    async def _push_plan(
        self,
        plan: Plan,
        rejected: Iterable[ImageResult],
        journal: NoJournal | None,
        sharing: Mapping[AnyRegistry, int],
    ) -> PushReport:
        # What planning has asked counts as well.
        report, self._ahead = self._ahead, PushReport()
        self.report = report
        begin = time.monotonic()
        self._connections.begin(sharing, count_anew=not self._planned)
        self._reporting, self._planned = True, False
        try:
            rejected = list(rejected)
            self._emit(planned(plan, len(rejected), atomic=self.options.atomic))
            for result in (*rejected, *map(_unchanged, plan.unchanged)):
                self._finish(result)
            pointing, self._pointing = self._pointing, {}
            repositories = Repositories(plan, self._connections, journal or NoJournal(), pointing)
            if self.options.atomic:
                await self._release(plan, repositories, possible=not rejected)
            else:
                work = partial(self._push_image, plan, repositories)
                await self._each_registry(plan.images(), work, repositories)
            report.complete = True
        finally:
            report.seconds = time.monotonic() - begin
            report.calls = self._connections.calls()
            for host, calls in self._remotes.calls().items():
                report.calls.setdefault(host, {}).update(calls)
            report.rate_limits = self._remotes.rate_limits()
            self._emit(PushEnded(report))
            self._reporting = False
        return report

    async def preview(self, items: Iterable[Item]) -> PushPreview:
        """What :meth:`push` would send: plans, and asks the registries which blobs they have.

        :param items: what would be pushed.
        """
        return await self.preview_plan(*await self.plan(items))

    async def preview_plan(self, plan: Plan, rejected: Iterable[ImageResult] = ()) -> PushPreview:
        """What :meth:`push_plan` would send."""
        repositories = Repositories(plan, self._connections, NoJournal(), create=False)
        answers: dict[PlannedImage, dict[Digest, bool] | AsyncpushError] = {}
        unchanged: set[PlannedImage] = set()

        async def ask(image: PlannedImage) -> None:
            try:
                repository = await repositories.get(image.repository)
                answers[image] = await repository.available(image)
                if await repository.is_unchanged(image):
                    unchanged.add(image)
            except AsyncpushError as exc:
                answers[image] = exc

        await self._each_registry(plan.images(), ask)
        mounted: set[tuple[Repository, Digest]] = set()
        for registry in {repository.registry for repository in plan.repositories}:
            # Where it cannot be reached, the images tell.
            with contextlib.suppress(AsyncpushError):
                mounted |= await repositories.foreseen(registry)
                mounted |= await repositories.promoted(registry)
        found = preview(plan, rejected, answers, self.options, mounted, unchanged)
        return replace(found, rate_limits=self._remotes.rate_limits())

    async def verify(
        self,
        plan: Plan,
        rejected: Iterable[ImageResult] = (),
        *,
        deep: bool = False,
        report: VerifyReport | None = None,
    ) -> VerifyReport:
        """Prove that the registries hold what :meth:`plan` made of the sources.

        :param rejected: what could not be planned; it counts as a problem.
        :param deep: read every blob back and hash it.
        :param report: filled as it goes, for whoever may be interrupted.
        """
        report = report or VerifyReport()
        report.deep = deep
        checks: dict[Repository, RepositoryCheck] = {}

        def note(verdict: Verdict) -> None:
            report.verdicts.append(verdict)
            self._emit(
                ImageVerified(verdict.name, verdict.reference, verdict.digest, verdict.problems)
            )

        async def look(image: PlannedImage) -> None:
            try:
                context = await self._connections.get(image.repository.registry)
            except AsyncpushError as exc:
                note(Verdict(image.name, image.reference, image.root, (exc,)))
                return
            check = checks.get(image.repository)
            if check is None:
                graph = plan.repositories[image.repository]
                check = checks[image.repository] = RepositoryCheck(graph, context, deep=deep)
            note(await check.check(image))

        for result in rejected:
            if result.error is not None:
                note(Verdict(result.name, result.reference, result.digest, (result.error,)))
        await self._each_registry(plan.images(), look)
        report.complete = True
        return report

    async def wait_for_replication(
        self, wait: WaitOptions | None = None, report: ReplicationReport | None = None
    ) -> ReplicationReport:
        """Wait until what the last push left in its registries is where their rules copy it to.

        Takes ecr:DescribeRegistry and ecr:DescribeImageReplicationStatus; where these are not
        granted, the images' replication is unknown, and a warning says so.

        :param wait: how long to wait, and how often to ask.
        :param report: filled as it goes, for whoever may be interrupted.
        """
        waiting = ReplicationWait(self.options, self._emit, wait)
        try:
            return await waiting.run(pushed_images(self.report), report)
        finally:
            for host, calls in waiting.calls().items():
                self.report.calls.setdefault(host, {}).update(calls)

    async def _find_tags(self, repository: Repository, tags: Sequence[str]) -> dict[str, Digest]:
        """What a target's tags point to, as far as it says; a push can do without."""
        # A tag says nothing of foreign layers.
        if self.options.include_foreign:
            return {}
        try:
            context = await self._connections.get(repository.registry)
        except AsyncpushError:
            return {}  # Whoever is pushed there will tell.
        found = await where_tags_point(context, repository, tags)
        # A push that follows need not ask again.
        self._pointing.setdefault(repository, {}).update(found)
        return {tag: digest for tag, digest in found.items() if digest is not None}

    async def _push_image(
        self, plan: Plan, repositories: Repositories, image: PlannedImage
    ) -> None:
        self._emit(_started(plan, image))
        push = self._image_push(repositories, image)
        await push.run(lambda repository: repository.push(image, push.tally))
        self._finish(push.result())

    async def _release(self, plan: Plan, repositories: Repositories, *, possible: bool) -> None:
        pushes = [self._image_push(repositories, image) for image in plan.images()]
        started: set[int] = set()

        async def each(
            some: Sequence[ImagePush], work: Callable[[ImagePush], Awaitable[None]]
        ) -> None:
            by_image = {id(push.image): push for push in some}

            async def one(image: PlannedImage) -> None:
                if id(image) not in started:
                    started.add(id(image))
                    self._emit(_started(plan, image))
                await work(by_image[id(image)])

            # Blobs go in the first phase alone, in which all images take part.
            sharing = repositories if len(started) < len(pushes) else None
            await self._each_registry([push.image for push in some], one, sharing)

        release = Release(pushes, each, lambda push: self._finish(push.result()), self._emit)
        await release.run(possible=possible, rollback=self.options.rollback)

    def _image_push(self, repositories: Repositories, image: PlannedImage) -> ImagePush:
        opened = partial(repositories.get, image.repository)
        return ImagePush(image, opened, self.options.on_refused == "warn")

    async def _each_registry(
        self,
        images: Iterable[PlannedImage],
        work: Callable[[PlannedImage], Awaitable[None]],
        repositories: Repositories | None = None,
    ) -> None:
        """Do work on images, those of each registry in their order and at their own speed.

        Images that go to several registries have their turns there at about the same time, so that
        their blobs are read from disk once, and from the page cache after that.

        :param repositories: tells the order in which they share most, for work that brings blobs;
            None keeps the images' own.
        """
        queues: defaultdict[AnyRegistry, list[PlannedImage]] = defaultdict(list)
        for image in images:
            queues[image.repository.registry].append(image)

        async def turn(image: PlannedImage) -> None:
            try:
                await work(image)
            finally:
                if repositories is not None:
                    repositories.ended(image)

        async def run(registry: AnyRegistry, queue: Sequence[PlannedImage]) -> None:
            if repositories is not None:
                queue = await repositories.turns(registry, queue)
            await for_each(queue, min(self.options.images, len(queue)), turn)

        async with anyio.create_task_group() as tasks:
            for registry, queue in queues.items():
                tasks.start_soon(run, registry, queue)

    def _finish(self, result: ImageResult) -> None:
        self.report.images.append(result)
        self.report.bytes_sent += result.bytes_sent
        self.report.bytes_mounted += result.bytes_mounted
        self._emit(ImageFinished(result))

    def _emit(self, event: Event) -> None:
        if isinstance(event, CallRetried):
            report = self.report if self._reporting else self._ahead
            report.throttles += event.throttled
            report.retries += not event.throttled
        log_event(event)
        if self._on_event is not None:
            self._on_event(event)


def _unchanged(image: PlannedImage) -> ImageResult:
    """The result of an image whose repository has it already."""
    return ImageResult(
        name=image.name,
        reference=image.reference,
        digest=image.root,
        status=ImageStatus.EXISTS,
        tags=tuple(TagResult(tag, TagStatus.UNCHANGED) for tag in image.tags),
        origin=image.origin,
    )


def _started(plan: Plan, image: PlannedImage) -> ImageStarted:
    blobs = plan.repositories[image.repository].blobs_of(image)
    sizes: dict[str, int] = {digest: blob.size for digest, blob in blobs.items()}
    return ImageStarted(image.reference, image.name, str(image.repository), sizes, image.manifests)
