"""What the engine tells while it works: typed events, which all progress and reports follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from asyncpush.engine.results import ImageResult, PushReport
from asyncpush.errors import AsyncpushError
from asyncpush.replication.results import ImageReplication


@dataclass(frozen=True, slots=True)
class RegistryTotals:
    """What is planned for one registry; ``commits`` are manifests and tags, each once."""

    images: int = 0
    blobs: int = 0
    bytes: int = 0
    commits: int = 0


@dataclass(frozen=True, slots=True)
class PushPlanned:
    """The plan is made: ``blobs`` and ``bytes`` count each blob once for each repository.

    ``images`` has those that cannot be pushed, too; ``registries`` are the sums by host, without
    them.
    """

    images: int
    repositories: int
    manifests: int
    blobs: int
    bytes: int
    registries: Mapping[str, RegistryTotals] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageStarted:
    """An image's turn has come.

    ``blobs`` gives the bytes of each of its blobs by digest, ``manifests`` the digests of its
    manifests in their order of commit.
    """

    reference: str
    name: str
    repository: str
    blobs: Mapping[str, int]
    manifests: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ImageStaged:
    """All of an image is there by digest; in an atomic push it waits for the others now."""

    reference: str
    repository: str


@dataclass(frozen=True, slots=True)
class BlobExists:
    """The repository has a blob already; seen once for each blob and repository."""

    repository: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class BlobMounted:
    """A blob was mounted from ``source``, another repository of the registry, and not sent."""

    repository: str
    digest: str
    size: int
    source: str


@dataclass(frozen=True, slots=True)
class LayerStarted:
    """A blob's turn to be uploaded has come, after ``waited`` seconds for a layer's slot."""

    repository: str
    digest: str
    size: int
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class LayerFailed:
    """A blob of ``size`` bytes could not be uploaded; ``sent`` bytes went."""

    repository: str
    digest: str
    size: int
    sent: int
    error: AsyncpushError


@dataclass(frozen=True, slots=True)
class UploadResumed:
    """A half-sent blob of an earlier run goes on at ``offset`` bytes, in the same session."""

    repository: str
    digest: str
    offset: int


@dataclass(frozen=True, slots=True)
class PartSent:
    """The registry acknowledged a part; ``size`` bytes from ``offset`` on.

    Its last try waited ``waited`` seconds for a part's slot and for memory, and took ``seconds``
    from then on.
    """

    repository: str
    digest: str
    offset: int
    size: int
    waited: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LayerComplete:
    """The registry proved a blob's digest and has it. ``sent`` bytes went, repetitions included."""

    repository: str
    digest: str
    size: int
    sent: int


@dataclass(frozen=True, slots=True)
class ManifestCommitted:
    """A manifest is in the repository; ``existed`` if it was there before.

    ``seconds`` are those of its commit, with all waits and tries.
    """

    repository: str
    digest: str
    tag: str | None
    existed: bool
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RepositoryCreated:
    """A repository was missing and has been created."""

    repository: str


@dataclass(frozen=True, slots=True)
class TagsMoving:
    """Phase two of an atomic push begins: everything is there, ``tags`` tags are moved now."""

    tags: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call was answered, or failed: every try of it is told once.

    ``repository`` is the registry's host where the call is about no repository. ``outcome`` is
    ``ok`` or the kind of the error. It waited ``waited`` seconds for its turn at the call's pace;
    ``seconds`` run from then to its end, for a part with the wait for a slot. ``rate`` is what such
    calls are paced at from now on, and ``quota`` what they may reach, in calls a second.
    """

    call: str
    repository: str
    outcome: str
    waited: float
    seconds: float
    rate: float
    quota: float


@dataclass(frozen=True, slots=True)
class CallRetried:
    """A call failed, or was ``throttled``, and is tried again after ``delay`` seconds."""

    call: str
    repository: str
    error: str
    attempt: int
    delay: float
    throttled: bool = False


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the user should know and that stops nothing."""

    message: str


@dataclass(frozen=True, slots=True)
class ReplicationAwaited:
    """Waiting for replication begins: ``images`` that a rule covers; ``uncovered`` ones go nowhere.

    Told once for each source registry, by its host.
    """

    registry: str
    images: int
    uncovered: int


@dataclass(frozen=True, slots=True)
class ImageReplicated:
    """The replication of an image ended, well or not, or is not waited for any longer."""

    result: ImageReplication


@dataclass(frozen=True, slots=True)
class ImageFinished:
    """An image ended, well or not."""

    result: ImageResult


@dataclass(frozen=True, slots=True)
class ImageVerified:
    """An image was held against what its registry has; without problems it is all there."""

    name: str
    reference: str
    digest: str
    problems: tuple[AsyncpushError, ...]


@dataclass(frozen=True, slots=True)
class PushEnded:
    """The push is over, or was interrupted: then ``report.complete`` is False."""

    report: PushReport


Event = (
    PushPlanned
    | ImageStarted
    | ImageStaged
    | BlobExists
    | BlobMounted
    | LayerStarted
    | LayerFailed
    | UploadResumed
    | PartSent
    | LayerComplete
    | ManifestCommitted
    | RepositoryCreated
    | TagsMoving
    | CallEnded
    | CallRetried
    | Warned
    | ReplicationAwaited
    | ImageReplicated
    | ImageFinished
    | ImageVerified
    | PushEnded
)
EventSink = Callable[[Event], None]
"""Called on the event loop, between two steps of the engine: it is quick and never raises."""


def host_of(repository: str) -> str:
    """The registry's host, of a repository or a reference as events name it."""
    return repository.partition("/")[0]


def repository_of(reference: str) -> str:
    """The repository of a reference: without tag and digest."""
    named = reference.partition("@")[0]
    host, slash, path = named.partition("/")
    return f"{host}{slash}{path.partition(':')[0]}"
