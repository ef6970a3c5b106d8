"""From what a user writes to an opened source: which registry, which tags, what they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio

from asyncpush.errors import AsyncpushError, LimitError, SourceNotFoundError
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import Content
from asyncpush.oci.referrers import Found
from asyncpush.oci.remote import RemoteContent
from asyncpush.plan.pages import PageGuard
from asyncpush.plan.reference import AnyRegistry, Reference
from asyncpush.plan.sources import ChooseNames, parse_remote
from asyncpush.sources.bridge import on_loop
from asyncpush.sources.referrers import RegistryReferrers
from asyncpush.sources.registry import RegistryContent, SourceRegistry

_OPENED_AT_ONCE = 32
# Ten times the images that ECR keeps in a repository; their names alone take 100 MiB.
_MOST_TAGS = 1_000_000

Connect = Callable[[AnyRegistry], Awaitable[SourceRegistry]]
"""Gives the connected registry, one for all that ask."""
_Key = tuple[str, ChooseNames | None]


class Opener:
    """Opens the remote sources of one plan, each once.

    :param connect: gives registries.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._opened: dict[_Key, Content | AsyncpushError] = {}
        self._referrers = RegistryReferrers()

    async def open_ahead(self, wanted: Sequence[_Key]) -> None:
        """Open sources, many at once; what fails is raised by :meth:`open`.

        :param wanted: each as the user wrote it, with what chooses of its tags.
        """
        pending = iter([key for key in dict.fromkeys(wanted) if key not in self._opened])

        async def worker() -> None:
            for key in pending:
                try:
                    self._opened[key] = await self._open(*key)
                except AsyncpushError as exc:
                    self._opened[key] = exc

        async with anyio.create_task_group() as tasks:
            for _ in range(min(_OPENED_AT_ONCE, len(wanted))):
                tasks.start_soon(worker)

    async def open(self, source: str, choose: ChooseNames | None = None) -> Content:
        """A source, opened.

        :raises AsyncpushError: it cannot be.
        """
        await self.open_ahead([(source, choose)])
        found = self._opened[source, choose]
        if isinstance(found, AsyncpushError):
            raise found.again()
        return found

    async def prefetch(
        self, wanted: Sequence[tuple[Content, Sequence[Descriptor]]], *, nested: bool
    ) -> None:
        """Fetch what will be planned, of all sources at once.

        :param nested: also what it names.
        """
        # Each source once, so that nothing is fetched by two of its entries.
        grouped: dict[int, tuple[RemoteContent, list[Descriptor]]] = {}
        for content, descriptors in wanted:
            if isinstance(content, RemoteContent):
                grouped.setdefault(id(content), (content, []))[1].extend(descriptors)
        async with anyio.create_task_group() as tasks:
            for remote, together in grouped.values():
                tasks.start_soon(partial(remote.prefetch, together, nested=nested))

    async def referrers(self, wanted: Sequence[tuple[Content, Digest]]) -> list[Found]:
        """What registries name as referring to manifests of theirs, in the order of these."""
        return await self._referrers.of(wanted)

    async def _open(self, source: str, choose: ChooseNames | None) -> Content:
        reference = parse_remote(source)
        registry = await self._connect(reference.repository.registry)
        content = RegistryContent(registry, reference.repository, source)
        if reference.tag is not None:
            await content.resolve((reference.tag,), reference.digest)
        elif reference.digest is not None:
            await content.resolve((), reference.digest)
        else:
            names = await self._tags(registry, reference, content)
            await content.resolve(names if choose is None else choose(names))
        return content

    async def _tags(
        self, registry: SourceRegistry, reference: Reference, content: RegistryContent
    ) -> Sequence[str]:
        reading, name = registry.reading, reference.repository.name
        place = reading.place(name)
        tags: dict[str, None] = {}
        guard = PageGuard(place)
        following: str | None = None
        try:
            while True:
                page = await registry.call(
                    "ListTags",
                    str(reference.repository),
                    partial(reading.tags, name, following),
                )
                tags.update(dict.fromkeys(page.names))
                following = page.following
                guard.check(page.names, following)
                if len(tags) > _MOST_TAGS:
                    raise LimitError(
                        f"the source repository has more than {_MOST_TAGS:,} tags",
                        advice="name images with their tags: SOURCE:TAG",
                        source=place,
                    )
                if following is None:
                    break
        except SourceNotFoundError as exc:
            raise content.no_repository(exc) from exc
        if not tags:
            raise SourceNotFoundError(
                "the source repository has no tags",
                advice="name an image by its digest: docker://HOST/REPOSITORY@sha256:...",
                source=place,
            )
        return list(tags)


class FromThread:
    """An :class:`Opener` for the planning thread: :class:`~asyncpush.plan.sources.Remote`."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    def open_ahead(self, wanted: Sequence[_Key]) -> None:
        """See :meth:`Opener.open_ahead`."""
        on_loop(partial(self._opener.open_ahead, wanted))

    def open(self, source: str, choose: ChooseNames | None) -> Content:
        """See :meth:`Opener.open`."""
        return on_loop(partial(self._opener.open, source, choose))

    def prefetch(
        self, wanted: Sequence[tuple[Content, Sequence[Descriptor]]], *, nested: bool
    ) -> None:
        """See :meth:`Opener.prefetch`."""
        on_loop(partial(self._opener.prefetch, wanted, nested=nested))

    def referrers(self, wanted: Sequence[tuple[Content, Digest]]) -> list[Found]:
        """See :meth:`Opener.referrers`."""
        return on_loop(partial(self._opener.referrers, wanted))
