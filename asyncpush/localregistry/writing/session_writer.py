"""Bytes on their way into an upload session: written behind what is acknowledged, and hashed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncpush.localregistry.call import Call
from asyncpush.localregistry.content.uploads import Session
from asyncpush.localregistry.errors import ApiError

if TYPE_CHECKING:
    from hashlib import _Hash


@dataclass(slots=True)
class SessionWriter:
    """Writes into a session's file. What is written counts only once it is acknowledged."""

    session: Session
    hasher: _Hash
    received: int
    _file: int
    _offset: int

    def write(self, data: bytes) -> None:
        """Take the next bytes of the layer."""
        self.hasher.update(data)
        self.received += len(data)
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, self._offset)
            self._offset += written
            view = view[written:]

    async def acknowledge(self, call: Call, *, broken: bool = False) -> None:
        """Count what was written as received.

        :param broken: whether the part broke off, so that the next bytes belong to it as well.
        :raises ApiError: UploadNotFoundException, the session ended meanwhile.
        """
        uploads = call.services.uploads
        await call.services.store.run(
            lambda db: uploads.acknowledge(
                db, self.session, self.received, self.hasher, broken=broken
            )
        )
        call.record.acknowledged_bytes += self.received


@contextlib.asynccontextmanager
async def open_writer(call: Call, session: Session) -> AsyncIterator[SessionWriter]:
    """Write behind the acknowledged bytes of a session, whose lock the caller holds.

    :raises ApiError: LimitExceededException, the layer has as many parts as it may have.
    """
    most = call.services.options.max_parts
    if session.parts >= most and not session.broken:
        raise ApiError("LimitExceededException", f"A layer has at most {most} parts.")
    hasher = await call.services.uploads.hasher_of(session)
    file = call.services.uploads.open_file(session)
    try:
        yield SessionWriter(session, hasher.copy(), 0, file, session.size)
    finally:
        os.close(file)
