"""Patterns of images, over the network: registries are listed, and what is chosen is opened."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial

import anyio

from asyncpush.errors import AsyncpushError, SourceNotFoundError
from asyncpush.oci.layout import Content
from asyncpush.plan.choose import TagInfo
from asyncpush.plan.listing import Listing, SourceAccess, Wanted, read_pages
from asyncpush.plan.reference import AnyRegistry, Registry
from asyncpush.registries.distribution.reading import Page
from asyncpush.sources.bridge import on_loop
from asyncpush.sources.registry import RegistryContent, SourceRegistry

_OPENED_AT_ONCE = 32

Connect = Callable[[AnyRegistry, SourceAccess], Awaitable[SourceRegistry]]
"""Gives the connected registry, one for all that ask with the same access."""
ListEcr = Callable[[Registry, SourceAccess], Awaitable[Listing]]
"""Gives the listing of an ECR registry."""


class DistributionListing:
    """A :class:`~asyncpush.plan.listing.Listing` of any registry: its catalog and lists of tags.

    :param source: the registry.
    """

    push_times = False
    pull_times = False

    def __init__(self, source: SourceRegistry) -> None:
        self._source = source

    def repositories(self, pattern: str) -> Iterator[str]:
        """See :class:`~asyncpush.plan.listing.Listing`; ``pattern`` is for errors alone."""
        place = f"{self._source.registry.host}/{pattern}"
        reading = self._source.reading
        try:
            yield from self._read("ListRepositories", place, reading.catalog)
        except AsyncpushError as exc:
            raise exc.at(images=place) from exc.__cause__

    def tags(self, repository: str) -> Iterator[TagInfo]:
        """See :class:`~asyncpush.plan.listing.Listing`."""
        reading = self._source.reading
        place = f"{self._source.registry.host}/{repository}"
        try:
            for name in self._read("ListTags", place, partial(reading.tags, repository)):
                yield TagInfo(name)
        except SourceNotFoundError as exc:
            raise SourceNotFoundError(
                f"the source repository {repository} does not exist",
                advice="check its name, and sign in if it is private",
                **exc.where,
            ) from exc

    def _read(
        self, call: str, place: str, page: Callable[[str | None], Awaitable[Page]]
    ) -> Iterator[str]:
        def fetch(token: str | None) -> tuple[tuple[str, ...], str | None]:
            async def ask() -> Page:
                return await self._source.call(call, place, partial(page, token))

            found = on_loop(ask)
            return found.names, found.following

        yield from read_pages(fetch, place)


class RegistryCatalog:
    """A :class:`~asyncpush.plan.listing.Catalog` for the planning thread.

    :param connect: gives registries.
    :param list_ecr: gives what ECR lists by its own API, which has the times.
    """

    def __init__(self, connect: Connect, list_ecr: ListEcr) -> None:
        self._connect = connect
        self._list_ecr = list_ecr

    def listing(self, registry: AnyRegistry, access: SourceAccess) -> Listing:
        """See :class:`~asyncpush.plan.listing.Catalog`."""

        async def connect() -> Listing:
            if isinstance(registry, Registry):
                return await self._list_ecr(registry, access)
            return DistributionListing(await self._connect(registry, access))

        return on_loop(connect)

    def open(
        self, wanted: Iterable[Wanted], access: SourceAccess
    ) -> Iterator[tuple[Wanted, Content | AsyncpushError]]:
        """See :class:`~asyncpush.plan.listing.Catalog`: at most 32 are taken ahead.

        The first goes alone, so that it can be planned while others are still listed.
        """
        pending, count = iter(wanted), 1
        while ahead := tuple(itertools.islice(pending, count)):
            yield from on_loop(partial(self._open_all, ahead, access))
            count = min(2 * count, _OPENED_AT_ONCE)

    async def _open_all(
        self, wanted: Sequence[Wanted], access: SourceAccess
    ) -> list[tuple[Wanted, Content | AsyncpushError]]:
        opened: dict[int, Content | AsyncpushError] = {}

        async def open_one(number: int, one: Wanted) -> None:
            try:
                opened[number] = await self._open(one, access)
            except AsyncpushError as exc:
                opened[number] = exc

        async with anyio.create_task_group() as tasks:
            for number, one in enumerate(wanted):
                tasks.start_soon(open_one, number, one)
        return [(one, opened[number]) for number, one in enumerate(wanted)]

    async def _open(self, wanted: Wanted, access: SourceAccess) -> Content:
        registry = await self._connect(wanted.repository.registry, access)
        content = RegistryContent(registry, wanted.repository, f"docker://{wanted.repository}")
        await content.resolve([tag.name for tag in wanted.tags], wanted.digest)
        return content
