"""A slow link, for benchmarks: forwards TCP connections with a latency and a rate for each of them.

    python benchmarks/link.py --round-trip-ms 50 --mb-per-second 4 NAME=PORT...

Listens on a port of its own for each NAME, forwards to PORT on 127.0.0.1, and prints the ports as a
line of JSON. For each line on standard input it prints the requests and bytes by NAME and its own
CPU seconds since the line before; it ends when that input does.

A connection takes a round trip to open, as TCP's handshake does. After that, each direction of each
connection has the rate for itself, and every byte arrives half a round trip after it is sent.
Requests are counted by their request lines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
from collections import deque
from dataclasses import dataclass
from typing import cast

PIECE = 64 * 1024
_REQUEST = b" HTTP/1.1\r\n"


@dataclass(slots=True)
class Counts:
    """What has passed since it was last asked for."""

    requests: int = 0
    to_client: int = 0
    to_server: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """Latency (seconds, one way) and rate (bytes a second); a rate of 0 is no bound."""

    delay: float
    rate: float

    @property
    def in_flight(self) -> float:
        """Bytes that a direction may hold: what is on its way, and a few pieces more."""
        return self.rate * self.delay * 2 + 4 * PIECE if self.rate else 4 * 1024 * 1024


class Direction:
    """One direction of a connection: bytes in their order, each at its time."""

    def __init__(self, link: Link, opened: float) -> None:
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[float, bytes | None]] = deque()
        self._held = 0
        self._free = opened
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = self._blocked = False

    def put(self, data: bytes | None) -> None:
        """Take bytes that have been sent; None is their end."""
        begin = max(self._free, self._loop.time())
        for at in range(0, len(data or b""), PIECE):
            assert data is not None
            piece = data[at : at + PIECE]
            begin = self._free = begin + (len(piece) / self._link.rate if self._link.rate else 0)
            self._queue.append((begin + self._link.delay, piece))
            self._held += len(piece)
        if data is None:
            self._queue.append((begin + self._link.delay, None))
        self._throttle()
        self._arm()

    def block(self, blocked: bool) -> None:
        """The sink takes no more for now, or takes more again."""
        self._blocked = blocked
        self._throttle()
        self._arm()

    def _throttle(self) -> None:
        stop = self._held > self._link.in_flight
        if self.source is None or stop == self._stopped or self.source.is_closing():
            return
        self._stopped = stop
        if stop:
            self.source.pause_reading()
        else:
            self.source.resume_reading()

    def _arm(self) -> None:
        if self._timer is None and self._queue and not self._blocked and self.sink is not None:
            self._timer = self._loop.call_at(self._queue[0][0], self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        now = self._loop.time() + 0.0005
        while self._queue and self._queue[0][0] <= now and not self._blocked:
            _, piece = self._queue.popleft()
            assert self.sink is not None
            if piece is None:
                if not self.sink.is_closing():
                    self.sink.close()
            elif not self.sink.is_closing():
                self.sink.write(piece)
            self._held -= len(piece or b"")
        self._throttle()
        self._arm()


class End(asyncio.Protocol):
    """An end of a connection.

    :param sends: what comes from here.
    :param receives: what goes there.
    :param client: whether it is the end at which requests come in.
    """

    def __init__(
        self, sends: Direction, receives: Direction, counts: Counts, *, client: bool
    ) -> None:
        self._sends, self._receives = sends, receives
        self._counts, self._client = counts, client
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._sends.source = self._receives.sink = cast(asyncio.Transport, transport)
        self._receives.block(False)

    def data_received(self, data: bytes) -> None:
        if self._client:
            seen = self._tail + data
            self._counts.requests += seen.count(_REQUEST)
            self._counts.to_server += len(data)
            self._tail = seen[-len(_REQUEST) + 1 :]
        else:
            self._counts.to_client += len(data)
        self._sends.put(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sends.put(None)

    def pause_writing(self) -> None:
        self._receives.block(True)

    def resume_writing(self) -> None:
        self._receives.block(False)


async def serve(name: str, port: int, link: Link, counts: Counts) -> int:
    """Listen for one server; the port."""
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[object]] = set()

    def accept() -> End:
        # The handshake: what the client sends first has waited for a round trip.
        opened = loop.time() + 2 * link.delay
        there, back = Direction(link, opened), Direction(link, opened)
        task: asyncio.Task[object] = loop.create_task(
            loop.create_connection(
                lambda: End(back, there, counts, client=False), "127.0.0.1", port
            )
        )
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return End(there, back, counts, client=True)

    server = await loop.create_server(accept, "127.0.0.1", 0, backlog=512)
    await server.start_serving()
    found: int = server.sockets[0].getsockname()[1]
    return found


async def main(links: list[str], link: Link) -> None:
    counts = {name: Counts() for name, _, _ in (text.partition("=") for text in links)}
    ports = {}
    for text in links:
        name, _, port = text.partition("=")
        ports[name] = await serve(name, int(port), link, counts[name])
    print(json.dumps(ports), flush=True)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    before = 0.0
    while await reader.readline():
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime
        answer: dict[str, object] = {"cpu": cpu - before}
        before = cpu
        for name, count in counts.items():
            answer[name] = [count.requests, count.to_client, count.to_server]
            count.requests = count.to_client = count.to_server = 0
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--round-trip-ms", type=float, default=50)
    parser.add_argument("--mb-per-second", type=float, default=4, help="0 is no bound")
    parser.add_argument("links", nargs="+", metavar="NAME=PORT")
    args = parser.parse_args()
    given = Link(args.round_trip_ms / 2000, args.mb_per_second * 1e6)
    import uvloop

    uvloop.run(main(args.links, given))
