"""A blob's bytes on their way into a request: from the file to the socket, untouched."""

from __future__ import annotations

import os
import socket
from typing import Any

import anyio
import anyio.to_thread
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from asyncpush.registries.content import BlobReader, LocalReader, StreamReader

PIECE = 256 * 1024
"""Bytes that are read and sent at a time where the kernel cannot do it alone."""
_SENDFILE_BYTES = 2 * PIECE


class BlobBody(Payload):
    """``length`` bytes of a blob from ``offset`` on.

    Over plain TCP the kernel copies them from the page cache (sendfile); under TLS they go in
    pieces. What comes from elsewhere is passed on as it arrives, at the speed of the slower side. A
    failure to read is kept in ``failure``, since from outside it looks like a lost
    connection.
    """

    def __init__(self, blob: BlobReader, offset: int, length: int) -> None:
        super().__init__(None, content_type="application/octet-stream")
        self._blob = blob
        self._offset = offset
        self._size = length
        self._length = length
        self._begun = False
        self.failure: Exception | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002
        """Not for text (aiohttp asks for it when it prints a body)."""
        raise TypeError("a blob is no text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all of it."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Send all of it; aiohttp calls this when the length is known."""
        assert content_length in (None, self._size)
        if self._begun:
            # aiohttp repeats a PUT by itself when a connection that was used before breaks. The
            # registry may hold what it got of the first one, so the caller decides what is sent.
            raise ConnectionResetError("the connection broke off")
        self._begun = True
        blob = self._blob
        try:
            if isinstance(blob, StreamReader):
                await self._send_stream(blob, writer)
                return
            file = blob.file()
            transport: Any = getattr(writer, "transport", None)
            if file is not None and transport is not None and _is_plain(transport):
                writer.send_headers()
                await writer.drain()
                await self._send_file(blob, file, transport)
            else:
                await self._send_pieces(blob, writer)
        except Exception as exc:
            self.failure = exc
            raise

    async def _send_stream(self, blob: StreamReader, writer: AbstractStreamWriter) -> None:
        done = 0
        while done < self._length:
            piece = await blob.read(self._offset + done, self._length - done)
            await writer.write(piece)
            done += len(piece)

    async def _send_file(self, blob: LocalReader, file: tuple[int, int], transport: Any) -> None:
        """Let the kernel send, on a descriptor of our own: the loop watches the connection's."""
        # What the loop has not sent yet, the headers, must go first; it tells nobody of that.
        while transport.get_write_buffer_size():  # noqa: ASYNC110
            await anyio.sleep(0.001)
        own = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        own.setblocking(False)  # noqa: FBT003 - the name of the argument is hidden
        try:
            await self._send_file_to(blob, file, own)
        finally:
            own.close()

    async def _send_file_to(
        self, blob: LocalReader, file: tuple[int, int], own: socket.socket
    ) -> None:
        fd, base = file
        done = 0
        while done < self._length:
            at, count = self._offset + done, min(_SENDFILE_BYTES, self._length - done)
            if blob.waits(at, count):
                # sendfile would wait for the disk, and the loop and all other uploads with it.
                buffer = memoryview(bytearray(count))
                await anyio.to_thread.run_sync(blob.read_into, buffer, at)
            try:
                sent = os.sendfile(own.fileno(), fd, base + at, count)
            except BlockingIOError:
                await anyio.wait_writable(own)
                continue
            if sent == 0:
                # The file has become shorter; the reader has the words for that.
                blob.read_into(memoryview(bytearray(1)), at)
            done += sent

    async def _send_pieces(self, blob: LocalReader, writer: AbstractStreamWriter) -> None:
        done = 0
        while done < self._length:
            # A buffer of its own for each piece: the connection may hold on to it.
            piece = bytearray(min(PIECE, self._length - done))
            view = memoryview(piece)
            if not blob.read_into_nowait(view, self._offset + done):
                await anyio.to_thread.run_sync(blob.read_into, view, self._offset + done)
            await writer.write(piece)
            done += len(piece)


def _is_plain(transport: Any) -> bool:
    return (
        hasattr(os, "sendfile")
        and transport.get_extra_info("sslcontext") is None
        and transport.get_extra_info("socket") is not None
        and not transport.is_closing()
    )
