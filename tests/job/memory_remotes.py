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
from asyncpush.plan.listing import Listing, SourceAccess, read_pages
from asyncpush.plan.reference import AnyRegistry, Reference

T = TypeVar("T")

PAGE = 3


class RemoteImage(Layout):
    """A layout of one image that says which repository it comes from."""

    def __init__(self, root: Path, reference: Reference) -> None:
        super().__init__(root)
        self.registry = reference.repository.registry.host
        self.repository = reference.repository.name


class MemoryRemotes:
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

    def images(
        self, references: Iterable[Reference], access: SourceAccess
    ) -> Iterator[tuple[Reference, Content | AsyncpushError]]:
        references = iter(references)
        # Two ahead, as one over the network would be some ahead.
        while ahead := list(itertools.islice(references, 2)):
            for reference in ahead:
                yield reference, self._open(reference)

    def _open(self, reference: Reference) -> Content | AsyncpushError:
        if reference.tag == "broken":
            return ManifestsNotFoundError("no such tag", reference=str(reference))
        name = f"{reference.repository.name}-{reference.tag}".replace("/", "_")
        folder = self.root / name
        if not folder.exists():
            writer = LayoutWriter(folder)
            writer.entry(writer.image([], config={"name": name}), reference.tag)
            writer.close()
        return RemoteImage(folder, reference)
