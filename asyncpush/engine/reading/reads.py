"""Which blobs are being read, for whom: one window for all who want the same bytes of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import anyio

from asyncpush.engine.reading.calls import SourceCalls
from asyncpush.engine.reading.connection import SourceConnection
from asyncpush.engine.reading.pool import Pool
from asyncpush.engine.reading.proof import Proof
from asyncpush.engine.reading.window import Place, Window
from asyncpush.errors import SourceError, TransientError
from asyncpush.oci.digest import Digest
from asyncpush.oci.remote import BlobOrigin, RemoteBlob
from asyncpush.registries.content import read_manifest

# A target that took no byte of any blob for so long is not waited for.
_LIFE = 15.0
# A blob is kept whole if it is at most this share of the pool.
_KEEP = 8

_Key = tuple[BlobOrigin, Digest]


@dataclass(slots=True)
class Expected:
    """The targets that are to read a blob and have not begun."""

    begun: float
    life: dict[str, float]
    targets: set[str] = field(default_factory=set)

    def until(self) -> float | None:
        """Until when to wait for them, as things stand; None if there are none."""
        if not self.targets:
            return None
        return max(self.life.get(target, self.begun) for target in self.targets) + _LIFE

    def give_up(self) -> None:
        """They have not come in time, and read for themselves when they do."""
        self.targets.clear()


class Reads:
    """All reading of blobs that are not on this machine, of one push into any number of registries.

    :param calls: makes the calls to sources.
    :param memory: bytes that all windows hold together, beyond 256 KiB for each.
    :param hashing: limits the threads that hash.
    """

    def __init__(self, calls: SourceCalls, memory: int, hashing: anyio.CapacityLimiter) -> None:
        self.calls = calls
        self.pool = Pool(memory)
        self.reserving: dict[_Key, anyio.Event] = {}
        self._life: dict[str, float] = {}
        self._hashing = hashing
        self._windows: dict[_Key, list[Window]] = {}
        self._expected: dict[_Key, Expected] = {}

    def expect(self, blob: RemoteBlob, target: str) -> None:
        """A target may have to read a blob: the first one that does waits for it a while.

        :param target: the registry, by the name that its reader will give.
        """
        key = (blob.origin, blob.digest)
        expected = self._expected.get(key)
        if expected is None:
            expected = self._expected[key] = Expected(anyio.current_time(), self._life)
        expected.targets.add(target)

    def alive(self, target: str) -> None:
        """A target makes progress, so that waiting for it is worth it."""
        self._life[target] = anyio.current_time()

    def forgo(self, blob: RemoteBlob, target: str) -> None:
        """A target is not going to read a blob, or no more."""
        key = (blob.origin, blob.digest)
        expected = self._expected.get(key)
        if expected is not None:
            self._discard(key, expected, target)
            for window in self._windows.get(key, ()):
                window.trim()

    async def manifest(self, blob: RemoteBlob) -> bytes:
        """A manifest, whole and proven, with retries.

        :raises ContentError: it cannot be read, or is not what its descriptor says.
        """

        async def read() -> bytes:
            return await read_manifest(blob, blob.digest)

        try:
            return await self.calls.call(blob.origin.name, read)
        except TransientError as exc:
            raise SourceError(exc.message, advice=exc.advice, **exc.where) from exc

    def find(self, blob: RemoteBlob, offset: int) -> Window | None:
        """A window that a reader can join at an offset."""
        for window in self._windows.get((blob.origin, blob.digest), ()):
            if window.usable and window.covers(offset):
                return window
        return None

    def join(
        self, blob: RemoteBlob, offset: int, target: str, proof: Proof | None
    ) -> tuple[Window, Place]:
        """A place in a window that covers an offset, and the window.

        :param proof: the hash of what the reader has read before, where it goes on.
        """
        key = (blob.origin, blob.digest)
        expected = self._expected.get(key)
        if expected is not None:
            self._discard(key, expected, target)
        window = self.find(blob, offset)
        if window is None:
            if offset == 0:
                proof = Proof(blob, self._hashing)
            elif proof is not None and proof.offset < offset:
                # Taken up in the middle: the target's own proof at completion is what counts.
                proof = None
            window = Window(
                blob,
                offset,
                SourceConnection(blob, offset, self.calls),
                self.pool,
                expected or Expected(0.0, self._life),
                proof=proof,
                whole=blob.size <= self.pool.total // _KEEP,
            )
            self._windows.setdefault(key, []).append(window)
        elif window.empty:
            window.adopt(self.pool.reuse(window))
        return window, window.join(offset)

    async def leave(self, blob: RemoteBlob, window: Window, place: Place) -> None:
        """Give a place up; the last reader closes the window, or leaves a small blob there."""
        if not window.holds(place):
            return
        window.leave(place)
        if not window.empty:
            return
        window.release()
        forget = partial(self._remove, blob, window)
        if window.usable and window.complete and self.pool.keep(window, blob.size, forget):
            return
        self._remove(blob, window)
        await window.close()

    def _discard(self, key: _Key, expected: Expected, target: str) -> None:
        expected.targets.discard(target)
        if not expected.targets:
            del self._expected[key]

    def _remove(self, blob: RemoteBlob, window: Window) -> None:
        key = (blob.origin, blob.digest)
        windows = self._windows[key]
        windows.remove(window)
        if not windows:
            del self._windows[key]
        window.forget()
