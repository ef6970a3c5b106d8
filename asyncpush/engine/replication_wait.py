"""Waiting until images are where their registries replicate them to."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from asyncpush.engine.events import EventSink, ImageReplicated, ReplicationAwaited, Warned
from asyncpush.engine.options import PushOptions
from asyncpush.engine.replication import ASKING_AT_ONCE, RegistryReplication, open_replication
from asyncpush.engine.results import ImageStatus, PushReport
from asyncpush.engine.work import for_each
from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    InvalidReferenceError,
    ReplicationError,
    TransientError,
)
from asyncpush.plan.reference import AnyRegistry, Registry, Repository, parse_reference
from asyncpush.replication.results import (
    DestinationResult,
    ImageReplication,
    ReplicationReport,
    ReplicationStatus,
)
from asyncpush.replication.rules import Destination, Rules, destinations_of

if TYPE_CHECKING:
    from asyncpush.registries.ecr.replication import Answer

DEFAULT_TIMEOUT = 1800.0
"""Seconds. "The majority of images replicate in less than 30 minutes" (user guide, "Private image
replication")."""


@dataclass(frozen=True, slots=True)
class AwaitedImage:
    """An image in its source repository.

    :param reference: what people call it.
    :param image: its digest or a tag.
    """

    reference: str
    repository: Repository
    image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitOptions:
    """How long to wait, and how often to ask.

    :param timeout: seconds for all images together.
    :param first: seconds between the first two rounds of asking; each wait is half as long again.
    :param longest: seconds that no wait is longer than.
    :param patience: seconds after which a replication that the registry knows nothing of is taken
        for one that does not happen.
    """

    timeout: float = DEFAULT_TIMEOUT
    first: float = 1.0
    longest: float = 30.0
    patience: float = 60.0


@dataclass(slots=True, eq=False)
class _Image:
    """An image that is waited for, and what was last heard of it."""

    awaited: AwaitedImage
    expected: tuple[Destination, ...] = ()
    digest: str | None = None
    results: dict[Destination, DestinationResult] = field(default_factory=dict)
    error: AsyncpushError | None = None

    def take(self, answer: Answer, seconds: float, *, patient: bool) -> bool:
        """Note an answer.

        :param seconds: since the waiting began.
        :param patient: whether a replication that is not known yet may still begin.
        :return: whether all destinations have ended.
        """
        self.error = None
        self.digest = answer.digest or self.digest
        for destination in self.expected:
            known = self.results.get(destination)
            if known is not None and known.seconds is not None:
                continue
            unknown = ReplicationStatus.IN_PROGRESS if patient else ReplicationStatus.NOT_STARTED
            status, code = answer.destinations.get(destination, (unknown, None))
            ended = None if status is ReplicationStatus.IN_PROGRESS else seconds
            self.results[destination] = DestinationResult(destination, status, code, ended)
        return all(result.seconds is not None for result in self.results.values())

    def result(self) -> ImageReplication:
        """What is known of it."""
        nothing = ReplicationStatus.IN_PROGRESS
        return ImageReplication(
            self.awaited.reference,
            self.digest,
            tuple(self.results.get(d, DestinationResult(d, nothing)) for d in self.expected),
            self.error,
        )


class ReplicationWait:
    """Follows images until all their destinations have them, or gave up.

    Each registry is asked at its own pace, a call for each image; images that have ended are not
    asked about again. Failures are in the report, never raised.

    :param options: credentials, endpoints, quotas and retries.
    :param emit: told of every image that has ended, of calls and of warnings.
    """

    def __init__(
        self, options: PushOptions, emit: EventSink, wait: WaitOptions | None = None
    ) -> None:
        self._options = options
        self._emit = emit
        self._wait = wait or WaitOptions()
        self._begin = 0.0
        self._replications: dict[str, RegistryReplication] = {}

    async def run(
        self, images: Iterable[AwaitedImage], report: ReplicationReport | None = None
    ) -> ReplicationReport:
        """Wait for images.

        :param report: filled as it goes, for whoever may be interrupted.
        """
        report = report or ReplicationReport()
        self._begin = time.monotonic()
        pending: defaultdict[AnyRegistry, dict[_Image, None]] = defaultdict(dict)
        # Each image once, however many names it was pushed under.
        for awaited in {(i.repository, i.image): i for i in images}.values():
            registry = awaited.repository.registry
            image = _Image(awaited, error=_not_told(registry.host, "its rules"))
            pending[registry][image] = None
        try:
            with anyio.move_on_after(self._wait.timeout):
                async with anyio.create_task_group() as tasks:
                    for registry, some in pending.items():
                        tasks.start_soon(self._registry, registry, some, report)
            report.complete = True
        finally:
            # What has not ended by now is told as it was last seen.
            for some in pending.values():
                if errors := [image.error for image in some if image.error is not None]:
                    self._emit(Warned(f"replication is unknown: {errors[0]}"))
                for image in list(some):
                    self._settle(image, some, report)
            report.seconds = time.monotonic() - self._begin
        return report

    def calls(self) -> dict[str, Mapping[str, Any]]:
        """By registry and call: how often it was made and throttled, its quota, its rate."""
        return {host: replication.calls() for host, replication in self._replications.items()}

    async def _registry(
        self, registry: AnyRegistry, pending: dict[_Image, None], report: ReplicationReport
    ) -> None:
        """Wait for the images of one registry."""
        if not isinstance(registry, Registry):
            # It has no rules; the same to whoever waits as if none covered its repositories.
            self._cover((), registry.host, pending, report)
            return
        try:
            async with open_replication(registry, self._options, self._emit) as replication:
                self._replications[registry.host] = replication
                rules = await replication.rules()
                self._cover(rules, registry.host, pending, report)
                await self._follow(replication, pending, report)
        except AsyncpushError as exc:
            self._emit(Warned(f"replication is unknown: {exc}"))
            for image in list(pending):
                image.error = exc
                self._settle(image, pending, report)

    def _cover(
        self, rules: Rules, host: str, pending: dict[_Image, None], report: ReplicationReport
    ) -> None:
        """Say what each image waits for; those that go nowhere have ended."""
        uncovered = []
        for image in pending:
            image.expected = destinations_of(rules, image.awaited.repository.name)
            image.error = _not_told(host, "how the image stands") if image.expected else None
            if not image.expected:
                uncovered.append(image)
        self._emit(ReplicationAwaited(host, len(pending) - len(uncovered), len(uncovered)))
        for image in uncovered:
            self._settle(image, pending, report)

    async def _follow(
        self,
        replication: RegistryReplication,
        pending: dict[_Image, None],
        report: ReplicationReport,
    ) -> None:
        """Ask about what has not ended, round by round, until everything has."""
        delay = self._wait.first
        denied: dict[Repository, AccessDeniedError] = {}
        while pending:
            ask = partial(self._ask, replication, pending, report, denied)
            await for_each(list(pending), min(ASKING_AT_ONCE, len(pending)), ask)
            if pending:
                await anyio.sleep(delay)
                delay = min(self._wait.longest, delay * 1.5)

    async def _ask(
        self,
        replication: RegistryReplication,
        pending: dict[_Image, None],
        report: ReplicationReport,
        denied: dict[Repository, AccessDeniedError],
        image: _Image,
    ) -> None:
        repository = image.awaited.repository
        if repository in denied:
            image.error = denied[repository]
            self._settle(image, pending, report)
            return
        try:
            answer = await replication.status(repository.name, image.awaited.image)
        except TransientError as exc:
            # Tried often enough for now; the next round asks again.
            image.error = exc
        except AsyncpushError as exc:
            if isinstance(exc, AccessDeniedError) and denied.setdefault(repository, exc) is exc:
                # Said once, however many of its images were asked about at that moment.
                self._emit(Warned(f"replication is unknown: {exc}"))
            image.error = exc
            self._settle(image, pending, report)
        else:
            seconds = time.monotonic() - self._begin
            if image.take(answer, seconds, patient=seconds < self._wait.patience):
                self._settle(image, pending, report)

    def _settle(
        self, image: _Image, pending: dict[_Image, None], report: ReplicationReport
    ) -> None:
        del pending[image]
        result = image.result()
        report.images.append(result)
        self._emit(ImageReplicated(result))


def _not_told(host: str, what: str) -> AsyncpushError:
    """Why nothing is known, until the registry has answered for the first time."""
    return ReplicationError(f"the registry has not told {what} in time", registry=host)


def pushed_images(report: PushReport) -> list[AwaitedImage]:
    """The images of a push that are in their registries, with their tags."""
    there = (ImageStatus.PUSHED, ImageStatus.EXISTS)
    return [
        AwaitedImage(image.reference, _repository(image.reference), image.digest)
        for image in report.images
        if image.status in there
    ]


def _repository(reference: str) -> Repository:
    try:
        return parse_reference(reference).repository
    except InvalidReferenceError:
        # A registry that is not ECR's is named without docker:// once it is planned.
        return parse_reference(f"docker://{reference}").repository
