"""Mounts in one registry: from whom a repository gets a shared blob, and whether to wait for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import anyio

from asyncpush.engine.context import Context
from asyncpush.engine.mountcalls import NOT_MOUNTED, MountCalls
from asyncpush.oci.digest import Digest
from asyncpush.plan.graph import PlannedImage
from asyncpush.plan.reference import Repository
from asyncpush.plan.sharing import ASSUMED_RATE, Sharing, Speed
from asyncpush.registries.base import MountAnswer, Mounting


@dataclass(slots=True)
class _Supply:
    """From whom a blob can be mounted: one repository of each kin, and those that soon have it."""

    ready: dict[Repository, Repository] = field(default_factory=dict)
    coming: dict[Repository, None] = field(default_factory=dict)


class Mounts:
    """The mounts of one push into one registry.

    A repository that lacks a shared blob mounts it from one that has it or, if that is worth it,
    waits for one that goes before it and is about to have it. If that one fails, the next who
    waited uploads the blob and the others wait for it. Whoever waits holds no slot and no memory
    but its image's place among those in flight; whoever is waited for has had its turn before.

    :param sharing: the plan of who leads.
    :param mounting: what the registry mounts.
    :param left: the blobs that an image's repository lacks by now, with their bytes.
    """

    def __init__(
        self,
        sharing: Sharing,
        mounting: Mounting,
        context: Context,
        left: Callable[[PlannedImage], Mapping[Digest, int]],
    ) -> None:
        self._sharing = sharing
        self._mounting = mounting
        self._context = context
        self._refusals = context.refusals
        self._left = left
        self._turns = {id(image): turn for turn, image in enumerate(sharing.images)}
        self._ended: set[int] = set()
        self._supplies = {
            digest: _Supply(coming={blob.leader: None}) for digest, blob in sharing.blobs.items()
        }
        self._awaited: dict[int, anyio.Event] = {}
        self._calls = MountCalls(mounting, context)
        self._refusals.when_off = self._wake_all

    def follows(self, repository: Repository, digest: Digest) -> bool:
        """Whether a repository is to get a blob from one that goes before it."""
        return self._sharing.follows(repository, digest)

    def stored(self, repository: Repository, digests: Iterable[Digest]) -> None:
        """A repository has blobs; some registries mount them from now on."""
        if not self._mounting.referenced:
            self._ready(repository, digests)

    def committed(self, repository: Repository, digests: Iterable[Digest]) -> None:
        """A repository has a manifest that references blobs; every registry mounts them now."""
        self._ready(repository, digests)

    def ended(self, image: PlannedImage) -> None:
        """An image's turn is over, well or not: what it has not brought by now, it will not."""
        turn = self._turns[id(image)]
        self._ended.add(turn)
        self._wake(turn)

    async def get(
        self, repository: Repository, digest: Digest, together: Collection[Digest]
    ) -> MountAnswer:
        """Mount a blob, or find out that it is to be uploaded.

        :param together: all blobs that the repository wants to mount now.
        """
        if digest not in self._supplies:
            return NOT_MOUNTED
        answer = None
        while answer is None:
            source = await self._source(repository, digest, together)
            if source is None:
                answer = NOT_MOUNTED
            else:
                size = self._sharing.blobs[digest].size
                answer = await self._calls.mount(repository, digest, size, source)
        if not answer.mounted:
            self.uploads(repository, digest)
        return answer

    def uploads(self, repository: Repository, digest: Digest) -> None:
        """A repository is about to upload a blob, so that others may wait for it."""
        if digest in self._supplies:
            self._supplies[digest].coming[repository] = None

    async def _source(
        self, repository: Repository, digest: Digest, together: Collection[Digest]
    ) -> Repository | None:
        """A repository that a blob can be mounted from now, maybe after a wait; None for none."""
        supply = self._supplies[digest]
        while True:
            for source in supply.ready.values():
                if self._refusals.allows(source, repository):
                    return source
            leader = self._leader(repository, digest)
            if leader is None or not self._worth_waiting(leader, together):
                return None
            turn = self._turn(leader, digest)
            await self._awaited.setdefault(turn, anyio.Event()).wait()

    def _leader(self, repository: Repository, digest: Digest) -> Repository | None:
        """Who goes before a repository and is about to have a blob."""
        own = self._turn(repository, digest)
        for leader in self._supplies[digest].coming:
            turn = self._turn(leader, digest)
            if turn < own and turn not in self._ended and self._refusals.allows(leader, repository):
                return leader
        return None

    def _worth_waiting(self, leader: Repository, together: Collection[Digest]) -> bool:
        if not self._mounting.referenced:
            return True  # Each blob can be mounted as soon as it is there.
        wanted = [d for d in together if leader in self._coming(d)]
        image = self._sharing.images[self._turn(leader, wanted[0])]
        speed = Speed(
            bytes=self._context.throughput.rate() or ASSUMED_RATE,
            commits=self._context.paces.of("PutImage").rate,
        )
        return self._sharing.is_worth_waiting(image, wanted, self._left(image), speed)

    def _wake_all(self) -> None:
        """The registry mounts nothing: nobody needs to wait any longer."""
        for event in self._awaited.values():
            event.set()
        self._awaited.clear()

    def _ready(self, repository: Repository, digests: Iterable[Digest]) -> None:
        for digest in digests:
            supply = self._supplies.get(digest)
            if supply is not None:
                supply.ready.setdefault(self._refusals.kin_of(repository), repository)
                supply.coming.pop(repository, None)
                self._wake(self._turn(repository, digest))

    def _wake(self, turn: int) -> None:
        event = self._awaited.pop(turn, None)
        if event is not None:
            event.set()

    def _coming(self, digest: Digest) -> Collection[Repository]:
        supply = self._supplies.get(digest)
        return () if supply is None else supply.coming

    def _turn(self, repository: Repository, digest: Digest) -> int:
        return self._sharing.turns[repository, digest]
