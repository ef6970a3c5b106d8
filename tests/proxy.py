"""A proxy before a real registry, for what no registry does when it is asked to: fail once, lie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

Meet = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""What a request is to meet: an answer, or None to pass it on."""

_PASSED_ON = ("Content-Type", "Content-Range", "Accept", "Content-Length", "Authorization")


@dataclass
class Proxy:
    """A proxy that listens; ``seen`` are the requests, as ``METHOD /path``, in order."""

    address: str = ""
    seen: list[str] = field(default_factory=list)

    def count(self, method: str, part: str) -> int:
        """How often a method was asked for a path that holds a text."""
        return sum(line.startswith(f"{method} ") and part in line for line in self.seen)


async def _pass(_request: web.Request) -> None:
    return None


@asynccontextmanager
async def proxy(upstream: str, meet: Meet = _pass) -> AsyncIterator[Proxy]:
    """Run a proxy.

    :param upstream: host and port of the registry.
    :param meet: asked before a request is passed on.
    """
    running = Proxy()

    async def handle(request: web.Request) -> web.StreamResponse:
        running.seen.append(f"{request.method} {request.path}")
        answer = await meet(request)
        return await pass_on(request) if answer is None else answer

    async def pass_on(request: web.Request) -> web.StreamResponse:
        async with session.request(
            request.method,
            f"http://{upstream}{request.raw_path}",
            headers={k: v for k, v in request.headers.items() if k in _PASSED_ON},
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            body = await answer.read()
            kept = {
                k: v.replace(f"http://{upstream}", "")
                for k, v in answer.headers.items()
                if k not in ("Content-Length", "Transfer-Encoding", "Date")
            }
            if request.method == "HEAD":
                kept["Content-Length"] = answer.headers.get("Content-Length", "0")
            return web.Response(status=answer.status, body=body, headers=kept)

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        running.address = "{}:{}".format(*runner.addresses[0][:2])
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield running
    finally:
        await runner.cleanup()
