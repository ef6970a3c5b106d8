"""A gate before a real registry: it counts what is asked, and can answer in its place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

Answer = Callable[[web.Request, "Gate"], Awaitable[web.StreamResponse | None]]

_PASSED = ("Accept", "Range", "Content-Type", "Content-Range", "Content-Length", "Authorization")


@dataclass
class Gate:
    """What went through, and what answers instead; ``answer`` may say None to let it through."""

    upstream: str
    session: aiohttp.ClientSession
    address: str = ""
    answer: Answer | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def count(self, method: str, part: str) -> int:
        """How often a method was used on paths that hold a part."""
        return sum(1 for m, path in self.requests if m == method and part in path)

    async def fetch(self, request: web.Request) -> web.Response:
        """What the registry behind it answers."""
        headers = {k: v for k, v in request.headers.items() if k in _PASSED}
        async with self.session.request(
            request.method,
            f"http://{self.upstream}{request.raw_path}",
            headers=headers,
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            body = await answer.read()
            kept = {
                k: v.replace(f"http://{self.upstream}", "")
                for k, v in answer.headers.items()
                if k not in ("Content-Length", "Transfer-Encoding", "Date")
            }
            if request.method == "HEAD":
                kept["Content-Length"] = answer.headers.get("Content-Length", "0")
            return web.Response(status=answer.status, body=body, headers=kept)


@asynccontextmanager
async def gate_before(upstream: str, answer: Answer | None = None) -> AsyncIterator[Gate]:
    """Open a gate before a registry; its address is HOST:PORT."""

    async def handle(request: web.Request) -> web.StreamResponse:
        gate.requests.append((request.method, request.raw_path))
        gate.headers.append(dict(request.headers))
        if gate.answer is not None:
            answered = await gate.answer(request, gate)
            if answered is not None:
                return answered
        return await gate.fetch(request)

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        gate = Gate(upstream, session, "{}:{}".format(*runner.addresses[0][:2]), answer)
        try:
            yield gate
        finally:
            await runner.cleanup()


async def cut(request: web.Request, size: int = 1000, sent: int = 10) -> web.StreamResponse:
    """Begin an answer of some size, and cut the connection behind a part of it."""
    answer = web.StreamResponse()
    answer.content_length = size
    await answer.prepare(request)
    await answer.write(bytes(sent))
    assert request.transport is not None
    request.transport.abort()
    return answer
