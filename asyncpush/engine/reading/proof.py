"""The digest of a blob, computed on threads while it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.to_thread

from asyncpush.errors import DigestMismatchError
from asyncpush.oci.digest import algorithm, encoded
from asyncpush.oci.remote import RemoteBlob

# A trip to a thread costs about 50 µs: worth it for hashing that takes several times as long.
_BATCH = 512 * 1024
_INLINE = 32 * 1024


class Proof:
    """The hash of a blob from its first byte on.

    :param hashing: limits the threads that hash.
    """

    def __init__(self, blob: RemoteBlob, hashing: anyio.CapacityLimiter) -> None:
        self._blob = blob
        self._hashing = hashing
        self._state = hashlib.new(algorithm(blob.digest))
        self._pending: list[bytes | memoryview] = []
        self._bytes = 0
        self.offset = 0
        """The first byte that was not taken yet."""

    def fork(self) -> Proof:
        """A proof that goes on from here by itself."""
        other = Proof(self._blob, self._hashing)
        other._state, other._pending = self._state.copy(), list(self._pending)
        other._bytes, other.offset = self._bytes, self.offset
        return other

    def take(self, piece: bytes, offset: int) -> None:
        """Take a piece at an offset; what was taken before is skipped.

        Bytes that are read a second time, since a target wants them again, are not hashed a second
        time; the registry proves what it received when the upload is completed.
        """
        end = offset + len(piece)
        if end <= self.offset:
            return
        fresh = piece if offset == self.offset else memoryview(piece)[self.offset - offset :]
        self._pending.append(fresh)
        self._bytes += len(fresh)
        self.offset = end

    async def catch_up(self) -> None:
        """Hash what was taken, once it is worth a thread."""
        if self._bytes >= _BATCH:
            await self._hash()

    async def check(self) -> None:
        """Prove the blob; all of it was taken.

        :raises DigestMismatchError: its digest is another.
        """
        await self._hash()
        found = self._state.hexdigest()
        if found != encoded(self._blob.digest):
            raise DigestMismatchError(
                f"content has the digest {algorithm(self._blob.digest)}:{found}",
                advice="the source's copy is corrupt; copy the image there again",
                digest=self._blob.digest,
                source=self._blob.origin.name,
            )

    async def _hash(self) -> None:
        # On a copy: a thread that is left behind by a cancelled task changes nothing that counts.
        state, pending, count = self._state.copy(), self._pending, self._bytes
        if count <= _INLINE:
            _update(state, pending)
        else:
            await anyio.to_thread.run_sync(_update, state, pending, limiter=self._hashing)
        self._state, self._pending, self._bytes = state, [], 0


def _update(state: Any, pieces: Sequence[bytes | memoryview]) -> None:
    for piece in pieces:
        state.update(piece)
