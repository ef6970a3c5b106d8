"""The body of UploadLayerPart, made twice instead of held once: to hash it, then to send it.

A part of 10 MiB is 14 MiB of base64 in JSON, and the signature wants the SHA-256 of all of it
before the first byte goes. Encoding is so much cheaper than hashing that the text is made again,
piece by piece, when it is sent: every piece stays in the processor's cache, and a part in flight
holds a few hundred KiB.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import AsyncIterator

import anyio
import anyio.to_thread
import pybase64

from asyncpush.errors import ContentError
from asyncpush.registries.content import BlobReader, StreamReader

PIECE = 384 * 1024
"""Bytes of a blob that are encoded at a time. A multiple of 3, so that pieces join without padding,
and small enough that a piece and its text stay in the second-level cache."""

PART_MEMORY = PIECE + 3 * (PIECE // 3 * 4)
"""Bytes that a body in flight holds: a piece, its text, and what waits in the socket's buffer."""

_TAIL = b'"}'
_scratch = threading.local()


class PartBody:
    """The JSON document around one part, which can be iterated as often as it must be sent.

    botocore asks a body for its length (``len``) and rewinds it (``seek``) before a retry of its
    own; aiohttp iterates it.

    :param head: the document up to and with the quote that opens the base64 text.
    :param blob: what the part is read from, twice: no stream.
    :param offset: first byte of the part.
    :param length: bytes of the part.
    :param hashing: limits the threads that hash.
    """

    def __init__(
        self,
        head: bytes,
        blob: BlobReader,
        offset: int,
        length: int,
        hashing: anyio.CapacityLimiter,
    ) -> None:
        if isinstance(blob, StreamReader):
            raise TypeError("a part of a stream must be in memory, since it is read twice")
        self._head = head
        self._blob = blob
        self._offset = offset
        self._length = length
        self._hashing = hashing
        self.failure: ContentError | None = None

    def __len__(self) -> int:
        return len(self._head) + -(-self._length // 3) * 4 + len(_TAIL)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Rewind; every iteration starts at the first byte anyway."""
        if offset or whence:
            raise OSError("this body can only be rewound")
        return 0

    async def sha256(self) -> str:
        """Hex SHA-256 of the whole body, computed on a thread.

        :raises ContentError: the blob cannot be read, or is shorter than it was.
        """
        return await anyio.to_thread.run_sync(self._hash, limiter=self._hashing)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._head
        for at, size in self._pieces():
            yield await self._piece(at, size)
        yield _TAIL

    def _pieces(self) -> list[tuple[int, int]]:
        end = self._offset + self._length
        return [(at, min(PIECE, end - at)) for at in range(self._offset, end, PIECE)]

    async def _piece(self, at: int, size: int) -> bytes:
        # The hashing pass has just brought the part into the page cache, so nearly every read
        # answers at once; one that does not goes to a thread.
        view = _buffer()[:size]
        if self._blob.read_into_nowait(view, at):
            return pybase64.b64encode(view)
        try:
            return await anyio.to_thread.run_sync(self._encode, at, size, limiter=self._hashing)
        except ContentError as exc:
            # aiohttp turns what a body raises into a connection error; the transport looks here.
            self.failure = exc
            raise

    def _encode(self, at: int, size: int) -> bytes:
        view = _buffer()[:size]
        self._blob.read_into(view, at)
        return pybase64.b64encode(view)

    def _hash(self) -> str:
        digest = hashlib.sha256(self._head)
        for at, size in self._pieces():
            digest.update(self._encode(at, size))
        digest.update(_TAIL)
        return digest.hexdigest()


def _buffer() -> memoryview:
    """This thread's read buffer: no read outlives the call that uses it."""
    view: memoryview | None = getattr(_scratch, "view", None)
    if view is None:
        view = _scratch.view = memoryview(bytearray(PIECE))
    return view
