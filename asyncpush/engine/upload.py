"""One blob's way into a repository: a session, its parts in order, and the proof of its digest."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeVar

from asyncpush.engine.context import Context
from asyncpush.engine.events import LayerStarted, PartSent, UploadResumed
from asyncpush.engine.journal import NoJournal
from asyncpush.engine.reading.reader import RemoteReader, open_remote
from asyncpush.engine.work import beside
from asyncpush.errors import (
    BlobExistsError,
    LimitError,
    PartOutOfOrderError,
    RegistryError,
    TransientError,
    UploadBrokenError,
    UploadNotFoundError,
)
from asyncpush.oci.remote import RemoteBlob
from asyncpush.plan.graph import PlannedBlob
from asyncpush.plan.limits import ECR, MIB
from asyncpush.plan.reference import Repository
from asyncpush.registries.base import PartReceipt, UploadSession
from asyncpush.registries.content import BlobReader, open_blob

# A session that is lost, or a registry that keeps going back to another offset, is a fault once or
# twice; more often than this it is the registry's settled opinion.
_MAX_SESSIONS = 4
_MAX_CORRECTIONS = 8

T = TypeVar("T")


class BlobUpload:
    """Uploads one blob to one repository; ``sent`` counts the acknowledged bytes so far.

    :param opened: a session that the registry has opened already.
    """

    def __init__(
        self,
        context: Context,
        journal: NoJournal,
        repository: Repository,
        blob: PlannedBlob,
        opened: UploadSession | None = None,
    ) -> None:
        self._context = context
        self._journal = journal
        self._transport = context.transport
        self._repository = repository
        self._name = repository.name
        self._blob = blob
        self._opened = opened
        self.sent = 0
        # Of the last part: seconds that it waited for a slot and memory, and those that it took.
        self._waited = self._took = 0.0

    async def run(self) -> None:
        """Upload the blob.

        :raises RegistryError: the registry does not take it, or cannot be reached.
        :raises ContentError: the blob cannot be read.
        """
        asked = time.monotonic()
        async with self._context.limits.layers, self._open() as reader:
            waited = time.monotonic() - asked
            self._context.emit(
                LayerStarted(str(self._repository), self._blob.digest, self._blob.size, waited)
            )
            session, offset = await self._take_up()
            begun = 0
            while True:
                if session is None:
                    begun += 1
                    session, offset = await self._begin(reader), 0
                try:
                    session = await self._send_parts(session, reader, offset)
                    await self._complete(session)
                except BlobExistsError:
                    break
                except UploadNotFoundError as exc:
                    # The session expired, or it was completed and the answer was lost, or it broke
                    # off where it cannot be resumed: then the blob starts over.
                    if await self._is_there():
                        break
                    await self._give_up_or_wait(exc, begun)
                    session = None
                else:
                    break
        await self._journal.end_upload(self._repository, self._blob.digest)

    def _open(self) -> AbstractAsyncContextManager[BlobReader]:
        source = self._blob.source
        if isinstance(source, RemoteBlob):
            return open_remote(self._context.reads, source, self._repository.registry.host)
        return open_blob(source)

    async def _give_up_or_wait(self, error: UploadNotFoundError, begun: int) -> None:
        """Decide whether a blob whose session is lost gets a new one.

        :param begun: sessions that this run has opened for it.
        :raises UploadNotFoundError: enough of them were lost.
        """
        if not isinstance(error, UploadBrokenError):
            if begun >= _MAX_SESSIONS:
                raise error
            return
        # Each session was one try of the whole blob, so it counts and waits as a try of a call.
        if begun >= self._context.options.attempts:
            raise error.at(attempts=str(begun))
        await self._context.retrier.back_off(
            "UploadLayerPart", str(self._repository), error, max(begun, 1)
        )

    async def _take_up(self) -> tuple[UploadSession | None, int]:
        """The session that an earlier run left open, and the next byte that it wants.

        The registry says which byte that is: an acknowledgement may have come too late for the
        journal, and what the registry has must not be sent again.
        """
        digest = self._blob.digest
        left = await self._journal.open_upload(self._repository, digest)
        if left is None:
            return None, 0
        ask = partial(self._transport.last_received, self._name, left.session)
        try:
            offset = await self._call("UploadLayerPart", ask) + 1
        except UploadNotFoundError:
            return None, 0
        if offset > self._blob.size:
            return None, 0
        self._context.emit(UploadResumed(str(self._repository), digest, offset))
        return left.session, offset

    async def _begin(self, reader: BlobReader) -> UploadSession:
        session, self._opened = self._opened, None
        if session is None:
            start = partial(self._transport.start_upload, self._name)
            begin = partial(self._call, "InitiateLayerUpload", start)
            if isinstance(reader, RemoteReader) and self._transport.streams:
                # Both take a round trip or two.
                session = await beside(begin, reader.read_ahead)
            else:
                session = await begin()
        await self._journal.note_upload(self._repository, self._blob.digest, session, 0)
        return session

    async def _send_parts(
        self, session: UploadSession, reader: BlobReader, offset: int
    ) -> UploadSession:
        """Send all parts from an offset on.

        :return: the session, under the name that it has in the end.
        """
        part_size = session.part_size
        if not session.whole:
            part_size = self._context.options.part_size or part_size
        self._check_parts(part_size)
        corrections = 0
        while offset < self._blob.size:
            length = min(part_size, self._blob.size - offset)
            try:
                receipt = await self._deliver(session, reader, offset, length)
                last, session = receipt.last, receipt.session
            except PartOutOfOrderError as exc:
                if exc.last_valid_byte is None:
                    raise
                # The registry says what it has; the next byte is the one behind that. It has more
                # than we know when the answer to a part was lost, or a part broke off.
                last = exc.last_valid_byte
                if last < offset:
                    corrections += 1
                    if corrections > _MAX_CORRECTIONS:
                        raise
                    offset = last + 1
                    continue
            if last < offset:
                raise RegistryError(
                    f"the registry acknowledged byte {last} of a part that begins at {offset}",
                    call="UploadLayerPart",
                )
            received = min(last + 1, self._blob.size) - offset
            self.sent += received
            self._context.throughput.add(received)
            self._context.emit(
                PartSent(
                    str(self._repository),
                    self._blob.digest,
                    offset,
                    received,
                    self._waited,
                    self._took,
                )
            )
            offset += received
            await self._journal.note_upload(self._repository, self._blob.digest, session, offset)
        return session

    async def _deliver(
        self, session: UploadSession, reader: BlobReader, offset: int, length: int
    ) -> PartReceipt:
        """Send a part, with retries."""
        if isinstance(reader, RemoteReader):
            if self._transport.reads_twice(session):
                # It stays in memory between two tries, so that the source is not read again.
                async with reader.part(offset, length) as part:
                    return await self._call(
                        "UploadLayerPart", partial(self._send, session, part, offset, length)
                    )
            chunk = _Chunk(
                partial(self._send, session, reader, offset, length),
                partial(self._transport.last_received, self._name, session),
                offset,
            )
            return await self._call("UploadLayerPart", chunk.send)
        return await self._call(
            "UploadLayerPart", partial(self._send, session, reader, offset, length)
        )

    async def _send(
        self, session: UploadSession, reader: BlobReader, offset: int, length: int
    ) -> PartReceipt:
        final = self._blob.digest if offset + length == self._blob.size else None
        asked = time.monotonic()
        # Inside of the retry, so that a wait between two tries holds no slot and no memory.
        async with (
            self._context.limits.parts,
            self._context.limits.memory.hold(self._transport.part_memory),
        ):
            begin = time.monotonic()
            self._waited = begin - asked
            try:
                return await self._transport.upload_part(
                    self._name, session, reader, offset, length, final
                )
            finally:
                self._took = time.monotonic() - begin

    async def _complete(self, session: UploadSession) -> None:
        complete = partial(self._transport.complete_upload, self._name, session, self._blob.digest)
        await self._call("CompleteLayerUpload", complete)

    async def _is_there(self) -> bool:
        digest = self._blob.digest
        ask = partial(self._transport.sizes, self._name, [digest])
        found = await self._call("BatchCheckLayerAvailability", ask)
        return digest in found and found[digest] in (None, self._blob.size)

    async def _call(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        return await self._context.call(name, str(self._repository), call)

    def _check_parts(self, part_size: int) -> None:
        parts = -(-self._blob.size // part_size)
        if parts > ECR.layer_parts:
            raise LimitError(
                f"the layer needs {parts:,} parts of {part_size / MIB:g} MiB; the registry takes"
                f" at most {ECR.layer_parts:,}",
                advice="choose larger parts with --part-size, or split the layer",
            )


class _Chunk:
    """One chunk that comes from elsewhere, on its way into a session.

    :param send: sends it from its first byte on.
    :param ask: gives the offset of the last byte that the registry holds of the session.
    :param offset: of its first byte.
    """

    def __init__(
        self,
        send: Callable[[], Awaitable[PartReceipt]],
        ask: Callable[[], Awaitable[int]],
        offset: int,
    ) -> None:
        self._send = send
        self._ask = ask
        self._offset = offset
        self._tried = False

    async def send(self) -> PartReceipt:
        """Send it; before it is sent again, ask what has arrived.

        So the source is read again from the byte where the chunk broke off, and not from the
        chunk's first byte until the registry refuses that.

        :raises PartOutOfOrderError: the registry has some of it.
        """
        if self._tried:
            last = await self._arrived()
            if last >= self._offset:
                raise PartOutOfOrderError("the chunk broke off", last_valid_byte=last)
        self._tried = True
        return await self._send()

    async def _arrived(self) -> int:
        try:
            return await self._ask()
        except (TransientError, UploadNotFoundError):
            raise
        except RegistryError:
            return -1  # A registry that cannot say refuses what does not follow.
