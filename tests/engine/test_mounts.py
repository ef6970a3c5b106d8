"""Mounting by the real engine, on a clock that jumps, into registries that refuse in many ways."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import MIB, ONE, JumpingLoop, SimulatedRegistry, World

from asyncpush import Event, Pusher, PushOptions, PushReport, Registry, Warned
from asyncpush.engine.connections import Connections
from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    BlobsNotFoundError,
    ContentError,
    RegistryError,
    TransientError,
)
from asyncpush.oci.digest import Digest, compute
from asyncpush.registries.base import MountAnswer, Mounting, UploadSession

REFERENCED = Mounting(referenced=True, advice="switch it on")
STORED = Mounting(referenced=False)


@dataclass
class MountingRegistry(SimulatedRegistry):
    """A registry that mounts, and proves that every manifest's blobs are there.

    :param allows: whether a mount is granted, by target and source.
    :param sessions: whether a refusal opens a session that can be used.
    :param lies: whether what it says it mounted is not there.
    """

    mounting: Mounting | None = REFERENCED
    allows: Callable[[str, str], bool] = lambda target, source: True
    sessions: bool = False
    lies: bool = False
    has: defaultdict[str, set[Digest]] = field(default_factory=lambda: defaultdict(set))
    referenced: defaultdict[str, set[Digest]] = field(default_factory=lambda: defaultdict(set))
    blobs: Mapping[Digest, Collection[Digest]] = field(default_factory=dict)
    mounts: int = 0
    refused: int = 0
    opened: int = 0
    sent: Counter[tuple[str, Digest]] = field(default_factory=Counter)

    async def sizes(self, repository: str, wanted: Sequence[Digest]) -> dict[Digest, int | None]:
        await self._answer("BatchCheckLayerAvailability", repository)
        return dict.fromkeys(d for d in wanted if d in self.has[repository])

    async def start_upload(self, repository: str) -> UploadSession:
        self.opened += 1
        return await super().start_upload(repository)

    async def mount(self, repository: str, digest: Digest, source: str) -> MountAnswer:
        await self._answer("mount", repository)
        there = self.referenced if self.mounting == REFERENCED else self.has
        if digest in there[source] and self.allows(repository, source):
            self.mounts += 1
            if not self.lies:
                self.has[repository].add(digest)
            return MountAnswer(mounted=True)
        self.refused += 1
        if not self.sessions:
            return MountAnswer(mounted=False)
        self.opened += 1
        return MountAnswer(mounted=False, session=UploadSession("opened", 10 * MIB))

    async def complete_upload(
        self, repository: str, session: UploadSession, digest: Digest
    ) -> None:
        await super().complete_upload(repository, session, digest)
        self.sent[repository, digest] += 1
        self.has[repository].add(digest)

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
        if not set(self.blobs[digest]) <= self.has[repository]:
            raise BlobsNotFoundError("blobs are missing")
        self.referenced[repository] |= set(self.blobs[digest])


class Run:
    """One push of a world into one registry."""

    def __init__(self, world: World, registry: MountingRegistry, **options: Any) -> None:
        self.registry = registry
        self.events: list[Event] = []
        registry.blobs = {
            manifest.digest: manifest.blobs
            for graph in world.plan.repositories.values()
            for manifest in graph.manifests.values()
        }
        loop = JumpingLoop()
        settings = PushOptions(**{"attempts": 2, **options})

        @asynccontextmanager
        async def opened(_: Connections, which: Registry, aws: object) -> AsyncIterator[object]:
            yield registry

        async def work() -> PushReport:
            async with Pusher(settings, on_event=self.events.append) as pusher:
                return await asyncio.wait_for(pusher.push_plan(world.plan), 1e6)

        async def run_sync(work: Callable[..., object], *args: object, **_: object) -> object:
            return work(*args)  # a thread would take no time on this clock

        with (
            mock.patch("time.monotonic", loop.time),
            mock.patch("anyio.to_thread.run_sync", run_sync),
            mock.patch.object(Connections, "_open", opened),
            contextlib.closing(loop),
        ):
            self.report = loop.run_until_complete(work())
            self.seconds = loop.now

    def sent(self, name: str) -> int:
        """How often a blob was sent, over all repositories."""
        digest = compute(name.encode())
        return sum(n for (_, d), n in self.registry.sent.items() if d == digest)

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


def fleet(count: int = 40, base: int = 200 * MIB, own: int = MIB) -> World:
    world = World()
    for i in range(count):
        layers = {f"base{j}": base // 10 for j in range(10)}
        world.image(ONE, f"app{i}", "v1", {**layers, f"own{i}": own})
    return world


@pytest.mark.parametrize("mounting", [REFERENCED, STORED])
@pytest.mark.parametrize("atomic", [False, True])
def test_shared_layers_are_sent_once_and_the_rest_are_mounts(
    mounting: Mounting, atomic: bool
) -> None:
    run = Run(fleet(), MountingRegistry(mounting=mounting), atomic=atomic)
    assert run.report.ok
    assert [run.sent(f"base{j}") for j in range(10)] == [1] * 10
    assert (run.registry.mounts, run.registry.refused) == (390, 0)
    assert run.report.bytes_mounted == 39 * 200 * MIB
    assert run.report.bytes_sent == 240 * MIB
    assert sum(image.blobs_mounted for image in run.report.images) == 390
    assert run.warnings == []


def test_a_registry_that_mounts_nothing_costs_three_calls_and_a_word() -> None:
    registry = MountingRegistry(allows=lambda target, source: False)
    run = Run(fleet(), registry)
    assert run.report.ok
    assert [run.sent(f"base{j}") for j in range(10)] == [40] * 10
    assert (registry.mounts, registry.refused) == (0, 3)
    (warning,) = run.warnings
    assert "mounts no blobs, so that all are uploaded: switch it on" in warning


def test_a_session_that_comes_with_a_refusal_is_used() -> None:
    registry = MountingRegistry(allows=lambda target, source: False, sessions=True, mounting=STORED)
    run = Run(fleet(), registry)
    assert run.report.ok
    assert registry.refused == 3
    assert registry.opened == sum(registry.sent.values()) == 40 * 11
    assert run.warnings == []


def test_repositories_of_two_kinds_share_among_their_own() -> None:
    """As with two keys of encryption: each kind sends the base once, at a refusal a repository."""

    def kind(name: str) -> int:
        return int(name.removeprefix("app")) % 2

    registry = MountingRegistry(allows=lambda target, source: kind(target) == kind(source))
    run = Run(fleet(), registry)
    assert run.report.ok
    sent = [run.sent(f"base{j}") for j in range(10)]
    assert max(sent) <= 4  # who is refused in the same moment may send it as well
    assert registry.refused <= 40


def test_a_denied_mount_is_one_warning_and_an_upload() -> None:
    def fault(call: str, repository: str, tried: int) -> AsyncpushError | None:
        return AccessDeniedError("no", call="POST mount") if call == "mount" else None

    run = Run(fleet(8), MountingRegistry(fault=fault))
    assert run.report.ok
    (warning,) = run.warnings
    assert "mounts no blobs, so that all are uploaded: no (call POST mount" in warning
    assert run.sent("base0") == 8


def test_a_host_that_cannot_be_reached_for_mounts_does_not_fail_a_push() -> None:
    tries = 0

    def fault(call: str, repository: str, tried: int) -> AsyncpushError | None:
        nonlocal tries
        if call != "mount":
            return None
        tries += 1
        return TransientError("the connection failed")

    run = Run(fleet(8), MountingRegistry(fault=fault), attempts=8)
    assert run.report.ok
    (warning,) = run.warnings
    assert "the connection failed" in warning
    assert tries == 3  # one mount, with few tries
    assert run.sent("base0") == 8


def test_mounting_that_is_switched_off_half_way_ends_complete() -> None:
    registry = MountingRegistry()
    registry.allows = lambda target, source: registry.mounts < 100
    run = Run(fleet(), registry)
    assert run.report.ok
    assert registry.mounts == 100
    assert 29 <= sum(run.sent(f"base{j}") for j in range(10)) - 10 <= 290 + 10
    # What is on its way to the registry when the first answers come, and no more.
    assert registry.refused <= 20
    assert len(run.warnings) == 1


def test_mounts_that_leave_nothing_behind_are_mended_by_uploads() -> None:
    registry = MountingRegistry(lies=True)
    run = Run(fleet(8), registry)
    assert run.report.ok
    assert run.sent("base0") == 8


def test_when_the_leader_fails_the_next_one_leads() -> None:
    registry = MountingRegistry()

    def fault(call: str, repository: str, tried: int) -> AsyncpushError | None:
        bad = call == "PutImage" and not registry.referenced
        return RegistryError("no key") if bad else None

    registry.fault = fault
    run = Run(fleet(), registry)
    assert len(run.report.failed) == 40  # nobody can commit
    failed: list[str] = []

    def first(call: str, repository: str, tried: int) -> AsyncpushError | None:
        if call == "PutImage" and len(failed) < 2:
            failed.append(repository)
            return RegistryError("no key")
        return None

    registry = MountingRegistry(fault=first)
    run = Run(fleet(), registry)
    assert len(run.report.failed) == 2
    assert run.sent("base0") == 3
    assert registry.mounts == 37 * 10


def test_a_leader_whose_layer_is_broken_wakes_those_who_wait() -> None:
    world = fleet(10)
    registry = MountingRegistry()

    def fault(call: str, repository: str, tried: int) -> AsyncpushError | None:
        broken = call == "CompleteLayerUpload" and repository == "app0"
        return ContentError("became shorter") if broken else None

    registry.fault = fault
    run = Run(world, registry)
    assert len(run.report.failed) == 1
    assert registry.mounts >= 8 * 10


def test_what_some_repositories_have_already_is_sent_to_none() -> None:
    registry = MountingRegistry()
    first = Run(fleet(5), registry)
    assert first.report.ok
    registry.sent.clear()
    registry.mounts = 0
    run = Run(fleet(40), registry)
    assert run.report.ok
    assert all(run.sent(f"base{j}") == 0 for j in range(10))
    assert registry.mounts == 35 * 10


def test_blobs_that_no_manifest_references_yet_are_mounted_when_one_does() -> None:
    """As after a kill in the first image: its layers are there, and its manifest is not."""
    registry = MountingRegistry()
    registry.has["app7"] |= {compute(f"base{j}".encode()) for j in range(10)}
    run = Run(fleet(), registry)
    assert run.report.ok
    assert all(run.sent(f"base{j}") == 0 for j in range(10))
    assert (registry.mounts, registry.refused) == (390, 0)


def test_a_few_small_blobs_are_uploaded_rather_than_waited_for() -> None:
    world = World()
    for name in ("one", "two"):
        world.image(ONE, name, "v1", {"config": 2000, f"own {name}": 1000})
    run = Run(world, MountingRegistry())
    assert run.report.ok
    assert run.sent("config") == 2


@pytest.mark.parametrize(("count", "sent"), [(2, 1), (400, 0)])
def test_waiting_for_much_else_is_worth_it_if_enough_wait(count: int, sent: int) -> None:
    """The one repository that has the base must send 5 GB before it can commit."""
    world = World()
    world.image(ONE, "large", "v1", {"base": 20 * MIB, "own": 5000 * MIB})
    for i in range(1, count):
        world.image(ONE, f"app{i}", "v1", {"base": 20 * MIB, f"own{i}": 1000})
    registry = MountingRegistry()
    registry.has["large"].add(compute(b"base"))
    run = Run(world, registry)
    assert run.report.ok
    assert run.sent("base") == sent


def test_several_images_of_each_repository_wait_for_one_another_without_end() -> None:
    world = World()
    for i in range(6):
        for j in range(4):
            blobs = {f"base{k}": 50 * MIB for k in range(4) if (i + j + k) % 3}
            world.image(ONE, f"app{i}", f"v{j}", {**blobs, f"own{i}{j}": MIB})
    run = Run(world, MountingRegistry(), images=2, layers=1, parts=1)
    assert run.report.ok
    assert max(run.sent(f"base{k}") for k in range(4)) == 1


class Trouble:
    """Faults at random, of the kinds that a mount or a commit can meet."""

    def __init__(self, rate: float, rng: Any) -> None:
        self._rate = rate
        self._rng = rng

    def __call__(self, call: str, repository: str, tried: int) -> AsyncpushError | None:
        if call == "GetAuthorizationToken" or self._rng.random() >= self._rate:
            return None
        kinds = (TransientError, TransientError, RegistryError, AccessDeniedError)
        return self._rng.choice(kinds)("trouble")


NAMES = st.sampled_from(["app0", "app1", "app2", "app3"])
BLOBS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e"]), st.sampled_from([0, 1000, MIB, 300 * MIB])
)


@given(
    st.lists(st.tuples(NAMES, st.sets(st.sampled_from("abcdefg"), max_size=5)), max_size=14),
    st.sets(st.tuples(NAMES, st.sampled_from("abcdefg"))),
    st.sampled_from([REFERENCED, STORED]),
    st.sets(st.tuples(NAMES, NAMES)),
    st.sampled_from([0.0, 0.05, 0.3]),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
    st.randoms(use_true_random=False),
)
@settings(max_examples=100, deadline=None)
def test_every_push_ends_and_what_did_not_fail_is_there(
    images: list[tuple[str, set[str]]],
    there: set[tuple[str, str]],
    mounting: Mounting,
    refused: set[tuple[str, str]],
    trouble: float,
    at_once: int,
    sessions: bool,
    atomic: bool,
    rng: Any,
) -> None:
    sizes = {name: 10 ** (2 + i) for i, name in enumerate("abcdefg")}
    world = World()
    for i, (name, blobs) in enumerate(images):
        world.image(ONE, name, f"v{i}", {blob: sizes[blob] for blob in blobs})
    registry = MountingRegistry(
        mounting=mounting,
        allows=lambda target, source: (target, source) not in refused,
        sessions=sessions,
        fault=Trouble(trouble, rng),
    )
    for name, blob in there:
        registry.has[name].add(compute(blob.encode()))
    run = Run(world, registry, images=at_once, layers=at_once, atomic=atomic)
    report = run.report
    assert report.complete
    assert len(report.images) == len(images)
    for graph in world.plan.repositories.values():
        name = graph.repository.name
        failed = {image.digest for image in report.failed if f"/{name}:" in image.reference}
        for image in graph.images:
            if image.root not in failed:
                assert set(graph.blobs_of(image)) <= registry.has[name]
    if not trouble:
        assert report.ok
        # Nothing that a repository has or gets is sent to it twice.
        assert max(registry.sent.values(), default=1) == 1
        assert registry.refused <= 3 * len(world.plan.repositories)
