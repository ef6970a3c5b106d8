"""One upload's way through a blob that comes from elsewhere: as a stream, or a part at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio

from asyncpush.engine.reading.proof import Proof
from asyncpush.engine.reading.reads import Reads
from asyncpush.engine.reading.window import Place, Window
from asyncpush.errors import AsyncpushError
from asyncpush.oci.digest import verify
from asyncpush.oci.remote import RemoteBlob
from asyncpush.registries.content import LocalReader, StreamReader


@asynccontextmanager
async def open_remote(reads: Reads, blob: RemoteBlob, target: str) -> AsyncIterator[RemoteReader]:
    """Read a blob for a target; the source is asked with the first read.

    :param target: who reads it, by the name that :meth:`Reads.expect` knows.
    :raises DigestMismatchError: the blob is empty, and its digest is that of other content.
    """
    if blob.size == 0:
        verify(b"", blob.digest)
    reader = RemoteReader(blob, target, reads)
    try:
        yield reader
    finally:
        with anyio.CancelScope(shield=True):
            await reader.aclose()


class RemoteReader(StreamReader):
    """Reads one blob for one upload.

    :param target: who reads it.
    """

    def __init__(self, blob: RemoteBlob, target: str, reads: Reads) -> None:
        self._blob = blob
        self._target = target
        self._reads = reads
        self._window: Window | None = None
        self._place: Place | None = None
        # The hash of what was read before, where the reader goes on by itself.
        self._proof: Proof | None = None
        self._closed = False

    async def read(self, offset: int, most: int) -> bytes | memoryview:
        """See :class:`~asyncpush.registries.content.StreamReader`."""
        while True:
            window, place = await self._join(offset)
            piece = await window.read(place, offset, offset)
            if piece is not None:
                self._reads.alive(self._target)
                return piece if len(piece) <= most else memoryview(piece)[:most]

    async def read_ahead(self) -> None:
        """Have the first bytes at hand for :meth:`read`, which also raises what fails."""
        with suppress(AsyncpushError):
            await self.read(0, 1)

    @asynccontextmanager
    async def part(self, offset: int, length: int) -> AsyncIterator[LocalReader]:
        """Have a part in memory while the context lasts, to be read as often as needed.

        Waits for the memory first; other readers of the blob use the same.

        :raises ContentError: it cannot be read, or is not what its descriptor says.
        """
        pieces: list[bytes | memoryview] | None = None
        while pieces is None:
            await self._reserve(offset, length)
            pieces = await self._load(offset, length)
        window, place = self._window, self._place
        assert window is not None
        assert place is not None
        place.part = length
        try:
            yield _PartReader(pieces, offset)
            window.move(place, offset + length)
        finally:
            pieces.clear()
            place.part = 0
            self._reads.pool.give(place.forced)
            place.forced = 0

    async def aclose(self) -> None:
        """Leave for good; the last reader of a blob closes its connection."""
        self._closed = True
        await self._leave()

    async def _leave(self) -> None:
        window, place = self._window, self._place
        self._window = self._place = None
        if window is not None and place is not None:
            await self._reads.leave(self._blob, window, place)

    async def _join(self, offset: int) -> tuple[Window, Place]:
        """The reader's place in a window that has, or is to have, this byte next."""
        await self._leave_unless(offset)
        if self._window is None or self._place is None:
            if self._closed:
                # A body that aiohttp has given up, and not yet ended.
                raise anyio.ClosedResourceError
            join = self._reads.join(self._blob, offset, self._target, self._proof)
            self._window, self._place = join
        return self._window, self._place

    async def _leave_unless(self, offset: int) -> None:
        """Leave the window, unless this byte can be read from it.

        The reader has lost its place, or a target wants bytes again that have left the window.
        """
        window, place = self._window, self._place
        if window is None or place is None or (window.holds(place) and window.covers(offset)):
            return
        self._proof = window.fork_proof()
        await self._leave()

    async def _reserve(self, offset: int, length: int) -> None:
        """Join a window that may hold a part.

        A reader joins it with the memory in hand: one that waits for memory holds up no other.
        """
        await self._leave_unless(offset)
        reads, key = self._reads, (self._blob.origin, self._blob.digest)
        need = min(length, reads.pool.total)
        while True:
            window = self._window or reads.find(self._blob, offset)
            if window is not None and window.reserved:
                # Were it too little, to wait for more while others wait for this could be endless.
                got = max(0, need - window.reserved)
                reads.pool.force(got)
                break
            waiting = reads.reserving.get(key)
            if waiting is not None:
                await waiting.wait()
                continue
            reserved = reads.reserving[key] = anyio.Event()
            try:
                got = await reads.pool.reserve(need)
            finally:
                del reads.reserving[key]
                reserved.set()
            break
        try:
            window, place = await self._join(offset)
        except BaseException:
            reads.pool.give(got)
            raise
        window.reserve(place, got)

    async def _load(self, offset: int, length: int) -> list[bytes | memoryview] | None:
        """The pieces of a part; None if the reader has lost its place meanwhile."""
        window, place = self._window, self._place
        assert window is not None
        assert place is not None
        pieces: list[bytes | memoryview] = []
        at, end = offset, offset + length
        while at < end:
            piece = await window.read(place, at, offset)
            if piece is None:
                return None
            self._reads.alive(self._target)
            if len(piece) > end - at:
                piece = memoryview(piece)[: end - at]
            pieces.append(piece)
            at += len(piece)
        return pieces


class _PartReader:
    """A part in pieces as they came, behind the reader of local content."""

    def __init__(self, pieces: list[bytes | memoryview], offset: int) -> None:
        self._pieces = pieces
        self._starts: list[int] = []
        for piece in pieces:
            self._starts.append(offset)
            offset += len(piece)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        index = bisect_right(self._starts, offset) - 1
        within, done = offset - self._starts[index], 0
        while done < len(buffer):
            piece = memoryview(self._pieces[index])[within : within + len(buffer) - done]
            buffer[done : done + len(piece)] = piece
            done += len(piece)
            index, within = index + 1, 0

    def read_into_nowait(self, buffer: memoryview, offset: int) -> bool:
        self.read_into(buffer, offset)
        return True

    def waits(self, offset: int, length: int) -> bool:  # noqa: ARG002 - it is in memory
        return False

    def file(self) -> tuple[int, int] | None:
        return None
