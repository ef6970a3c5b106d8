"""Blobs on their way into a request by sendfile: no read of the disk holds the event loop up."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from asyncpush.errors import ContentError
from asyncpush.oci.layout import BlobRange
from asyncpush.registries.content import BlobReader, open_blob
from asyncpush.registries.distribution.body import PIECE, BlobBody

pytestmark = pytest.mark.anyio


class Cold:
    """A file of which nothing is in memory until it was read on another thread than this one's."""

    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader
        self._loop = threading.get_ident()
        self._read: set[int] = set()

    def read_into(self, buffer: memoryview, offset: int) -> None:
        assert threading.get_ident() != self._loop
        self._reader.read_into(buffer, offset)
        self._read.update(range(offset, offset + len(buffer)))

    def read_into_nowait(self, buffer: memoryview, offset: int) -> bool:
        return False

    def waits(self, offset: int, length: int) -> bool:
        return not {offset, offset + length - 1} <= self._read

    def file(self) -> tuple[int, int] | None:
        return self._reader.file()


async def received(body: BlobBody) -> bytes:
    """What arrives of a body behind a connection."""
    file = body._blob.file()
    assert file is not None
    ours, theirs = socket.socketpair()
    pieces = []

    def receive() -> None:
        while piece := theirs.recv(65536):
            pieces.append(piece)

    with theirs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, receive)
            with ours:
                ours.setblocking(False)
                await body._send_file_to(body._blob, file, ours)
    return b"".join(pieces)


@pytest.mark.parametrize("length", [1, PIECE, 5 * PIECE + 7])
async def test_what_is_not_in_memory_is_read_on_a_thread_first(tmp_path: Path, length: int) -> None:
    data = os.urandom(6 * PIECE)
    (tmp_path / "blob").write_bytes(b"before" + data)
    async with open_blob(BlobRange(str(tmp_path / "blob"), 6, len(data))) as reader:
        assert await received(BlobBody(reader, 100, length)) == data[100 : 100 + length]
        assert await received(BlobBody(Cold(reader), 100, length)) == data[100 : 100 + length]


async def test_a_file_that_became_shorter_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(3 * PIECE))
    async with open_blob(BlobRange(str(path), 0, 3 * PIECE)) as reader:
        os.truncate(path, PIECE)
        with pytest.raises(ExceptionGroup) as caught:
            await received(BlobBody(reader, 0, 3 * PIECE))
    (error,) = caught.value.exceptions
    assert isinstance(error, ContentError)
    assert f"the file ends at byte {PIECE}" in error.message


async def test_a_file_that_is_not_in_memory_is_known_to_wait(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(PIECE))
    async with open_blob(BlobRange(str(path), 0, PIECE)) as reader:
        assert not reader.waits(0, PIECE)
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            try:
                os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
            except BlockingIOError:
                assert reader.waits(0, PIECE)
            except OSError as exc:
                pytest.skip(f"the file system cannot tell: {exc.strerror}")
            else:
                pytest.skip("the file stays in memory")
        reader.read_into(memoryview(bytearray(PIECE)), 0)
        assert not reader.waits(0, PIECE)


async def test_a_body_is_written_once(tmp_path: Path) -> None:
    class Writer:
        transport = None
        written = b""

        async def write(self, piece: bytes) -> None:
            self.written += piece

    (tmp_path / "blob").write_bytes(b"content")
    async with open_blob(BlobRange(str(tmp_path / "blob"), 0, 7)) as reader:
        body, writer = BlobBody(reader, 0, 7), Writer()
        await body.write_with_length(writer, 7)  # type: ignore[arg-type]
        # As aiohttp does when the connection of a PUT breaks.
        with pytest.raises(ConnectionResetError):
            await body.write_with_length(writer, 7)  # type: ignore[arg-type]
        assert writer.written == b"content"
