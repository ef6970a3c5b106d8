"""Reading a blob in pieces, by offset, from a file, from memory or from elsewhere."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
import anyio.to_thread

from asyncpush.errors import ContentError, LimitError
from asyncpush.oci import layout
from asyncpush.oci.digest import Digest, verify
from asyncpush.oci.layout import BlobData, BlobRange, BlobSource, LocalBlob
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES
from asyncpush.oci.remote import RemoteBlob

# Linux answers EAGAIN to such a read that would have to wait for the disk.
_NOWAIT = getattr(os, "RWF_NOWAIT", None)


class LocalReader(Protocol):
    """Content that can be read again and again, from any offset, on any thread."""

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer from an offset on. May wait for the disk, so it belongs on a thread.

        :raises ContentError: the content ends before the buffer is full, or cannot be read.
        """
        ...

    def read_into_nowait(self, buffer: memoryview, offset: int) -> bool:
        """As :meth:`read_into`, but only if that takes no waiting.

        :return: False if it would have to wait; the buffer's content is then undefined.
        """
        ...

    def waits(self, offset: int, length: int) -> bool:
        """Whether it is known that reading these bytes takes waiting for the disk."""
        ...

    def file(self) -> tuple[int, int] | None:
        """The open file that holds the content and the offset where it begins, if there is one."""
        ...


class StreamReader(ABC):
    """Content that comes from elsewhere and is read in order, once if possible.

    One part of a blob is read at a time.
    """

    @abstractmethod
    async def read(self, offset: int, most: int) -> bytes | memoryview:
        """The bytes from an offset on, at least one and at most ``most``.

        The next read goes on behind them; one at another offset costs a connection.

        :raises ContentError: the content cannot be read, or is not what its descriptor says. The
            last byte of a blob that was read in order is only given once its digest is proven.
        """


BlobReader = LocalReader | StreamReader


class _FileReader:
    def __init__(self, fd: int, path: str, base: int) -> None:
        self._fd = fd
        self._path = path
        self._base = base

    def read_into(self, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._fd, [buffer[done:]], self._base + offset + done)
            except OSError as exc:
                raise ContentError(f"cannot be read: {exc.strerror}", file=self._path) from exc
            if count == 0:
                raise ContentError(
                    f"the file ends at byte {offset + done}; it became shorter while it was read",
                    advice="push again when nothing writes to the layout",
                    file=self._path,
                )
            done += count

    def read_into_nowait(self, buffer: memoryview, offset: int) -> bool:
        if _NOWAIT is None:
            return False
        try:
            return os.preadv(self._fd, [buffer], self._base + offset, _NOWAIT) == len(buffer)
        except OSError:
            # Not in memory, or a file system without such reads: the thread's read will tell.
            return False

    def waits(self, offset: int, length: int) -> bool:
        if _NOWAIT is None:
            return False
        # What is read ahead comes in runs, so the ends tell of what is between them.
        for at in (offset, offset + length - 1):
            try:
                os.preadv(self._fd, [bytearray(1)], self._base + at, _NOWAIT)
            except BlockingIOError:
                return True
            except OSError:
                return False  # A file system without such reads.
        return False

    def file(self) -> tuple[int, int] | None:
        return self._fd, self._base


class _MemoryReader:
    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = self._data[offset : offset + len(buffer)]

    def read_into_nowait(self, buffer: memoryview, offset: int) -> bool:
        self.read_into(buffer, offset)
        return True

    def waits(self, offset: int, length: int) -> bool:  # noqa: ARG002 - nothing waits here
        return False

    def file(self) -> tuple[int, int] | None:
        return None


@asynccontextmanager
async def open_blob(source: LocalBlob) -> AsyncIterator[LocalReader]:
    """Open a blob on this machine for reading; one file descriptor until the context ends.

    :raises ContentError: the file cannot be opened.
    """
    if isinstance(source, BlobData):
        yield _MemoryReader(source.data)
        return
    if isinstance(source, BlobRange) and source.file is not None:
        yield _FileReader(source.file.fileno(), source.path, source.offset)
        return
    import aiofiles  # noqa: PLC0415 - takes a while to import, and copies do not need it

    try:
        # Cancelled while a thread opens it, the file would be nobody's to close.
        with anyio.CancelScope(shield=True):
            file = await aiofiles.open(source.path, "rb", buffering=0)
    except OSError as exc:
        raise ContentError(f"cannot be opened: {exc.strerror}", file=source.path) from exc
    try:
        base = source.offset if isinstance(source, BlobRange) else 0
        yield _FileReader(file.fileno(), source.path, base)
    finally:
        with anyio.CancelScope(shield=True):
            await file.close()


async def read_manifest(source: BlobSource, digest: Digest) -> bytes:
    """The bytes of a manifest as they are at their source, proven once more.

    :raises ContentError: they cannot be read, or are not what they were when they were planned.
    :raises TransientError: the source's connection broke; a call is tried once here.
    """
    if isinstance(source, BlobData):
        return source.data
    if isinstance(source, RemoteBlob):
        raw = await _read_remote(source)
    else:
        try:
            # On one thread from opening to closing, so that a cancelled push leaves no file open.
            raw = await anyio.to_thread.run_sync(layout.read_manifest, source)
        except OSError as exc:
            raise ContentError(f"cannot be read: {exc.strerror}", file=source.path) from exc
    verify(raw, digest, source.size)
    return raw


async def _read_remote(source: RemoteBlob) -> bytes:
    """A small blob, whole; one byte too many ends the reading."""
    if source.size > MAX_MANIFEST_BYTES:
        raise LimitError(
            f"the manifest has {source.size} bytes, registries take at most {MAX_MANIFEST_BYTES}",
            digest=source.digest,
            source=source.origin.name,
        )
    raw = bytearray()
    async with source.origin.read(source.digest, source.size, 0) as pieces:
        async for piece in pieces:
            raw += piece
            if len(raw) > source.size:
                break
    return bytes(raw)
