"""A proxy before a source that streams, counts the bytes of blobs that it gives out, and cuts."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade"}
_PIECE = 64 * 1024


@dataclass
class SourceProxy:
    """What a source gave out; ``cuts`` says behind how many bytes of a blob's body to cut it off.

    ``given`` are the bytes of each blob by digest, repetitions included.
    """

    address: str = ""
    cuts: Callable[[], int | None] = lambda: None
    given: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    broken: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of blobs that it gave out."""
        return self.given.total()

    def clear(self) -> None:
        """Begin to count anew."""
        self.given.clear()
        self.requests.clear()
        self.broken = 0


@asynccontextmanager
async def source_proxy(upstream: str) -> AsyncIterator[SourceProxy]:
    """Run a proxy.

    :param upstream: host and port of the source, which speaks plain HTTP.
    """
    proxy = SourceProxy()

    async def handle(request: web.Request) -> web.StreamResponse:
        async with session.request(
            request.method,
            f"http://{upstream}{request.raw_path}",
            headers={k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP},
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
            given = web.StreamResponse(status=answer.status, headers=kept)
            await given.prepare(request)
            if request.method != "HEAD":
                await pass_on(request, answer, given)
            return given

    async def pass_on(
        request: web.Request, answer: aiohttp.ClientResponse, given: web.StreamResponse
    ) -> None:
        blob = _blob_of(request.path) if request.method == "GET" and answer.ok else None
        assert request.transport is not None
        # Little is on its way that the reader has not asked for.
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)
        proxy.requests["blob" if blob else "other"] += 1
        left = proxy.cuts() if blob else None
        async for piece in answer.content.iter_chunked(_PIECE):
            if left is not None:
                left -= len(piece)
            sent = piece if left is None or left >= 0 else piece[:left]
            await given.write(sent)
            if blob:
                proxy.given[blob] += len(sent)
            if left is not None and left <= 0:
                proxy.broken += 1
                # What was given out arrives; then there is no more.
                request.transport.close()
                return

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    proxy.address = "{}:{}".format(*runner.addresses[0][:2])
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        try:
            yield proxy
        finally:
            await runner.cleanup()


def _blob_of(path: str) -> str | None:
    """The digest of the blob that a path is about: of a registry, or of a layout in S3."""
    for part in ("/blobs/sha256:", "/blobs/sha256/"):
        if part in path:
            return path.partition(part)[2]
    return None
