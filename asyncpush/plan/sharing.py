"""Blobs that several repositories of one registry need: who leads, and in which order images go."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from asyncpush.oci.digest import Digest
from asyncpush.plan.graph import PlannedImage, RepositoryPlan
from asyncpush.plan.limits import MIB
from asyncpush.plan.reference import Repository

ASSUMED_RATE = 50e6
"""Bytes a second that uploads are thought to run at until it has been measured."""

# What a commit costs beside its bytes, in bytes: at ECR's ten PutImage a second, it takes as long
# as some megabytes of layers.
_COMMIT_WEIGHT = 4 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast a registry takes things: bytes and commits a second."""

    bytes: float = ASSUMED_RATE
    commits: float


def worth_waiting(saved: int, beside: int, commits: int, speed: Speed) -> bool:
    """Whether blobs are worth waiting for until a leader has committed them.

    Where they are not, they are uploaded as well, which costs all who wait together the time of
    ``saved`` bytes. Waiting costs them what the leader still has to do beside sending these blobs:
    to send others, and to commit. So what is sent without need never takes longer than what the
    leader does anyway, and a few small blobs are sent sooner than they are committed.

    :param saved: bytes that all who wait for these blobs would send otherwise.
    :param beside: bytes that the leader has still to send of other blobs.
    :param commits: manifests that it has to commit.
    """
    return saved / speed.bytes > beside / speed.bytes + commits / speed.commits


@dataclass(frozen=True, slots=True)
class SharedBlob:
    """A blob that some repositories lack and others have, or will have.

    :param followers: how many repositories can mount it.
    :param leader: the repository from which they mount it: it has it, or gets it first.
    :param leads: the turn of the leader's image that references it.
    """

    size: int
    followers: int
    leader: Repository
    leads: int

    @property
    def saved(self) -> int:
        """Bytes that need not be sent."""
        return self.size * self.followers


@dataclass(frozen=True, slots=True)
class Sharing:
    """The order of one registry's images, and the blobs that its repositories share.

    An image may wait for images before it and for no others, so that waiting always ends.

    :param images: the images in the order of their turns.
    :param blobs: the blobs that can be mounted somewhere.
    :param turns: for each repository and shared blob, the first turn that has to do with it.
    """

    images: tuple[PlannedImage, ...]
    blobs: Mapping[Digest, SharedBlob]
    turns: Mapping[tuple[Repository, Digest], int]

    def follows(self, repository: Repository, digest: Digest) -> bool:
        """Whether a repository is to mount a blob that another one has before it."""
        blob = self.blobs.get(digest)
        return blob is not None and blob.leads < self.turns[repository, digest]

    def is_worth_waiting(
        self,
        leader: PlannedImage,
        wanted: Collection[Digest],
        left: Mapping[Digest, int],
        speed: Speed,
    ) -> bool:
        """Whether to wait for an image's commit, to mount blobs from its repository then.

        :param wanted: the blobs.
        :param left: what the image's repository lacks, with its bytes.
        """
        saved = sum(self.blobs[digest].saved for digest in wanted)
        beside = sum(size for digest, size in left.items() if digest not in wanted)
        return worth_waiting(saved, beside, len(leader.manifests), speed)


def shared_digests(repositories: Iterable[RepositoryPlan]) -> set[Digest]:
    """The blobs that more than one repository must hold."""
    counts = Counter(digest for graph in repositories for digest in graph.blobs)
    return {digest for digest, count in counts.items() if count > 1}


def share(
    repositories: Sequence[RepositoryPlan],
    there: Mapping[Repository, Collection[Digest]],
    begun: Collection[tuple[Repository, Digest]] = (),
) -> Sharing | None:
    """Plan who leads.

    Those who lead go first. Blobs that some repository has already are led by images of such
    repositories, which cost a commit and little else. For the others, one leader after the other is
    chosen: the image that brings the most bytes to those who wait for them, for each byte that it
    has to send itself. Whoever waits follows by how much its leaders have to send; images that wait
    for nobody go before them.

    :param repositories: the plan of one registry.
    :param there: the blobs that each repository is known to have.
    :param begun: blobs that an earlier run left half-sent; their repositories lead them.
    :return: None if nothing can be mounted.
    """
    counts = Counter(digest for graph in repositories for digest in graph.blobs)
    lacking = Counter(
        digest
        for graph in repositories
        for digest in graph.blobs
        if counts[digest] > 1 and digest not in there.get(graph.repository, ())
    )
    # One that all lack is sent once at least; one that somebody has need not be sent at all.
    wanted = {d for d, lack in lacking.items() if lack > 1 or lack < counts[d]}
    if not wanted:
        return None
    candidates = [
        _Candidate.of(graph, image, wanted, there.get(graph.repository, ()))
        for graph in repositories
        for image in graph.images
    ]
    election = _Election(candidates, lacking, counts, set(begun))
    order = [*election.leaders, *election.followers()]
    turns: dict[tuple[Repository, Digest], int] = {}
    for turn, index in enumerate(order):
        candidate = candidates[index]
        for digest in candidate.shared:
            turns.setdefault((candidate.image.repository, digest), turn)
    blobs = {}
    for digest, index in election.led.items():
        leader = candidates[index]
        repository = leader.image.repository
        blobs[digest] = SharedBlob(
            size=leader.shared[digest],
            followers=lacking[digest] - (digest not in leader.held),
            leader=repository,
            leads=turns[repository, digest],
        )
    return Sharing(tuple(candidates[index].image for index in order), blobs, turns)


