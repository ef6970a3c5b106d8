"""A repository of an OCI distribution registry as a source."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import anyio

from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    CredentialsError,
    DigestMismatchError,
    SourceNotFoundError,
    TransientError,
)
from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import REF_NAME, Descriptor
from asyncpush.oci.digest import Digest, parse_digest
from asyncpush.oci.layout import BlobData, BlobSource
from asyncpush.oci.manifest import ImageIndex, parse_manifest
from asyncpush.oci.remote import RemoteBlob
from asyncpush.plan.reference import AnyRegistry, Repository
from asyncpush.registries.base import TaggedManifest
from asyncpush.registries.distribution.reading import Reading, refuse_schema_1
from asyncpush.sources.bridge import on_loop

T = TypeVar("T")

# What one tag meets, all others of its repository meet as well.
_FOR_ALL = (AccessDeniedError, CredentialsError)


class Call(Protocol):
    """Makes one call of a registry at its pace, with retries."""

    async def __call__(self, name: str, where: str, call: Callable[[], Awaitable[T]]) -> T: ...


@dataclass(frozen=True, slots=True, eq=False)
class SourceRegistry:
    """A registry that is read from; one for all of its repositories.

    :param reading: its calls, one try each.
    :param call: makes them at the registry's pace, with retries.
    :param at_once: bounds the calls of discovery (manifests, tags) in flight.
    """

    registry: AnyRegistry
    reading: Reading
    call: Call
    at_once: anyio.CapacityLimiter

    async def each(self, items: Sequence[T], work: Callable[[T], Awaitable[None]]) -> None:
        """Work on items, as many at once as the registry is asked; ``work`` raises nothing."""
        pending = iter(items)

        async def worker() -> None:
            for item in pending:
                async with self.at_once:
                    await work(item)

        async with anyio.create_task_group() as tasks:
            for _ in range(min(int(self.at_once.total_tokens), len(items))):
                tasks.start_soon(worker)


@dataclass(frozen=True, slots=True)
class RegistryOrigin:
    """A repository that blobs are read from: a :class:`~asyncpush.oci.remote.BlobOrigin`.

    :param place: the repository, so that a target in the same registry can mount from it.
    """

    source: SourceRegistry
    place: Repository

    @property
    def name(self) -> str:
        """See :class:`~asyncpush.oci.remote.BlobOrigin`."""
        return f"docker://{self.place}"

    @contextlib.asynccontextmanager
    async def read(
        self, digest: Digest, size: int, offset: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """See :class:`~asyncpush.oci.remote.BlobOrigin`.

        Until the first byte it is a call like any other, paced and retried; after it, it is not.
        """
        async with contextlib.AsyncExitStack() as stack:

            async def begin() -> AsyncIterator[bytes]:
                return await stack.enter_async_context(
                    self.source.reading.blob(self.place.name, digest, size, offset)
                )

            yield await self.source.call("GetBlob", str(self.place), begin)


class RegistryContent:
    """Some images of one repository: :class:`~asyncpush.oci.layout.Content`.

    Entries are made of what HEAD says of each tag, since registries that count pulls count no HEAD;
    manifests are fetched by digest when they are asked for, or ahead by :meth:`prefetch`. Its other
    methods are for the planning thread.

    :param source: the registry.
    :param place: the repository.
    :param name: the source as the user wrote it, for errors.
    """

    def __init__(self, source: SourceRegistry, place: Repository, name: str) -> None:
        self.entries: tuple[Descriptor, ...] = ()
        self.problems: dict[str, AsyncpushError] = {}
        self.root = name
        self.registry: str | None = place.registry.host
        self.repository: str | None = place.name
        self.source = source
        self._reading = source.reading
        self.place = place
        self._origin = RegistryOrigin(source, place)
        self._manifests: dict[Digest, bytes] = {}
        self._failed: dict[Digest, AsyncpushError] = {}
        self._blobs: set[Digest] = set()

    @property
    def numbered(self) -> Sequence[Descriptor]:
        """Its entries, in the order of the registry's list."""
        return self.entries

    async def resolve(self, tags: Sequence[str], digest: Digest | None = None) -> None:
        """Find out what tags are, and make entries of them; what cannot be is in ``problems``.

        :param tags: none for a digest alone.
        :param digest: what the one tag is taken for, wherever it points by now.
        :raises AsyncpushError: none of them can be read.
        """
        names: Sequence[str | None] = tags or (None,)
        found: dict[str | None, Descriptor] = {}
        failed: dict[str | None, AsyncpushError] = {}

        async def ask(tag: str | None) -> None:
            if not found and any(isinstance(exc, _FOR_ALL) for exc in failed.values()):
                return
            try:
                found[tag] = await self._entry(tag, digest)
            except AsyncpushError as exc:
                failed[tag] = exc

        await self.source.each(names, ask)
        if failed and not found:
            raise next(iter(failed.values()))
        self.entries = tuple(found[name] for name in names if name in found)
        self.problems = {str(name): failed[name] for name in names if name in failed}

    async def prefetch(self, descriptors: Sequence[Descriptor], *, nested: bool) -> None:
        """See :class:`~asyncpush.oci.remote.RemoteContent`."""
        level = list(self._unfetched(descriptors))
        seen = {descriptor.digest for descriptor in level}
        while level:
            below: list[Descriptor] = []

            async def fetch(descriptor: Descriptor, below: list[Descriptor] = below) -> None:
                await self._fetch(descriptor)
                if nested:
                    below.extend(self._named_by(descriptor))

            await self.source.each(level, fetch)
            level = [d for d in self._unfetched(below) if d.digest not in seen]
            seen.update(descriptor.digest for descriptor in level)
        if nested:
            # What was fetched before, for another batch, may not have been followed.
            followed = [d for e in descriptors if e.digest not in seen for d in self._named_by(e)]
            if fresh := [d for d in self._unfetched(followed) if d.digest not in seen]:
                await self.prefetch(fresh, nested=True)

    def find(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find`; whether it is there turns out later."""
        if descriptor.data is not None:
            return BlobData(descriptor.data)
        return RemoteBlob(descriptor.digest, descriptor.size, self._origin)

    def find_manifest(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find_manifest`; its digest is proven."""
        if descriptor.data is not None:
            return BlobData(descriptor.data)
        refuse_schema_1(descriptor.media_type, self._at(descriptor.digest))
        if descriptor.digest not in self._manifests and descriptor.digest not in self._failed:
            on_loop(partial(self._fetch, descriptor))
        if descriptor.digest in self._failed:
            raise self._failed[descriptor.digest].again()
        return BlobData(self._manifests[descriptor.digest])

    def holds(self, digest: Digest) -> bool:
        """Whether the repository has a manifest of this digest, or an index of it names a blob."""
        if digest in self._manifests or digest in self._blobs:
            return True
        if digest in self._failed:
            # Any other failure has more to say than that it is missing.
            return not isinstance(self._failed[digest], SourceNotFoundError)
        return on_loop(partial(self._is_there, digest))

    async def _entry(self, tag: str | None, digest: Digest | None) -> Descriptor:
        """An entry, from HEAD alone where the registry says enough."""
        reference = digest or tag
        assert reference is not None
        found = await self.look_up(tag, digest)
        if found is None:
            raise await self._missing(reference)
        return found

    async def look_up(self, tag: str | None, digest: Digest | None = None) -> Descriptor | None:
        """What a tag or a digest is; None if it is not there.

        :param tag: becomes its name.
        :param digest: what the tag is taken for, wherever it points by now.
        """
        reference = digest or tag
        assert reference is not None
        place = self._at(reference)
        head = await self.source.call(
            "HeadManifest",
            str(self.place),
            partial(self._reading.head_manifest, self.place.name, reference),
        )
        if head is None:
            return None
        refuse_schema_1(head.media_type, place)
        known, kind, size = head.digest or digest, head.media_type, head.size
        if known is None or kind not in mediatypes.MANIFESTS or not size:
            manifest = await self._get(reference)
            known, kind, size = manifest.digest, manifest.media_type, len(manifest.raw)
            self._manifests[known] = manifest.raw
        return Descriptor(
            media_type=kind,
            digest=known,
            size=size,
            annotations=None if tag is None else {REF_NAME: tag},
        )

    async def _get(self, reference: str) -> TaggedManifest:
        try:
            return await self.source.call(
                "GetManifest",
                str(self.place),
                partial(self._reading.get_manifest, self.place.name, reference),
            )
        except SourceNotFoundError:
            raise await self._missing(reference) from None

    async def _fetch(self, descriptor: Descriptor) -> None:
        """Fetch a manifest by its digest; a failure is kept."""
        digest = descriptor.digest
        try:
            refuse_schema_1(descriptor.media_type, self._at(digest))
            manifest = await self.source.call(
                "GetManifest",
                str(self.place),
                partial(self._reading.get_manifest, self.place.name, digest),
            )
            if len(manifest.raw) != descriptor.size:
                raise DigestMismatchError(
                    f"the manifest has {len(manifest.raw)} bytes, its descriptor says"
                    f" {descriptor.size}",
                    advice="push the image to the source again, or leave it out",
                    source=self._at(digest),
                )
        except AsyncpushError as exc:
            self._failed[digest] = exc
        else:
            self._manifests[digest] = manifest.raw
            self._failed.pop(digest, None)

    def _unfetched(self, descriptors: Iterable[Descriptor]) -> Iterable[Descriptor]:
        """Those that are worth a call: neither fetched nor failed for good."""
        unique = {d.digest: d for d in descriptors if d.data is None}
        return [
            d
            for digest, d in unique.items()
            if digest not in self._manifests
            and isinstance(self._failed.get(digest), TransientError | None)
        ]

    def _named_by(self, descriptor: Descriptor) -> list[Descriptor]:
        """The manifests that a manifest names; whatever is wrong with it turns out in planning."""
        raw = self._manifests.get(descriptor.digest, descriptor.data)
        if raw is None:
            return []
        try:
            manifest = parse_manifest(raw, descriptor.media_type)
        except AsyncpushError:
            return []
        named = [] if manifest.subject is None else [manifest.subject]
        if isinstance(manifest, ImageIndex):
            for child in manifest.manifests:
                if child.media_type in mediatypes.MANIFESTS | mediatypes.SCHEMA_1:
                    named.append(child)
                else:
                    self._blobs.add(child.digest)
        return named

    async def _is_there(self, digest: Digest) -> bool:
        head = await self.source.call(
            "HeadManifest",
            str(self.place),
            partial(self._reading.head_manifest, self.place.name, digest),
        )
        return head is not None

    async def _missing(self, reference: str) -> AsyncpushError:
        """The error that says what is missing, and what is there instead."""
        if ":" in reference:
            return SourceNotFoundError(
                f"there is no manifest {parse_digest(reference)} in the source repository",
                advice="check the digest; the image may have been deleted",
                source=self._at(),
            )
        try:
            page = await self.source.call(
                "ListTags", str(self.place), partial(self._reading.tags, self.place.name)
            )
        except SourceNotFoundError as exc:
            return self.no_repository(exc)
        except AsyncpushError:
            names: tuple[str, ...] = ()
        else:
            names = page.names
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return SourceNotFoundError(
            f"there is no tag {reference} in the source repository",
            advice=f"tags are {', '.join(names[:10])}{more}" if names else "check the tag",
            source=self._at(),
        )

    def no_repository(self, cause: SourceNotFoundError) -> SourceNotFoundError:
        """The error of a repository that is not there."""
        return SourceNotFoundError(
            f"the source repository {self.place} does not exist",
            advice="check its name, and sign in if it is private",
            **{**cause.where, "source": self._at()},
        )

    def _at(self, reference: str = "") -> str:
        return self._reading.place(self.place.name, reference)
