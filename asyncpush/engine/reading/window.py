"""The part of a blob that several readers share: pulled once, kept until the slowest has it.

There is no task that fills a window. The reader that needs the next byte pulls it for all; when it
is cancelled, the connection closes, and the next reader who needs the byte opens another one there.
The last reader that leaves closes the connection.

No wait is endless. A reader waits

* for another one's pull, which ends with bytes, an error, or a cancellation that passes the pull
  on; a pull waits for the source alone (with its retries) and for a thread to hash on, and never
  for a reader;
* for room, which the slowest reader makes. One that takes less than 256 KiB within ``PATIENCE``
  loses its place in the window and goes on by a connection of its own. (While a part of it that
  lies in memory cannot be accounted for outside of the window, it keeps its place for up to four
  times that.) So two readers that wait for each other in two windows, or for slots and memory that
  the other one holds, part after that time;
* for targets that are expected and have not begun, only while they take bytes of any blob at all,
  and no longer than ``RENDEZVOUS``.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol

import anyio

from asyncpush.engine.reading.connection import SourceConnection
from asyncpush.engine.reading.pool import Pool
from asyncpush.engine.reading.proof import Proof
from asyncpush.errors import AsyncpushError
from asyncpush.oci.remote import RemoteBlob

MIB = 1024 * 1024

WINDOW = 4 * MIB
"""Bytes that the fastest reader of a blob may be ahead of the slowest, if the pool has them."""

FLOOR = 256 * 1024
"""Bytes that a window may always hold."""

PATIENCE = 15.0
"""Seconds in which a reader must take 256 KiB while others wait for it."""

RENDEZVOUS = 30.0
"""Seconds that the first reader of a blob waits at most for targets that are to read it, too."""

_STEP = MIB
_PROGRESS = 256 * 1024
_AT_MOST = 4


class Awaited(Protocol):
    """The targets that are expected at the beginning of a window."""

    def until(self) -> float | None:
        """Until when to wait for them, as things stand; None if there are none."""
        ...

    def give_up(self) -> None:
        """They have not come in time."""
        ...


@dataclass(slots=True, eq=False)
class Place:
    """Where a reader is in a window.

    :param position: the first byte that it may still ask for.
    :param moved: when it last made progress, or had nothing to wait for but the source.
    :param mark: what it read when that was noted.
    :param reserves: whether the window's reservation is for it, too.
    :param part: bytes of the part that it has in memory.
    :param forced: those of them that are accounted for outside of the window.
    """

    position: int
    moved: float
    mark: int
    reserves: bool = False
    part: int = 0
    forced: int = 0


class Window:
    """A stretch of one blob, from ``start`` to ``end``, and those who read it.

    :param proof: hashes what is pulled; None for a blob that is taken up in its middle.
    :param whole: keep all of the blob if there is room, for those who come later.
    :param awaited: who else is expected.
    """

    def __init__(
        self,
        blob: RemoteBlob,
        offset: int,
        source: SourceConnection,
        pool: Pool,
        awaited: Awaited,
        *,
        proof: Proof | None,
        whole: bool,
    ) -> None:
        self.start = self.end = offset
        self.reserved = 0
        self._blob = blob
        self._source = source
        self._pool = pool
        self._awaited = awaited
        self._proof = proof
        self._whole = whole and offset == 0
        self._taken = 0
        self._begun = anyio.current_time()
        self._pieces: list[bytes] = []
        self._starts: list[int] = []
        self._places: set[Place] = set()
        self._failure: AsyncpushError | None = None
        self._pulling = False
        # A piece that was pulled by a reader that was cancelled before it was proven.
        self._pulled: bytes | None = None
        self._changed: anyio.Event | None = None

    @property
    def usable(self) -> bool:
        """Whether another reader may join."""
        return self._failure is None

    @property
    def empty(self) -> bool:
        """Whether all readers have left."""
        return not self._places

    @property
    def complete(self) -> bool:
        """Whether it holds the whole blob, proven."""
        return self.start == 0 and self.end == self._blob.size and self._proof is not None

    def covers(self, offset: int) -> bool:
        """Whether a reader that wants this byte next can join."""
        return self.start <= offset <= self.end

    def join(self, offset: int) -> Place:
        """Let a reader in at an offset that the window covers."""
        place = Place(offset, anyio.current_time(), offset)
        self._places.add(place)
        self.notify()
        return place

    def holds(self, place: Place) -> bool:
        """Whether a reader still has its place."""
        return place in self._places

    def reserve(self, place: Place, size: int) -> None:
        """Take over what a reader has reserved in the pool, beyond what is reserved already."""
        place.reserves = True
        self.reserved += size

    def adopt(self, size: int) -> None:
        """Take over what the pool kept for the window's content while it had no reader."""
        self._taken += size

    def move(self, place: Place, position: int) -> None:
        """A reader needs nothing before a position any more."""
        if position != place.position:
            place.position = position
            self._trim()
            self.notify()

    def leave(self, place: Place) -> None:
        """A reader goes; what it alone needed goes, too."""
        self._places.discard(place)
        if self.reserved and not any(other.reserves for other in self._places):
            # It is given back as the others read on.
            self._taken += self.reserved
            self.reserved = 0
        self._trim()
        self.notify()

    def trim(self) -> None:
        """Let go what is not expected to be needed any more."""
        self._trim()
        self.notify()

    async def close(self) -> None:
        """Close the connection, after the last reader."""
        await self._source.aclose()

    def release(self) -> None:
        """Give back what the pool gave."""
        given, self.reserved, self._taken = self.reserved + self._taken, 0, 0
        self._pool.give(given)

    def forget(self) -> None:
        """Let the content go."""
        self.start = self.end
        self._pieces, self._starts = [], []

    def fork_proof(self) -> Proof | None:
        """A proof for a reader that goes on by itself, from within the window or before it."""
        return None if self._proof is None else self._proof.fork()

    async def read(self, place: Place, offset: int, position: int) -> bytes | memoryview | None:
        """The bytes from an offset on, as many as are at hand and at least one.

        :param position: the first byte that the reader may ask for again.
        :return: None if the reader has lost its place.
        :raises ContentError: the source cannot be read, or the content is not what it should be.
        """
        if abs(offset - place.mark) >= _PROGRESS:
            place.mark, place.moved = offset, anyio.current_time()
        self.move(place, position)
        while True:
            if place not in self._places or offset < self.start:
                return None
            if offset < self.end:
                return self._from(offset)
            if self._failure is not None:
                raise _again(self._failure)
            if self._pulling:
                await self._wait()
            elif self._has_room():
                await self._pull()
            else:
                await self._wait_for_room(place)
            # It is the foremost, so what it waits for is no fault of its own.
            place.moved = anyio.current_time()

    def notify(self) -> None:
        """Something has changed for those who wait."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _wait(self) -> None:
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    async def _pull(self) -> None:
        """Get the next piece for all readers."""
        self._pulling = True
        try:
            if self._pulled is None:
                self._pulled = await self._source.next()
            piece, proof = self._pulled, self._proof
            if proof is not None:
                proof.take(piece, self.end)
                if self.end + len(piece) == self._blob.size:
                    # The last piece stays back until the digest is proven, so that a target that
                    # completes an upload with its last byte never gets it otherwise.
                    await proof.check()
            self._pulled = None
            self._append(piece)
            if proof is not None:
                await proof.catch_up()
        except AsyncpushError as exc:
            self._failure = exc
            raise _again(exc) from exc.__cause__
        finally:
            self._pulling = False
            self.notify()

    def _append(self, piece: bytes) -> None:
        self._starts.append(self.end)
        self._pieces.append(piece)
        self.end += len(piece)
        self.notify()

    def _from(self, offset: int) -> bytes | memoryview:
        index = bisect_right(self._starts, offset) - 1
        within = offset - self._starts[index]
        piece = self._pieces[index]
        return piece if within == 0 else memoryview(piece)[within:]

    def _trim(self) -> None:
        """Let go what no reader needs."""
        if self._whole or self._expects():
            return
        least = min((place.position for place in self._places), default=self.end)
        count = bisect_right(self._starts, least) - 1
        if least >= self.end:
            count = len(self._starts)
        if count > 0:
            del self._starts[:count], self._pieces[:count]
            self.start = self._starts[0] if self._starts else self.end
        allowed = FLOOR + self.reserved + self._taken
        while self._taken >= _STEP and self.end - self.start <= allowed - _STEP:
            self._taken -= _STEP
            allowed -= _STEP
            self._pool.give(_STEP)

    def _expects(self) -> bool:
        return self.start == 0 and self._awaited.until() is not None

    def _has_room(self) -> bool:
        held = self.end - self.start
        if held < FLOOR + self.reserved + self._taken:
            return True
        if (self._whole or held < WINDOW) and self._pool.take(_STEP):
            self._taken += _STEP
            return True
        if self._whole:
            self._whole = False
            self._trim()
            return self._has_room()
        return False

    async def _wait_for_room(self, own: Place) -> None:
        """Wait until something changes, or those who hold the window up have had their time."""
        now = anyio.current_time()
        until = self._awaited.until() if self.start == 0 else None
        if until is not None:
            until = min(until, self._begun + RENDEZVOUS)
            if now >= until:
                self._awaited.give_up()
                self._trim()
                return
        else:
            slowest = min(self._places, key=lambda place: place.position)
            if slowest.position == own.position:
                # The part that it reads is larger than what the pool has in all.
                self._pool.force(_STEP)
                self._taken += _STEP
                return
            until = slowest.moved + PATIENCE
            if now >= until:
                if self._drop(slowest, late=now >= slowest.moved + _AT_MOST * PATIENCE):
                    return
                until = now + 1
        with anyio.move_on_after(until - now):
            await self._wait()

    def _drop(self, slowest: Place, *, late: bool) -> bool:
        """Take a reader's place away, if what it holds can be accounted for elsewhere."""
        if slowest.part:
            if not self._pool.take(slowest.part):
                if not late:
                    return False
                self._pool.force(slowest.part)
            slowest.forced = slowest.part
        self.leave(slowest)
        return True


def _again(error: AsyncpushError) -> AsyncpushError:
    """The same error for another reader, whose upload adds its own place to it."""
    other = copy.copy(error)
    other.where = dict(error.where)
    return other
