"""The public engine: items in, events out, a report at the end."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from importlib import metadata
from types import TracebackType

import anyio
import anyio.to_thread

from asyncpush.engine.context import Context, Limits
from asyncpush.engine.events import (
    CallRetried,
    Event,
    EventSink,
    ImageFinished,
    ImageStarted,
    Warned,
)
from asyncpush.engine.journal import NoJournal
from asyncpush.engine.options import PushOptions
from asyncpush.engine.pace import Paces
from asyncpush.engine.planning import plan_items, planned
from asyncpush.engine.preview import PushPreview, preview
from asyncpush.engine.repository import RepositoryPush, Tally
from asyncpush.engine.results import ImageResult, ImageStatus, PushReport
from asyncpush.engine.retry import Retrier
from asyncpush.engine.work import ByteLimiter, Once, for_each
from asyncpush.errors import AccessDeniedError, AsyncpushError, RefusedError
from asyncpush.oci.digest import Digest
from asyncpush.plan.graph import Plan, PlannedImage
from asyncpush.plan.items import PushItem
from asyncpush.plan.limits import ECR
from asyncpush.plan.reference import Registry, Repository
from asyncpush.registries.ecr.transport import open_transport

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
        self._stack = contextlib.AsyncExitStack()
        options = self.options
        self._limits = Limits(
            layers=anyio.CapacityLimiter(options.layers),
            parts=anyio.CapacityLimiter(options.parts),
            memory=ByteLimiter(options.memory),
        )
        self._retrier = Retrier(options.attempts, options.retry_base, options.retry_cap, self._emit)
        # Hashing is the one piece of work that fills a processor.
        self._hashing = anyio.CapacityLimiter(max(2, os.cpu_count() or 2))
        self._contexts: Once[Registry, Context] = Once()
        self._paces: dict[str, Paces] = {}
        self._user_agent = f"asyncpush/{metadata.version('asyncpush')}"

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
            await self._stack.aclose()

    async def plan(self, items: Iterable[PushItem]) -> tuple[Plan, list[ImageResult]]:
        """Read the sources and plan what goes where; asks no registry.

        :param items: what to push.
        :return: the plan, and a failed result for whatever cannot be pushed.
        """
        return await plan_items(items, self.options)

    async def push(self, items: Iterable[PushItem], journal: NoJournal | None = None) -> PushReport:
        """Push items; one that fails stops nothing that does not need it.

        When this is cancelled, ``report`` holds what was done by then.

        :param items: what to push.
        :param journal: remembers what is needed to take the push up again after it was killed
            (:func:`~asyncpush.engine.journal.open_journal`).
        :return: what came of every image. Failures are in it, never raised.
        """
        return await self.push_plan(*await self.plan(items), journal=journal)

    async def push_plan(
        self,
        plan: Plan,
        rejected: Iterable[ImageResult] = (),
        *,
        journal: NoJournal | None = None,
    ) -> PushReport:
        """Push what :meth:`plan` made."""
        report = self.report = PushReport()
        begin = time.monotonic()
        try:
            images = list(plan.images())
            rejected = list(rejected)
            self._emit(planned(plan, len(images) + len(rejected)))
            for result in rejected:
                self._finish(result)
            pushes = _RepositoryPushes(plan, self._context, journal or NoJournal())
            self._contexts.forgive()
            await for_each(
                images, min(self.options.images, len(images)), partial(self._push_image, pushes)
            )
            report.complete = True
        finally:
            report.seconds = time.monotonic() - begin
            report.calls = {host: paces.to_dict() for host, paces in self._paces.items()}
        return report

    async def preview(self, items: Iterable[PushItem]) -> PushPreview:
        """What :meth:`push` would send: plans, and asks the registries which blobs they have.

        :param items: what would be pushed.
        """
        plan, rejected = await self.plan(items)
        pushes = _RepositoryPushes(plan, self._context, NoJournal())
        answers: dict[PlannedImage, dict[Digest, bool] | AsyncpushError] = {}

        async def ask(image: PlannedImage) -> None:
            try:
                answers[image] = await (await pushes.get(image.repository)).available(image)
            except AsyncpushError as exc:
                answers[image] = exc

        await for_each(plan.images(), self.options.images, ask)
        return preview(plan, rejected, answers, self.options.part_size or ECR.part_bytes)

    async def _push_image(self, pushes: _RepositoryPushes, image: PlannedImage) -> None:
        begin = time.monotonic()
        tally = Tally()
        error: AsyncpushError | None = None
        status = ImageStatus.PUSHED
        self._emit(pushes.started(image))
        try:
            repository = await pushes.get(image.repository)
            await repository.push(image, tally)
            if not tally.blobs_sent and not tally.manifests_sent:
                status = ImageStatus.EXISTS
        except AsyncpushError as exc:
            error = exc.at(repository=str(image.repository))
            passes = isinstance(exc, RefusedError) and self.options.on_refused == "warn"
            status = ImageStatus.REFUSED if passes else ImageStatus.FAILED
        self._finish(
            ImageResult(
                name=image.name,
                reference=image.reference,
                digest=image.root,
                status=status,
                bytes_sent=tally.bytes_sent,
                blobs_sent=tally.blobs_sent,
                blobs_existing=tally.blobs_existing,
                seconds=time.monotonic() - begin,
                error=error,
            )
        )

    async def _context(self, registry: Registry) -> Context:
        context, _ = await self._contexts.do(registry, partial(self._connect, registry))
        return context

    async def _connect(self, registry: Registry) -> Context:
        """Open and authorize one registry's transport, before any byte goes there."""
        transport = await self._stack.enter_async_context(
            open_transport(
                registry,
                self.options.aws,
                connections=self.options.connections,
                hashing=self._hashing,
                user_agent=self._user_agent,
            )
        )
        paces = Paces(self.options.quotas)
        context = Context(transport, self.options, self._limits, self._retrier, paces, self._emit)
        self._paces[registry.host] = paces
        try:
            await context.call("GetAuthorizationToken", registry.host, transport.authorize)
        except AccessDeniedError as exc:
            # The native API needs no token, so this alone stops nothing.
            self._emit(Warned(str(exc)))
        return context

    def _finish(self, result: ImageResult) -> None:
        self.report.images.append(result)
        self.report.bytes_sent += result.bytes_sent
        self._emit(ImageFinished(result))

    def _emit(self, event: Event) -> None:
        if isinstance(event, CallRetried):
            self.report.throttles += event.throttled
            self.report.retries += not event.throttled
        if self._on_event is not None:
            self._on_event(event)


class _RepositoryPushes:
    """The repositories of one push, opened when their first image has its turn."""

    def __init__(
        self,
        plan: Plan,
        context_of: Callable[[Registry], Awaitable[Context]],
        journal: NoJournal,
    ) -> None:
        self._plan = plan
        self._context_of = context_of
        self._journal = journal
        self._opened: dict[Repository, RepositoryPush] = {}

    async def get(self, repository: Repository) -> RepositoryPush:
        context = await self._context_of(repository.registry)
        push = self._opened.get(repository)
        if push is None:
            push = RepositoryPush(self._plan.repositories[repository], context, self._journal)
            self._opened[repository] = push
        return push

    def started(self, image: PlannedImage) -> ImageStarted:
        blobs = self._plan.repositories[image.repository].blobs_of(image)
        sizes: dict[str, int] = {digest: blob.size for digest, blob in blobs.items()}
        return ImageStarted(image.reference, image.name, str(image.repository), sizes)
