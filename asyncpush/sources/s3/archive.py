"""An OCI archive in S3: its headers are read by ranges, its blobs are ranges of its key."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial

import anyio
import anyio.to_thread

from asyncpush.errors import (
    AsyncpushError,
    BlobMissingError,
    ContentError,
    LayoutError,
    SourceNotFoundError,
)
from asyncpush.oci.archive import OciArchive, archive_in
from asyncpush.oci.decompress import MAGIC_BYTES, compression_of
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.dockerarchive import DockerArchive
from asyncpush.oci.layout import BlobData, BlobRange, BlobSource
from asyncpush.oci.remote import RemoteBlob
from asyncpush.oci.scratch import Scratch
from asyncpush.oci.tar import Tar, checked
from asyncpush.sources.bridge import on_loop
from asyncpush.sources.s3.bucket import Bucket, Found
from asyncpush.sources.s3.manifests import Manifests

HEADERS_AHEAD = 256 * 1024
"""Bytes of one read of headers: what lies between small files comes along, a layer does not."""
_SPOOL_AHEAD = 8 * 1024 * 1024


class ReadAhead:
    """Bytes that are fetched in large pieces and asked for in small ones.

    :param fetch: gives bytes from an offset on, fewer than asked for only at the end.
    :param size: bytes in all.
    :param window: the least that is fetched at a time.
    :param start: the first bytes, where they are there already.
    """

    def __init__(
        self, fetch: Callable[[int, int], bytes], size: int, window: int, start: bytes = b""
    ) -> None:
        self._fetch = fetch
        self._size = size
        self._window = window
        self._offset = 0
        self._held = start

    def read(self, offset: int, size: int) -> bytes:
        """See :class:`asyncpush.oci.tar.RandomAccess`."""
        size = max(0, min(size, self._size - offset))
        at = offset - self._offset
        if at < 0 or at + size > len(self._held):
            wanted = min(max(size, self._window), self._size - offset)
            self._held = self._fetch(offset, wanted) if size else b""
            self._offset, at = offset, 0
        return self._held[at : at + size]


class S3Archive(OciArchive):
    """An OCI archive that is read in place; also the origin of its own blobs.

    :param tar: its headers.
    :param key: where in the bucket it is.
    :param version: what it was when its headers were read; another one is not read.
    """

    def __init__(self, tar: Tar, bucket: Bucket, key: str, version: Found) -> None:
        super().__init__(tar)
        self.name = bucket.address(key)
        self.problems: Mapping[str, AsyncpushError] = {}
        self._bucket = bucket
        self._key = key
        self._version = version
        self._manifests = Manifests(self.name, self._fetch)

    def find(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find`."""
        if descriptor.data is not None:
            return BlobData(descriptor.data)
        checked(self.range_of(descriptor.digest), descriptor, self.name)
        return RemoteBlob(descriptor.digest, descriptor.size, self)

    def find_manifest(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find_manifest`; its bytes are fetched."""
        return self._manifests.find(descriptor)

    async def prefetch(self, descriptors: Sequence[Descriptor], *, nested: bool) -> None:
        """See :class:`~asyncpush.oci.remote.RemoteContent`."""
        await self._manifests.prefetch(descriptors, nested=nested)

    @contextlib.asynccontextmanager
    async def read(
        self, digest: Digest, size: int, offset: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """See :class:`asyncpush.oci.remote.BlobOrigin`."""
        begin = self._range(Descriptor("", digest, size)).offset
        etag = self._version.etag
        async with self._bucket.stream(self._key, begin + offset, size - offset, etag) as pieces:
            yield pieces

    async def _fetch(self, descriptor: Descriptor) -> bytes:
        place = self._range(descriptor)
        if not place.size:
            return b""
        data, _ = await self._bucket.span(self._key, place.offset, place.size, self._version.etag)
        return data

    def _range(self, descriptor: Descriptor) -> BlobRange:
        found = self.range_of(descriptor.digest)
        checked(found, descriptor, self.name)
        assert found is not None, "it was checked"
        return found


async def open_s3_archive(
    bucket: Bucket,
    key: str,
    kind: str = "oci-archive",
    scratch: Scratch | None = None,
    *,
    spooling: anyio.CapacityLimiter | None = None,
    compress_layers: bool = False,
) -> S3Archive | OciArchive | DockerArchive:
    """Open an archive.

    An OCI archive that is not compressed is read in place. What is compressed, and what docker save
    wrote, goes through the scratch file, whose bound it must keep to; it then needs S3 no more.

    :param kind: ``oci-archive`` or ``docker-archive``.
    :param scratch: takes what cannot be read in place.
    :param spooling: of one token, for all archives that share the scratch file, which only one
        thread at a time may use.
    :param compress_layers: see :func:`asyncpush.oci.archive.open_archive`.
    :raises ContentError: it is not there, cannot be read, or holds no such images.
    :raises TemporarySpaceError: it is larger than the scratch file may be.
    :raises RegistryError: S3 does not give it.
    """
    name = bucket.address(key)
    try:
        start, version = await bucket.span(key, 0, HEADERS_AHEAD)
    except BlobMissingError as exc:
        raise SourceNotFoundError(
            "the archive is not there", advice="check the key", file=name
        ) from exc
    except ContentError as exc:
        if exc.where.get("error") in ("InvalidRange", "416"):
            raise LayoutError("the archive is empty", file=name) from exc
        raise
    scratch = scratch or Scratch()

    def fetch(offset: int, size: int) -> bytes:
        data, _ = on_loop(partial(bucket.span, key, offset, size, version.etag))
        return data

    def in_place() -> S3Archive:
        ahead = ReadAhead(fetch, version.size, HEADERS_AHEAD, start)
        whole = BlobRange(name, 0, version.size)
        return S3Archive(Tar(whole, scratch.check, ahead), bucket, key, version)

    def spooled() -> OciArchive | DockerArchive:
        ahead = ReadAhead(fetch, version.size, _SPOOL_AHEAD, start)
        tar = Tar(scratch.spool(_Following(ahead).read, name), scratch.check)
        return archive_in(tar, kind, scratch, compress_layers=compress_layers)

    if kind == "oci-archive" and compression_of(start[:MAGIC_BYTES]) is None:
        return await anyio.to_thread.run_sync(in_place)
    return await anyio.to_thread.run_sync(spooled, limiter=spooling)


class _Following:
    """Reads on from where it has read to."""

    def __init__(self, content: ReadAhead) -> None:
        self._content = content
        self._at = 0

    def read(self, size: int) -> bytes:
        data = self._content.read(self._at, size)
        self._at += len(data)
        return data
