"""A blob's bytes in order, over one connection that is opened again where it breaks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import anyio

from asyncpush.engine.reading.calls import SourceCalls
from asyncpush.errors import AsyncpushError, DigestMismatchError, SourceError, TransientError
from asyncpush.oci.remote import RemoteBlob

# A connection that brought less than this before it broke made no progress.
_PROGRESS = 64 * 1024
_CLOSE_SECONDS = 2.0


class SourceConnection:
    """Reads one blob from an offset on to its end.

    Nothing of it belongs to a task: any task may ask for the next piece when no other one does, and
    one that is cancelled while it waits costs the connection, not the place.

    :param blob: what is read.
    :param offset: the first byte that is wanted.
    :param calls: makes the calls, with retries.
    """

    def __init__(self, blob: RemoteBlob, offset: int, calls: SourceCalls) -> None:
        self.offset = offset
        self._blob = blob
        self._calls = calls
        self._stack = contextlib.AsyncExitStack()
        self._pieces: AsyncIterator[bytes] | None = None
        self._broke_at = -1
        self._breaks = 0

    async def next(self) -> bytes:
        """The next bytes, at least one. Must not be called at the end.

        :raises SourceError: the source cannot be read, after all retries.
        :raises DigestMismatchError: the source has more or fewer bytes than the descriptor says.
        """
        broken: TransientError | None = None
        if self._pieces is not None:
            try:
                return await self._next()
            except TransientError as exc:
                broken = exc
                self._count(exc)

        async def read() -> bytes:
            nonlocal broken
            if broken is not None:
                # The break is the first failure: what follows it waits, as after any other.
                error, broken = broken, None
                raise error
            try:
                return await self._next()
            except TransientError as exc:
                if "attempts" in exc.where:
                    # The origin has tried often enough by itself.
                    raise self._failed(exc) from exc
                raise

        try:
            return await self._calls.call(self._blob.origin.name, read)
        except TransientError as exc:
            raise self._failed(exc) from exc
        except AsyncpushError as exc:
            raise exc.at(digest=self._blob.digest, source=self._blob.origin.name) from exc.__cause__

    async def aclose(self) -> None:
        """Close the connection; the next call opens another one at the same place."""
        self._pieces = None
        stack = self._stack.pop_all()
        # What goes wrong here concerns no byte that was read or is to be read.
        with (
            contextlib.suppress(AsyncpushError),
            anyio.move_on_after(_CLOSE_SECONDS, shield=True),
        ):
            await stack.aclose()

    async def _next(self) -> bytes:
        try:
            if self._pieces is None:
                read = self._blob.origin.read(self._blob.digest, self._blob.size, self.offset)
                self._pieces = await self._stack.enter_async_context(read)
            piece = b""
            while not piece:
                piece = await anext(self._pieces)
        except StopAsyncIteration:
            await self.aclose()
            raise self._mismatch(f"{self.offset}") from None
        except BaseException:
            # Also when cancelled: an iterator that was interrupted has lost its place.
            await self.aclose()
            raise
        if self.offset + len(piece) > self._blob.size:
            await self.aclose()
            raise self._mismatch(f"more than {self._blob.size}")
        self.offset += len(piece)
        if self.offset == self._blob.size:
            await self.aclose()
        return piece

    def _count(self, broken: TransientError) -> None:
        """Bound the connections that break without having brought anything worth it."""
        progress = self.offset - self._broke_at >= _PROGRESS
        self._breaks = 1 if progress else self._breaks + 1
        self._broke_at = self.offset
        if self._breaks >= self._calls.attempts:
            raise self._failed(broken) from broken

    def _failed(self, exc: TransientError) -> SourceError:
        return SourceError(
            f"the source stopped sending at byte {self.offset}: {exc.message}",
            advice=exc.advice or "run the same command again; it goes on where it stopped",
            **{**exc.where, "digest": self._blob.digest, "source": self._blob.origin.name},
        )

    def _mismatch(self, given: str) -> DigestMismatchError:
        return DigestMismatchError(
            f"the source gave {given} bytes, the descriptor says {self._blob.size}",
            advice="copy the image to the source again",
            digest=self._blob.digest,
            source=self._blob.origin.name,
        )
