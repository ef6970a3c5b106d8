"""Origins of blobs for tests: one that follows a script, and one that asks a registry."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import aiohttp
import anyio

from asyncpush.errors import BlobMissingError, TransientError
from asyncpush.oci.digest import Digest
from asyncpush.oci.remote import BlobOrigin, RemoteBlob
from asyncpush.plan.graph import Plan


def digest_of(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


@dataclass(eq=False)
class Scripted:
    """Gives what it is told to, and counts it.

    :param blobs: what it holds.
    :param piece: bytes of a piece at most.
    :param before: awaited before each piece, with the offset that it begins at; may raise.
    :param refuse: errors that the next calls meet before they read.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    piece: int = 64 * 1024
    name: str = "docker://source.test/app"
    before: Callable[[int], Awaitable[None]] | None = None
    refuse: list[Exception] = field(default_factory=list)
    rng: random.Random | None = None
    given: int = 0
    offsets: list[int] = field(default_factory=list)
    open: int = 0

    def hold(self, data: bytes, *, size: int | None = None) -> RemoteBlob:
        """Hold a blob; its descriptor may give another size."""
        digest = digest_of(data)
        self.blobs[digest] = data
        return RemoteBlob(digest, len(data) if size is None else size, self)

    @asynccontextmanager
    async def read(
        self, digest: Digest, size: int, offset: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        if self.refuse:
            raise self.refuse.pop(0)
        await anyio.lowlevel.checkpoint()
        self.offsets.append(offset)
        self.open += 1
        try:
            yield self._pieces(self.blobs[digest], offset)
        finally:
            self.open -= 1

    async def _pieces(self, data: bytes, offset: int) -> AsyncIterator[bytes]:
        while offset < len(data):
            if self.before is not None:
                await self.before(offset)
            else:
                await anyio.lowlevel.checkpoint()
            most = self.rng.randint(1, self.piece) if self.rng else self.piece
            piece = data[offset : offset + most]
            self.given += len(piece)
            offset += len(piece)
            yield piece


@dataclass(eq=False)
class OverHttp:
    """Reads a repository of a registry over /v2/ without credentials, and counts the bytes."""

    session: aiohttp.ClientSession
    url: str
    repository: str
    name: str = "docker://source.test/app"
    given: int = 0
    connections: int = 0
    cut: Callable[[], int | None] = lambda: None

    @asynccontextmanager
    async def read(
        self, digest: Digest, size: int, offset: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        url = f"{self.url}/v2/{self.repository}/blobs/{digest}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        self.connections += 1
        try:
            async with self.session.get(url, headers=headers) as answer:
                if answer.status == 404:
                    raise BlobMissingError("the source does not have this blob", digest=digest)
                if answer.status != (206 if offset else 200):
                    raise TransientError(f"HTTP {answer.status}", registry=self.url)
                yield self._pieces(answer)
        except aiohttp.ClientError as exc:
            raise TransientError(str(exc), registry=self.url) from exc

    async def _pieces(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        left = self.cut()
        try:
            async for piece in answer.content.iter_chunked(256 * 1024):
                if left is not None and left < len(piece):
                    if left:
                        self.given += left
                        yield piece[:left]
                    answer.close()
                    raise TransientError("the connection broke", registry=self.url)
                left = None if left is None else left - len(piece)
                self.given += len(piece)
                yield piece
        except aiohttp.ClientError as exc:
            raise TransientError(str(exc), registry=self.url) from exc


def remote(plan: Plan, origin: BlobOrigin) -> Plan:
    """The same plan, with all blobs at an origin."""
    for graph in plan.repositories.values():
        for digest, blob in list(graph.blobs.items()):
            source = RemoteBlob(digest, blob.size, origin)
            graph.blobs[digest] = replace(blob, source=source)
    return plan


def layers_of(plan: Plan) -> dict[str, int]:
    """The bytes of each distinct blob of a plan."""
    return {
        digest: blob.size
        for graph in plan.repositories.values()
        for digest, blob in graph.blobs.items()
    }


def unique_bytes(plans: Iterable[Plan]) -> int:
    """The bytes of all distinct blobs."""
    return sum({k: v for plan in plans for k, v in layers_of(plan).items()}.values())
