"""An OCI image layout in S3: planned from as one on disk, its blobs read from the bucket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

import anyio.to_thread

from asyncpush.errors import AsyncpushError, BlobMissingError, DigestMismatchError, LayoutError
from asyncpush.oci import digest as digests
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import (
    MAX_INDEX_BYTES,
    BlobData,
    BlobSource,
    check_layout_version,
    parse_entries,
)
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES
from asyncpush.oci.remote import RemoteBlob
from asyncpush.sources.bridge import on_loop
from asyncpush.sources.s3.bucket import Bucket, Found
from asyncpush.sources.s3.manifests import Manifests

_MOST_VERSION_BYTES = 65536


class S3Layout:
    """A layout in S3, which is a :class:`~asyncpush.oci.layout.Content` and the
    :class:`~asyncpush.oci.remote.BlobOrigin` of its own blobs.

    The methods that are not async belong on a thread that anyio started; they may ask S3.

    :param prefix: ends in a slash, unless the layout is at the bucket's root.
    :param entries: of its ``index.json``.
    :param blobs: what is known to be there, by key behind ``blobs/``.
    :param complete: whether that is all.
    """

    registry: str | None = None
    repository: str | None = None

    def __init__(
        self,
        bucket: Bucket,
        prefix: str,
        entries: tuple[Descriptor, ...],
        blobs: dict[str, Found],
        *,
        complete: bool,
    ) -> None:
        self.name = bucket.address(prefix).removesuffix("/")
        self.root = self.name
        self.problems: Mapping[str, AsyncpushError] = {}
        self.entries = entries
        self._bucket = bucket
        self._prefix = prefix
        self._complete = complete
        self._blobs: dict[str, Found | None] = {**blobs}
        self._manifests = Manifests(self.name, self._fetch, None if complete else self._ask)

    @property
    def numbered(self) -> Sequence[Descriptor]:
        """Its entries, in the order of ``index.json``."""
        return self.entries

    def __repr__(self) -> str:
        return f"S3Layout({self.name!r})"

    def find(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find`."""
        if descriptor.data is not None:
            return BlobData(descriptor.data)
        found = self._found(descriptor)
        if found is None:
            raise self._missing(descriptor)
        if found.size != descriptor.size:
            raise DigestMismatchError(
                f"the object has {found.size} bytes, its descriptor says {descriptor.size}",
                advice="object or descriptor is damaged; copy the image into the layout again",
                digest=descriptor.digest,
                file=self._bucket.address(self._key(descriptor.digest)),
            )
        return RemoteBlob(descriptor.digest, descriptor.size, self)

    def find_manifest(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find_manifest`; its bytes are fetched."""
        return self._manifests.find(descriptor)

    def holds(self, digest: Digest) -> bool:
        """See :meth:`asyncpush.oci.layout.Layout.holds`."""
        return self._found(Descriptor("", digest, 0)) is not None

    async def prefetch(self, descriptors: Sequence[Descriptor], *, nested: bool) -> None:
        """See :class:`~asyncpush.oci.remote.RemoteContent`; sizes that no listing has come along.

        At most 64 MiB of manifests are kept.
        """
        await self._manifests.prefetch(descriptors, nested=nested)

    @contextlib.asynccontextmanager
    async def read(
        self, digest: Digest, size: int, offset: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """See :class:`asyncpush.oci.remote.BlobOrigin`."""
        found = self._blobs.get(_name(digest))
        etag = None if found is None else found.etag
        async with self._bucket.stream(self._key(digest), offset, size - offset, etag) as pieces:
            yield pieces

    def _found(self, descriptor: Descriptor) -> Found | None:
        name = _name(descriptor.digest)
        if not self._complete and name not in self._blobs:
            on_loop(partial(self._ask, descriptor))
        return self._blobs.get(name)

    async def _ask(self, descriptor: Descriptor) -> None:
        """Ask for a blob that no listing has."""
        name = _name(descriptor.digest)
        if name not in self._blobs:
            self._blobs[name] = await self._bucket.find(self._key(descriptor.digest))

    async def _fetch(self, descriptor: Descriptor) -> bytes:
        name, key = _name(descriptor.digest), self._key(descriptor.digest)
        if self._complete and name not in self._blobs:
            raise self._missing(descriptor)
        try:
            raw = await self._bucket.whole(key, MAX_MANIFEST_BYTES)
        except BlobMissingError as exc:
            raise self._missing(descriptor) from exc
        except AsyncpushError as exc:
            raise exc.at(digest=descriptor.digest) from exc.__cause__
        if not self._complete:
            # That it is there need not be asked again.
            self._blobs.setdefault(name, Found(len(raw), None))
        return raw

    def _missing(self, descriptor: Descriptor) -> BlobMissingError:
        return BlobMissingError(
            "the layout does not hold this blob",
            advice="copy the image into the layout again",
            digest=descriptor.digest,
            file=self._bucket.address(self._key(descriptor.digest)),
        )

    def _key(self, digest: Digest) -> str:
        return f"{self._prefix}blobs/{_name(digest)}"


async def open_s3_layout(bucket: Bucket, prefix: str) -> S3Layout:
    """Open a layout: its version, its entries, and the sizes of up to 10,000 blobs.

    Where it has more blobs, or the principal may not list the bucket, sizes are asked for one by
    one when they are needed.

    :param prefix: the keys' part before ``/oci-layout``; empty for the bucket's root.
    :raises LayoutError: there is no layout, or it is damaged.
    :raises LimitError: its ``index.json`` is larger than 256 MiB.
    :raises RegistryError: S3 does not give it.
    """
    begin = f"{prefix}/" if prefix else ""
    key = f"{begin}oci-layout"
    try:
        version = await bucket.whole(key, _MOST_VERSION_BYTES)
    except BlobMissingError as exc:
        raise LayoutError(
            "there is no OCI layout below this prefix: it has no object oci-layout",
            advice="check the prefix, or copy a layout there with: aws s3 sync DIRECTORY"
            f" {bucket.address(prefix)}",
            file=bucket.address(key),
        ) from exc
    check_layout_version(version, bucket.address(key))
    key = f"{begin}index.json"
    try:
        index = await bucket.whole(key, MAX_INDEX_BYTES)
    except BlobMissingError as exc:
        raise LayoutError("the layout has no index.json", file=bucket.address(key)) from exc
    # An index of 100,000 entries takes a second.
    entries = await anyio.to_thread.run_sync(parse_entries, index, bucket.address(key))
    blobs, complete = await bucket.listing(f"{begin}blobs/")
    return S3Layout(bucket, begin, entries, blobs, complete=complete)


def _name(digest: Digest) -> str:
    return f"{digests.algorithm(digest)}/{digests.encoded(digest)}"
