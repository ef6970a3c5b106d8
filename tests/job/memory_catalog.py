"""Registries in memory, behind the interface that sources in registries are read through."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from asyncpush.errors import AsyncpushError, ManifestsNotFoundError
from asyncpush.oci.layout import Content, Layout
from asyncpush.oci.writer import LayoutWriter
from asyncpush.plan.choose import TagInfo
from asyncpush.plan.listing import Listing, SourceAccess, Wanted, read_pages
from asyncpush.plan.reference import AnyRegistry

T = TypeVar("T")

PAGE = 3


class RemoteImages(Layout):
    """A layout that says which repository it comes from."""

    def __init__(self, root: Path, wanted: Wanted) -> None:
        super().__init__(root)
        self.registry = wanted.repository.registry.host
        self.repository = wanted.repository.name


class MemoryCatalog:
    """Repositories with their tags; one that is an error raises it when it is listed.

    ``pages`` counts the pages that were read.
    """

    def __init__(
        self,
        root: Path,
        repositories: dict[str, list[TagInfo] | AsyncpushError],
        *,
        catalog: AsyncpushError | None = None,
        push_times: bool = True,
        pull_times: bool = True,
    ) -> None:
        self.root = root
        self.content = repositories
        self.catalog = catalog
        self.push_times = push_times
        self.pull_times = pull_times
        self.pages = 0
        self.broken: set[str] = set()
        self.asked: list[tuple[str, SourceAccess]] = []

    def listing(self, registry: AnyRegistry, access: SourceAccess) -> Listing:
        self.asked.append((registry.host, access))
        return self

    def repositories(self, pattern: str) -> Iterator[str]:
        if self.catalog is not None:
            raise self.catalog
        return self._pages(list(self.content))

    def tags(self, repository: str) -> Iterator[TagInfo]:
        tags = self.content[repository]
        if isinstance(tags, AsyncpushError):
            raise tags
        return self._pages(tags)

    def _pages(self, things: list[T]) -> Iterator[T]:
        def fetch(token: str | None) -> tuple[list[T], str | None]:
            self.pages += 1
            begin = int(token or 0)
            more = begin + PAGE < len(things)
            return things[begin : begin + PAGE], str(begin + PAGE) if more else None

        return read_pages(fetch, "memory")

    def open(
        self, wanted: Iterable[Wanted], access: SourceAccess
    ) -> Iterator[tuple[Wanted, Content | AsyncpushError]]:
        pending = iter(wanted)
        # Two ahead, as one over the network would be some ahead.
        while ahead := list(itertools.islice(pending, 2)):
            for one in ahead:
                yield one, self._open(one)

    def _open(self, wanted: Wanted) -> Content | AsyncpushError:
        if wanted.repository.name in self.broken:
            return ManifestsNotFoundError("gone", repository=str(wanted.repository))
        number = len(list(self.root.iterdir())) if self.root.exists() else 0
        writer = LayoutWriter(self.root / str(number))
        for name in [tag.name for tag in wanted.tags] or [""]:
            writer.entry(writer.image([], config={"name": f"{wanted}{name}"}), name)
        return RemoteImages(writer.close(), wanted)
