"""From what a user writes to an opened source: which registry or bucket, and what is in it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import anyio

from asyncpush.errors import AsyncpushError, LimitError, SourceNotFoundError, UsageError
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import Content
from asyncpush.oci.referrers import Found
from asyncpush.oci.remote import RemoteContent
from asyncpush.oci.scratch import Scratch
from asyncpush.plan.listing import AS_ANY, SourceAccess
from asyncpush.plan.pages import PageGuard
from asyncpush.plan.reference import AnyRegistry, Reference
from asyncpush.plan.s3 import is_s3, parse_s3
from asyncpush.plan.sources import parse_remote, split_source
from asyncpush.sources.bridge import on_loop
from asyncpush.sources.referrers import RegistryReferrers
from asyncpush.sources.registry import RegistryContent, SourceRegistry

_OPENED_AT_ONCE = 32
# Ten times the images that ECR keeps in a repository; their names alone take 100 MiB.
_MOST_TAGS = 1_000_000

Connect = Callable[[AnyRegistry, SourceAccess], Awaitable[SourceRegistry]]
"""Gives the connected registry, one for all that ask with the same access."""
S3Client = Callable[[SourceAccess], Awaitable[Any]]
"""Gives the S3 client, one for all that ask with the same access."""
_Key = tuple[str, SourceAccess]


class Opener:
    """Opens the remote sources of one plan, each once.

    :param connect: gives registries.
    :param s3_client: gives S3 clients.
    :param scratch: takes archives in S3 that cannot be read in place. While a source is opened, the
        planning thread does not use it.
    :param compress_layers: see :class:`~asyncpush.plan.sources.Sources`.
    """

    def __init__(
        self,
        connect: Connect,
        s3_client: S3Client,
        scratch: Scratch,
        *,
        compress_layers: bool = False,
    ) -> None:
        self._connect = connect
        self._s3_client = s3_client
        self._scratch = scratch
        self._compress_layers = compress_layers
        # One thread at a time may use the scratch file.
        self._spooling = anyio.CapacityLimiter(1)
        self._opened: dict[_Key, Content | AsyncpushError] = {}
        self._referrers = RegistryReferrers()

    async def open_ahead(self, wanted: Sequence[_Key]) -> None:
        """Open sources, many at once; what fails is raised by :meth:`open`.

        :param wanted: each as the user wrote it, and how it is asked.
        """
        keys = dict.fromkeys(_key(*one) for one in wanted)
        pending = iter([key for key in keys if key not in self._opened])

        async def worker() -> None:
            for key in pending:
                try:
                    self._opened[key] = await self._open(*key)
                except AsyncpushError as exc:
                    self._opened[key] = exc

        async with anyio.create_task_group() as tasks:
            for _ in range(min(_OPENED_AT_ONCE, len(wanted))):
                tasks.start_soon(worker)

    async def open(self, source: str, access: SourceAccess = AS_ANY) -> Content:
        """A source, opened.

        :raises AsyncpushError: it cannot be.
        """
        await self.open_ahead([(source, access)])
        found = self._opened[_key(source, access)]
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

    async def _open(self, source: str, access: SourceAccess) -> Content:
        if is_s3(source):
            return await self._open_s3(source, access)
        reference = parse_remote(source)
        registry = await self._connect(reference.repository.registry, access)
        content = RegistryContent(registry, reference.repository, source)
        if reference.tag is not None:
            await content.resolve((reference.tag,), reference.digest)
        elif reference.digest is not None:
            await content.resolve((), reference.digest)
        else:
            await content.resolve(await self._tags(registry, reference, content))
        return content

    async def _open_s3(self, source: str, access: SourceAccess) -> Content:
        # The AWS client takes as long to import as all else together.
        from asyncpush.sources.s3 import open_s3_source  # noqa: PLC0415

        return await open_s3_source(
            parse_s3(source),
            await self._s3_client(access),
            self._scratch,
            spooling=self._spooling,
            compress_layers=self._compress_layers,
        )

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


def _key(source: str, access: SourceAccess) -> _Key:
    """What is opened once: of S3 all of a layout, whichever of its entries are chosen."""
    if is_s3(source):
        with contextlib.suppress(UsageError):  # It fails when it is opened.
            source, _ = split_source(source)
    return source, access


class FromThread:
    """An :class:`Opener` for the planning thread: :class:`~asyncpush.plan.sources.Remote`."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    def open_ahead(self, wanted: Sequence[_Key]) -> None:
        """See :meth:`Opener.open_ahead`."""
        on_loop(partial(self._opener.open_ahead, wanted))

    def open(self, source: str, access: SourceAccess) -> Content:
        """See :meth:`Opener.open`."""
        return on_loop(partial(self._opener.open, source, access))

    def prefetch(
        self, wanted: Sequence[tuple[Content, Sequence[Descriptor]]], *, nested: bool
    ) -> None:
        """See :meth:`Opener.prefetch`."""
        on_loop(partial(self._opener.prefetch, wanted, nested=nested))

    def referrers(self, wanted: Sequence[tuple[Content, Digest]]) -> list[Found]:
        """See :meth:`Opener.referrers`."""
        return on_loop(partial(self._opener.referrers, wanted))
