"""The repositories of one push: opened when they are needed, and what they can share planned."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import anyio.to_thread

from asyncpush.engine.connections import Connections
from asyncpush.engine.context import Context
from asyncpush.engine.journal import NoJournal
from asyncpush.engine.mounting import Mounts
from asyncpush.engine.promotion import Promotion
from asyncpush.engine.repository import RepositoryPush
from asyncpush.engine.work import for_each
from asyncpush.errors import AsyncpushError
from asyncpush.oci.digest import Digest
from asyncpush.oci.remote import RemoteBlob
from asyncpush.plan.graph import Plan, PlannedImage, RepositoryPlan
from asyncpush.plan.reference import AnyRegistry, Repository
from asyncpush.plan.sharing import Sharing, Speed, foreseen, share, shared_digests


class Repositories:
    """The repositories of one push.

    :param journal: what an earlier run of the job has left.
    :param pointing: what tags were found to point to when the push was planned.
    :param create: whether one that is missing may be created, where that is asked for.
    """

    def __init__(
        self,
        plan: Plan,
        connections: Connections,
        journal: NoJournal,
        pointing: Mapping[Repository, Mapping[str, Digest | None]] = {},
        *,
        create: bool = True,
    ) -> None:
        self._pointing = pointing
        self._create = create
        self._plan = plan
        self._connections = connections
        self._journal = journal
        self._opened: dict[Repository, RepositoryPush] = {}
        self._mounts: dict[AnyRegistry, Mounts] = {}
        self._expect_shared_reads()

    async def get(self, repository: Repository) -> RepositoryPush:
        """A repository, opened.

        :raises RegistryError: its registry cannot be reached, or does not accept the credentials.
        """
        context = await self._connections.get(repository.registry)
        return self._open(repository, context)

    def _expect_shared_reads(self) -> None:
        """Let registries that want the same blobs from elsewhere read them together."""
        if len({repository.registry for repository in self._plan.repositories}) < 2:
            return
        for repository, graph in self._plan.repositories.items():
            for blob in graph.blobs.values():
                if isinstance(blob.source, RemoteBlob):
                    self._connections.reads.expect(blob.source, repository.registry.host)

    def _forgo_shared_reads(self, registry: AnyRegistry) -> None:
        """Let no other registry wait for one that cannot be reached."""
        for graph in self._graphs(registry):
            for blob in graph.blobs.values():
                if isinstance(blob.source, RemoteBlob):
                    self._connections.reads.forgo(blob.source, registry.host)

    async def turns(
        self, registry: AnyRegistry, images: Sequence[PlannedImage]
    ) -> Sequence[PlannedImage]:
        """One registry's images in the order of their turns: leaders of shared blobs go first.

        :param images: the images in the order of the plan.
        """
        try:
            context = await self._connections.get(registry)
            sharing = await self._share(context, registry)
        except AsyncpushError:
            self._forgo_shared_reads(registry)
            return images  # Each of them will tell.
        if sharing is None or context.transport.mounting is None:
            return images
        mounts = Mounts(sharing, context.transport.mounting, context, self._left)
        self._mounts[registry] = mounts
        for graph in self._graphs(registry):
            self._open(graph.repository, context).blobs.mounts = mounts
        return sharing.images

    def ended(self, image: PlannedImage) -> None:
        """An image's turn is over, however it ended."""
        mounts = self._mounts.get(image.repository.registry)
        if mounts is not None:
            mounts.ended(image)

    async def foreseen(self, registry: AnyRegistry) -> set[tuple[Repository, Digest]]:
        """The blobs that one registry's repositories would mount from one another."""
        context = await self._connections.get(registry)
        sharing = await self._share(context, registry)
        if sharing is None or context.transport.mounting is None:
            return set()
        speed = Speed(commits=context.paces.of("PutImage").rate)
        waits = context.transport.mounting.referenced
        return foreseen(sharing, self._left, speed if waits else None)

    async def promoted(self, registry: AnyRegistry) -> set[tuple[Repository, Digest]]:
        """The blobs that a registry's repositories can mount from where images come from."""
        context = await self._connections.get(registry)
        found: set[tuple[Repository, Digest]] = set()
        for graph in self._graphs(registry):
            promotion = Promotion(graph, context)
            found.update(
                (graph.repository, blob.digest)
                for blob in graph.blobs.values()
                if promotion.source(blob) is not None
            )
        return found

    async def _share(self, context: Context, registry: AnyRegistry) -> Sharing | None:
        """Ask what one registry's repositories have, and plan what they can share.

        :return: None if that is nothing, or the registry mounts nothing.
        """
        if context.transport.mounting is None or context.refusals.off:
            return None
        graphs = self._graphs(registry)
        shared = await anyio.to_thread.run_sync(shared_digests, graphs)
        sharing = [g for g in graphs if not shared.isdisjoint(g.blobs)]
        if not sharing:
            return None

        async def ask(graph: RepositoryPlan) -> None:
            # What a repository does not tell now, its images ask again when they have their turn.
            with contextlib.suppress(AsyncpushError):
                await self._open(graph.repository, context).ask()

        await for_each(sharing, min(len(sharing), context.options.images), ask)
        there = {g.repository: self._opened[g.repository].blobs.known() for g in sharing}
        begun = await self._begun(sharing)
        return await anyio.to_thread.run_sync(share, graphs, there, begun)

    def _graphs(self, registry: AnyRegistry) -> list[RepositoryPlan]:
        return [g for g in self._plan.repositories.values() if g.repository.registry == registry]

    async def _begun(self, graphs: Sequence[RepositoryPlan]) -> set[tuple[Repository, Digest]]:
        """Blobs that an earlier run has left half-sent."""
        by_name = {str(graph.repository): graph.repository for graph in graphs}
        return {
            (by_name[name], Digest(digest))
            for name, digest in await self._journal.open_uploads()
            if name in by_name
        }

    def _left(self, image: PlannedImage) -> dict[Digest, int]:
        graph = self._plan.repositories[image.repository]
        return self._opened[image.repository].blobs.lacking(graph.blobs_of(image))

    def _open(self, repository: Repository, context: Context) -> RepositoryPush:
        push = self._opened.get(repository)
        if push is None:
            graph = self._plan.repositories[repository]
            push = RepositoryPush(
                graph,
                context,
                self._journal,
                self._pointing.get(repository, {}),
                create=self._create,
            )
            self._opened[repository] = push
        return push
