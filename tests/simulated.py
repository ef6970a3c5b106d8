"""Pushes by the real engine on a clock that jumps, to registries that are only figures.

A push of hours is over in seconds, and the same world gives the same report.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from asyncpush import Pusher, PushOptions, Registry
from asyncpush.engine.connections import Connections
from asyncpush.errors import AccessDeniedError, AsyncpushError, ManifestExistsError, ThrottledError
from asyncpush.oci import digest as digests
from asyncpush.oci import mediatypes
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import BlobData
from asyncpush.plan.graph import Plan, PlannedBlob, PlannedImage, PlannedManifest, RepositoryPlan
from asyncpush.plan.reference import Repository
from asyncpush.registries.base import MountAnswer, Mounting, PartReceipt, UploadSession
from asyncpush.report.document import Report
from asyncpush.report.file import read_report, write_report
from asyncpush.report.recorder import Recorder

MIB = 1024 * 1024
ONE = Registry("111122223333", "eu-central-1")
TWO = Registry("111122223333", "us-east-1")


class World:
    """What is to be pushed where; blobs are told apart by their names."""

    def __init__(self) -> None:
        self.plan = Plan()

    def image(
        self,
        registry: Registry,
        repository: str,
        tag: str | None,
        blobs: Mapping[str, int],
        name: str | None = None,
    ) -> PlannedImage:
        """Add an image of these blobs, bytes by name."""
        where = Repository(registry, repository)
        graph = self.plan.repositories.setdefault(where, RepositoryPlan(where))
        found = {digests.compute(blob.encode()): size for blob, size in blobs.items()}
        raw = json.dumps([repository, tag, *found]).encode()
        root = digests.compute(raw)
        for digest, size in found.items():
            graph.blobs[digest] = PlannedBlob(digest, size, BlobData(b""))
        graph.manifests[root] = PlannedManifest(
            root, mediatypes.OCI_MANIFEST, len(raw), BlobData(raw), tuple(found), (), None, False
        )
        tags = () if tag is None else (tag,)
        image = PlannedImage(name or f"{repository}:{tag}", where, root, tags, (root,))
        graph.images.append(image)
        return image


@dataclass
class SimulatedRegistry:
    """How one registry answers, and how fast.

    :param link: bytes a second of all its connections.
    :param connection: bytes a second of one.
    :param latency: seconds of every call.
    :param rates: calls a second above which it throttles.
    :param there: images by digest, and blobs, that it has.
    :param fault: the error that a call of a repository meets, given its number of tries so far.
    """

    link: float = 500 * MIB
    connection: float = 60 * MIB
    latency: float = 0.02
    rates: Mapping[str, float] = field(default_factory=dict)
    there: set[Digest] = field(default_factory=set)
    fault: Callable[[str, str, int], AsyncpushError | None] = lambda call, repository, tried: None
    part_memory: int = 1
    writes_referrers: bool = False
    streams: bool = False
    mounting: Mounting | None = None
    promoting: Mounting | None = None
    _active: int = 0
    _rng: random.Random = field(default_factory=lambda: random.Random(5))
    _full: dict[str, float] = field(default_factory=dict)
    _tried: dict[tuple[str, str], int] = field(default_factory=dict)

    async def authorize(self) -> None:
        await self._answer("GetAuthorizationToken", "")

    async def sizes(self, repository: str, wanted: Sequence[Digest]) -> dict[Digest, int | None]:
        await self._answer("BatchCheckLayerAvailability", repository)
        return dict.fromkeys(d for d in wanted if d in self.there)

    async def tagged(self, repository: str, tags: Sequence[str]) -> dict[str, Digest]:
        raise AccessDeniedError("BatchGetImage is not one of the six")

    async def mount(self, repository: str, digest: Digest, source: str) -> MountAnswer:
        await self._answer("mount", repository)
        return MountAnswer(mounted=True)

    async def start_upload(self, repository: str) -> UploadSession:
        await self._answer("InitiateLayerUpload", repository)
        return UploadSession("session", 10 * MIB)

    async def upload_part(
        self,
        repository: str,
        session: UploadSession,
        blob: object,
        offset: int,
        length: int,
        final: Digest | None,
    ) -> PartReceipt:
        self._active += 1
        try:
            rate = min(self.connection, self.link / self._active)
            await asyncio.sleep(length / rate * self._rng.uniform(0.8, 1.3))
            await self._answer("UploadLayerPart", repository)
        finally:
            self._active -= 1
        return PartReceipt(offset + length - 1, session)

    async def complete_upload(
        self, repository: str, session: UploadSession, digest: Digest
    ) -> None:
        await self._answer("CompleteLayerUpload", repository)

    async def put_manifest(
        self,
        repository: str,
        raw: bytes,
        media_type: str,
        digest: Digest,
        tag: str | None,
        *,
        absent: bool = False,
    ) -> None:
        await self._answer("PutImage", repository)
        if digest in self.there:
            raise ManifestExistsError("it is there")

    async def _answer(self, call: str, repository: str) -> None:
        await asyncio.sleep(self.latency * self._rng.uniform(0.7, 1.6))
        key = (call, repository)
        self._tried[key] = self._tried.get(key, 0) + 1
        error = self.fault(call, repository, self._tried[key])
        if error is not None:
            raise error
        rate = self.rates.get(call)
        if rate is not None:
            now = asyncio.get_running_loop().time()
            # A bucket that holds one second's calls.
            full = max(self._full.get(call, 0.0), now - 1) + 1 / rate
            if full > now:
                raise ThrottledError("Rate exceeded", call=call)
            self._full[call] = full


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next moment when there is nothing to do until then."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def push(
    path: Path,
    world: World,
    registries: Mapping[Registry, SimulatedRegistry],
    job: str = "job",
    **options: Any,
) -> Report:
    """Push a world to registries, and write the report; what it says."""
    settings = PushOptions(**options)

    @asynccontextmanager
    async def opened(_: Connections, registry: Registry, aws: object) -> AsyncIterator[object]:
        yield registries[registry]

    loop = JumpingLoop()
    with (
        mock.patch("time.monotonic", loop.time),
        mock.patch.object(Connections, "_open", opened),
        mock.patch("random.Random", _seeded),
        contextlib.closing(loop),
    ):
        recorder = Recorder()

        async def work() -> None:
            async with Pusher(settings, on_event=recorder.take) as pusher:
                report = await pusher.push_plan(world.plan)
            write_report(path, job, recorder, report, settings)

        loop.run_until_complete(work())
    return read_report(path)


def _seeded(original: type[random.Random] = random.Random) -> random.Random:
    return original(11)
