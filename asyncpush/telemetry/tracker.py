"""Where a push stands, kept up from its events alone; what shows it is elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from asyncpush.engine.events import (
    BlobExists,
    BlobMounted,
    CallEnded,
    CallRetried,
    Event,
    ImageFinished,
    ImageReplicated,
    ImageStaged,
    ImageStarted,
    ImageVerified,
    LayerComplete,
    LayerStarted,
    ManifestCommitted,
    PartSent,
    PushPlanned,
    ReplicationAwaited,
    TagsMoving,
    UploadResumed,
    host_of,
    repository_of,
)
from asyncpush.engine.results import ImageResult, ImageStatus
from asyncpush.replication.results import ReplicationStatus
from asyncpush.telemetry.speed import Speed

_FAILURES = 3
_COMMIT = "PutImage"


@dataclass(slots=True)
class ActiveImage:
    """An image whose turn has come.

    :param pending: its blobs that were not all there when it was looked at last.
    :param arrived: bytes of the others.
    """

    reference: str
    repository: str
    since: float
    pending: dict[str, int]
    total: int
    arrived: int = 0
    begun_with: int = 0
    last: int = 0
    moved: float = 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How an active image stands.

    :param there: bytes of it that the repository has.
    :param total: all its bytes, shared blobs included.
    :param rate: bytes a second since its turn.
    :param seconds: since its turn.
    :param idle: seconds since a byte of it was acknowledged, as far as it was looked at.
    """

    there: int
    total: int
    rate: float
    seconds: float
    idle: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a push will be done.

    :param seconds: from now.
    :param pace: commits a second, if they are what takes so long.
    """

    seconds: float
    pace: float | None


@dataclass(slots=True)
class CallState:
    """One call at one registry: how often it was throttled, and what it is paced at now."""

    throttles: int = 0
    rate: float = 0.0
    quota: float = 0.0

    @property
    def slowed(self) -> bool:
        """Whether it runs below its quota because it was throttled."""
        return self.throttles > 0 and self.rate < self.quota


@dataclass(slots=True)
class RegistryState:
    """One registry's part of a push; ``number`` tells it apart from the others, from 1 on.

    ``there`` of its ``bytes`` exist or were acknowledged, ``sent`` went over the wire, and ``lost``
    will not come, because the images that needed them failed.
    """

    host: str
    number: int
    images: int = 0
    ended: int = 0
    bytes: int = 0
    there: int = 0
    lost: int = 0
    sent: int = 0
    commits: int = 0
    committed: int = 0
    calls: dict[str, CallState] = field(default_factory=dict)
    sending: Speed = field(default_factory=Speed)
    arriving: Speed = field(default_factory=Speed)
    committing: Speed = field(default_factory=Speed)

    @property
    def commits_left(self) -> int:
        """Manifests and tags that are still to be committed, about.

        Those that an earlier run committed are not told of one by one, so images that have ended
        count for theirs.
        """
        if not self.images:
            return 0
        by_images = self.commits * (self.images - self.ended) / self.images
        return max(0, min(self.commits - self.committed, round(by_images)))

    def forecast(self, now: float) -> Forecast | None:
        """When all will be there; None while nobody can know.

        Bytes and commits go side by side, each at its own speed, so the slower of them counts.
        """
        if self.ended >= self.images:
            return Forecast(0.0, None)
        missing, commits = self.bytes - self.there - self.lost, self.commits_left
        # What turns out to be there already shortens the way as much as what is sent.
        arriving = self.arriving.rate(now)
        pace = self.calls[_COMMIT].rate if _COMMIT in self.calls else 0.0
        measured = self.committing.rate(now)
        if missing <= 0 or not arriving:
            # Nothing holds commits up any more, so what they do is what they can do.
            pace = min(pace, measured) if pace and measured else measured
        for_bytes = missing / arriving if missing > 0 and arriving else 0.0
        for_commits = commits / pace if commits and pace else 0.0
        if not for_bytes and not for_commits:
            return None
        return Forecast(max(for_bytes, for_commits), pace if for_commits > for_bytes else None)


@dataclass(slots=True)
class Tracker:
    """Counts of a running push; each event costs the same, whatever the size of the push.

    :param clock: gives the time in seconds.
    """

    clock: Callable[[], float] = time.monotonic
    planned: bool = False
    images: int = 0
    retries: int = 0
    throttles: int = 0
    staged: int = 0
    tags: int | None = None
    tags_moved: int = 0
    verified: int = 0
    awaited: int = 0
    """Images whose replication is waited for; ``replicated`` of them have ended."""
    replicated: int = 0
    ended: dict[ImageStatus, int] = field(default_factory=lambda: dict.fromkeys(ImageStatus, 0))
    active: dict[str, ActiveImage] = field(default_factory=dict)
    """Images in flight by reference, the oldest first."""
    registries: dict[str, RegistryState] = field(default_factory=dict)
    failures: dict[tuple[str, str], ImageResult] = field(default_factory=dict)
    """The images that failed last, one for each repository and kind of error."""
    begin: float = field(init=False)
    sending: Speed = field(default_factory=Speed)
    _blobs: dict[str, dict[str, int]] = field(default_factory=dict)
    _lost: dict[tuple[str, str], int] = field(default_factory=dict)
    _staged: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.begin = self.clock()

    def take(self, event: Event) -> None:
        """Count one event."""
        match event:
            case PartSent():
                self._send(event)
            case CallEnded():
                self._call(event)
            case BlobExists() | BlobMounted() | LayerComplete():
                self._reach(event.repository, event.digest, event.size)
            case UploadResumed():
                self._reach(event.repository, event.digest, event.offset)
            case LayerStarted():
                self._start_sending(event)
            case ManifestCommitted():
                self._commit(event)
            case CallRetried():
                self.throttles += event.throttled
                self.retries += not event.throttled
            case _:
                self._take_rare(event)

    def _take_rare(self, event: Event) -> None:
        match event:
            case ImageStarted():
                self._start(event)
            case ImageStaged():
                if self.active.pop(event.reference, None) is not None:
                    self._staged.add(event.reference)
                    self.staged += 1
            case ImageFinished():
                self._finish(event.result)
            case PushPlanned():
                self._plan(event)
            case TagsMoving():
                self.tags = event.tags
            case ImageVerified():
                self.verified += 1
            case ReplicationAwaited():
                self.awaited += event.images
            case ImageReplicated():
                # Those that no rule covers are told of, and not waited for.
                self.replicated += event.result.status is not ReplicationStatus.NOT_COVERED

    @property
    def done(self) -> int:
        """Images that ended, well or not."""
        return sum(self.ended.values())

    @property
    def bytes(self) -> int:
        """Bytes of all planned blobs."""
        return sum(registry.bytes for registry in self.registries.values())

    @property
    def there(self) -> int:
        """Bytes of them that exist or were acknowledged."""
        return sum(registry.there for registry in self.registries.values())

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return self.clock() - self.begin

    def rate(self) -> float:
        """Acknowledged bytes a second, lately."""
        return self.sending.rate(self.clock())

    def forecast(self) -> Forecast | None:
        """When all will be there: registries go side by side, so the slowest counts."""
        now = self.clock()
        found = [registry.forecast(now) for registry in self.registries.values()]
        known = [one for one in found if one is not None]
        if not known or len(known) < len(found):
            return None
        return max(known, key=lambda one: one.seconds)

    def slowed(self) -> Iterator[tuple[RegistryState, str, CallState]]:
        """The calls that run below their quotas, because they were throttled."""
        for registry in self.registries.values():
            for name, call in registry.calls.items():
                if call.slowed:
                    yield registry, name, call

    def standing(self, image: ActiveImage) -> Standing:
        """How an active image stands; costs as much as it has blobs that are not there yet."""
        now = self.clock()
        there = self._there(image)
        if there != image.last:
            image.last, image.moved = there, now
        seconds = now - image.since
        rate = (there - image.begun_with) / seconds if seconds > 0 else 0.0
        return Standing(there, image.total, rate, seconds, now - image.moved)

    def _plan(self, event: PushPlanned) -> None:
        self.planned, self.images = True, event.images
        for number, (host, totals) in enumerate(event.registries.items(), 1):
            self.registries[host] = RegistryState(
                host, number, images=totals.images, bytes=totals.bytes, commits=totals.commits
            )

    def _registry(self, repository: str) -> RegistryState:
        host = host_of(repository)
        if host not in self.registries:
            self.registries[host] = RegistryState(host, len(self.registries) + 1)
        return self.registries[host]

    def _start(self, event: ImageStarted) -> None:
        now = self.clock()
        image = ActiveImage(
            event.reference,
            event.repository,
            now,
            dict(event.blobs),
            sum(event.blobs.values()),
            moved=now,
        )
        image.last = image.begun_with = self._there(image)
        self.active[event.reference] = image
        for digest in image.pending if self._lost else ():
            self._find(event.repository, digest)

    def _finish(self, result: ImageResult) -> None:
        self.ended[result.status] += 1
        if result.error is not None and result.status is ImageStatus.FAILED:
            self._fail(result, result.error.kind)
        image = self.active.pop(result.reference, None)
        # What was rejected before anything was sent is no registry's.
        if image is not None or result.reference in self._staged:
            self._staged.discard(result.reference)
            self._registry(result.reference).ended += 1
        if image is not None and result.status is ImageStatus.FAILED:
            self._lose(image)

    def _fail(self, result: ImageResult, kind: str) -> None:
        key = (kind, repository_of(result.reference))
        self.failures.pop(key, None)
        self.failures[key] = result
        if len(self.failures) > _FAILURES:
            del self.failures[next(iter(self.failures))]

    def _lose(self, image: ActiveImage) -> None:
        """Expect no more of what a failed image lacks, unless another image brings it up."""
        there = self._blobs.get(image.repository, {})
        for digest, size in image.pending.items():
            if (image.repository, digest) not in self._lost:
                missing = max(0, size - there.get(digest, 0))
                self._lost[image.repository, digest] = missing
                self._registry(image.repository).lost += missing

    def _find(self, repository: str, digest: str) -> None:
        self._registry(repository).lost -= self._lost.pop((repository, digest), 0)

    def _there(self, image: ActiveImage) -> int:
        blobs = self._blobs.get(image.repository, {})
        partly = 0
        for digest, size in list(image.pending.items()):
            found = blobs.get(digest, 0)
            if found < size:
                partly += found
            else:
                image.arrived += size
                del image.pending[digest]
        return image.arrived + partly

    def _call(self, event: CallEnded) -> None:
        registry = self.registries.get(host_of(event.repository))
        if registry is None:
            return  # A source: nothing goes there.
        if event.call not in registry.calls:
            registry.calls[event.call] = CallState()
        call = registry.calls[event.call]
        call.rate, call.quota = event.rate, event.quota
        call.throttles += event.outcome == "throttled"

    def _start_sending(self, event: LayerStarted) -> None:
        now = self.clock()
        self.sending.start(now)
        self._registry(event.repository).sending.start(now)

    def _send(self, event: PartSent) -> None:
        now = self.clock()
        registry = self._registry(event.repository)
        registry.sent += event.size
        registry.sending.add(now, event.size)
        self.sending.add(now, event.size)
        self._reach(event.repository, event.digest, event.offset + event.size)

    def _commit(self, event: ManifestCommitted) -> None:
        registry = self._registry(event.repository)
        registry.committed += 1
        registry.committing.add(self.clock(), 1)
        self.tags_moved += self.tags is not None and event.tag is not None

    def _reach(self, repository: str, digest: str, upto: int) -> None:
        blobs = self._blobs.setdefault(repository, {})
        before = blobs.get(digest, 0)
        if upto > before:
            blobs[digest] = upto
            registry = self._registry(repository)
            registry.there += upto - before
            registry.arriving.add(self.clock(), upto - before)
            if self._lost:
                self._find(repository, digest)