def foreseen(
    sharing: Sharing, left: Callable[[PlannedImage], Mapping[Digest, int]], speed: Speed | None
) -> set[tuple[Repository, Digest]]:
    """The blobs that will be mounted, as far as that can be told before anything is sent.

    :param left: what an image's repository lacks, with its bytes.
    :param speed: None where a blob can be mounted as soon as it is there, without a commit.
    """
    mounted: set[tuple[Repository, Digest]] = set()
    for image in sharing.images:
        wanted: defaultdict[int, list[Digest]] = defaultdict(list)
        for digest in left(image):
            if sharing.follows(image.repository, digest):
                wanted[sharing.blobs[digest].leads].append(digest)
        for turn, digests in wanted.items():
            leader = sharing.images[turn]
            if speed is None or sharing.is_worth_waiting(leader, digests, left(leader), speed):
                mounted.update((image.repository, digest) for digest in digests)
    return mounted


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An image that may lead.

    :param shared: the bytes of each of its shared blobs.
    :param held: which of them its repository has.
    :param own: what it costs beside them.
    """

    image: PlannedImage
    shared: Mapping[Digest, int]
    held: Collection[Digest]
    own: int

    @classmethod
    def of(
        cls,
        graph: RepositoryPlan,
        image: PlannedImage,
        wanted: Collection[Digest],
        there: Collection[Digest],
    ) -> _Candidate:
        blobs = graph.blobs_of(image)
        shared = {digest: blob.size for digest, blob in blobs.items() if digest in wanted}
        held = {digest for digest in shared if digest in there}
        own = sum(
            blob.size
            for digest, blob in blobs.items()
            if digest not in shared and digest not in there
        )
        return cls(image, shared, held, own + _COMMIT_WEIGHT * len(image.manifests))


class _Election:
    """Chooses leaders; ``led`` has the leading candidate's index by blob."""

    def __init__(
        self,
        candidates: Sequence[_Candidate],
        lacking: Mapping[Digest, int],
        counts: Mapping[Digest, int],
        begun: set[tuple[Repository, Digest]],
    ) -> None:
        self._candidates = candidates
        self._lacking = lacking
        self._held = {digest for digest, lack in lacking.items() if lack < counts[digest]}
        self._begun = begun
        self._costs: dict[int, int] = {}
        self.led: dict[Digest, int] = {}
        self.leaders: list[int] = []
        self._elect(lambda candidate: candidate.held)
        self._elect(lambda candidate: [d for d in candidate.shared if d not in self._held])

    def followers(self) -> list[int]:
        """All others, those first who wait for the least."""

        def waits(index: int) -> int:
            leaders = {self.led[digest] for digest in self._candidates[index].shared}
            return max((self._costs[leader] for leader in leaders), default=0)

        leading = set(self.leaders)
        return sorted((i for i in range(len(self._candidates)) if i not in leading), key=waits)

    def _elect(self, leads: Callable[[_Candidate], Iterable[Digest]]) -> None:
        """Choose leaders until all blobs that the candidates may lead have one.

        :param leads: the blobs that a candidate may lead.
        """

        def rank(index: int) -> tuple[bool, float, int]:
            candidate = self._candidates[index]
            open_ = [digest for digest in leads(candidate) if digest not in self.led]
            begun = any((candidate.image.repository, digest) in self._begun for digest in open_)
            return not begun, -self._gain(candidate, open_) / self._cost(candidate), index

        ranks = [rank(i) for i, candidate in enumerate(self._candidates) if any(leads(candidate))]
        heapq.heapify(ranks)
        while ranks:
            *_, index = first = heapq.heappop(ranks)
            candidate = self._candidates[index]
            chosen = [digest for digest in leads(candidate) if digest not in self.led]
            if not chosen:
                continue
            # What it is worth may have shrunk since it was ranked, as others were chosen.
            if (now := rank(index)) > first and ranks and now > ranks[0]:
                heapq.heappush(ranks, now)
                continue
            if index not in self._costs:
                self._costs[index] = self._cost(candidate)
                self.leaders.append(index)
            # Whoever goes first may as well lead all that nobody has.
            also = [d for d in candidate.shared if d not in self._held and d not in self.led]
            self.led.update(dict.fromkeys((*chosen, *also), index))

    def _gain(self, candidate: _Candidate, digests: Iterable[Digest]) -> int:
        """Bytes that others need not send."""
        return sum(
            candidate.shared[d] * (self._lacking[d] - (d not in candidate.held)) for d in digests
        )

    def _cost(self, candidate: _Candidate) -> int:
        """Bytes that it has to send, and what its commits weigh."""
        return candidate.own + sum(
            size
            for digest, size in candidate.shared.items()
            if digest not in candidate.held and digest not in self._held and digest not in self.led
        )
