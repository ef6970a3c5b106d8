"""Waiting for replication: who is asked, how often, and what each way of not ending comes to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from fleet import ONE, REGISTRIES, options_for, serving, write_layouts

from asyncpush import AwsOptions, Event, EventSink, Pusher, PushItem, PushOptions
from asyncpush.engine.events import ImageReplicated, ReplicationAwaited, Warned
from asyncpush.engine.options import RegistrySettings
from asyncpush.engine.replication import open_replication
from asyncpush.engine.replication_wait import AwaitedImage, ReplicationWait, WaitOptions
from asyncpush.errors import ManifestsNotFoundError, TransientError
from asyncpush.localregistry import CallInfo, Fault, RunningRegistry
from asyncpush.plan.reference import parse_reference
from asyncpush.replication.results import ReplicationReport, ReplicationStatus
from asyncpush.replication.rules import Destination, Rule

pytestmark = pytest.mark.anyio

SOURCE = REGISTRIES[0]
NEAR, WEST = Destination(ONE, "eu-west-1"), Destination(ONE, "us-west-2")
ASK = "DescribeImageReplicationStatus"
OFTEN = WaitOptions(timeout=60, first=0.02, longest=0.05)
Faults = Callable[[CallInfo], Fault | None]


class Held(Fault):
    """A fault that holds a call up until it is let go."""

    async def meet(self) -> None:
        await _released.wait()


_released = anyio.Event()


@pytest.fixture
def release() -> Callable[[], None]:
    """Lets go of everything that is held up; each test has a hold of its own."""
    global _released  # noqa: PLW0603 - a frozen dataclass holds no event
    _released = anyio.Event()
    return _released.set


@asynccontextmanager
async def pushed(
    folder: Path,
    faults: Faults | None = None,
    *destinations: Destination,
    images: int = 1,
    **more: Any,
) -> AsyncIterator[tuple[RunningRegistry, PushOptions, list[AwaitedImage]]]:
    """A source with a rule, and the images of two repositories that were pushed to it."""
    layouts = write_layouts(folder / "layouts", 2, images, layer=1000, shared=1000)
    names = [layout.name for layout in layouts]
    async with serving(folder / "store", names, faults) as server:
        options = options_for(server, **more)
        await let_have(options, Rule(frozenset(destinations or (NEAR,))))
        async with Pusher(options) as pusher:
            items = [PushItem(layout, f"{SOURCE.host}/{layout.name}") for layout in layouts]
            report = await pusher.push(items)
        assert report.ok
        yield (
            server,
            options,
            [
                AwaitedImage(i.reference, parse_reference(i.reference).repository, i.digest)
                for i in sorted(report.images, key=lambda image: image.reference)
            ],
        )


async def let_have(options: PushOptions, *rules: Rule) -> None:
    async with open_replication(SOURCE, options, ignore) as replication:
        await replication.rules()
        await replication.put_rules(rules)


def ignore(_event: Event) -> None:
    """Who only wants the report."""


def replicating(info: CallInfo, region: str | None = None) -> bool:
    return info.action == "ReplicateImage" and region in (None, info.region)


def asked(server: RunningRegistry, image: AwaitedImage) -> int:
    return len([c for c in server.calls.of(ASK) if c.repository == image.repository.name])


async def test_what_has_ended_is_not_asked_about_again(
    tmp_path: Path, release: Callable[[], None]
) -> None:
    def faults(info: CallInfo) -> Fault | None:
        return Held() if replicating(info) and info.repository == "app001" else None

    async with pushed(tmp_path, faults) as (server, options, (first, second)):
        asked_at_the_end: dict[str, int] = {}

        def look(event: Event) -> None:
            if isinstance(event, ImageReplicated) and event.result.reference == first.reference:
                asked_at_the_end[first.reference] = asked(server, first)

        async with anyio.create_task_group() as tasks:

            async def let_go_later() -> None:
                while not asked_at_the_end or asked(server, second) < 5:
                    await anyio.sleep(0.01)
                release()

            tasks.start_soon(let_go_later)
            report = await ReplicationWait(options, look, OFTEN).run([first, second])
        assert report.ok
        assert report.count(ReplicationStatus.COMPLETE) == 2
        assert asked(server, first) == asked_at_the_end[first.reference]
        assert asked(server, second) > 5


async def test_a_failed_destination_does_not_end_the_waiting_for_the_others(
    tmp_path: Path, release: Callable[[], None]
) -> None:
    def faults(info: CallInfo) -> Fault | None:
        if replicating(info, NEAR.region):
            return Fault(code="LimitExceededException")
        return Held() if replicating(info, WEST.region) else None

    async with pushed(tmp_path, faults, NEAR, WEST) as (server, options, (image, _)):
        async with anyio.create_task_group() as tasks:

            async def let_go_later() -> None:
                while asked(server, image) < 5:
                    await anyio.sleep(0.01)
                release()

            tasks.start_soon(let_go_later)
            report = await ReplicationWait(options, ignore, OFTEN).run([image])
        (found,) = report.images
        assert found.status is ReplicationStatus.FAILED
        assert [(d.destination, d.status, d.failure_code) for d in found.destinations] == [
            (NEAR, ReplicationStatus.FAILED, "LimitExceededException"),
            (WEST, ReplicationStatus.COMPLETE, None),
        ]
        (problem,) = found.problems
        assert "LimitExceededException" in str(problem)


async def test_an_image_from_before_the_rule_is_not_waited_for_forever(tmp_path: Path) -> None:
    async with pushed(tmp_path) as (_, options, (image, _)):
        await let_have(options, Rule(frozenset({NEAR, WEST})))
        impatient = WaitOptions(timeout=60, first=0.01, longest=0.01, patience=0.2)
        report = await ReplicationWait(options, ignore, impatient).run([image])
        (found,) = report.images
        assert found.status is ReplicationStatus.NOT_STARTED
        assert [d.status for d in found.destinations] == [
            ReplicationStatus.COMPLETE,
            ReplicationStatus.NOT_STARTED,
        ]
        assert "pushed before the rule" in str(found.problems[0])


async def test_throttling_costs_time_and_nothing_else(tmp_path: Path) -> None:
    def faults(info: CallInfo) -> Fault | None:
        if info.action == ASK and info.number <= 3:
            return Fault(code="ThrottlingException")
        return None

    async with pushed(tmp_path, faults, retry_cap=0.05) as (_, options, images):
        wait = ReplicationWait(options, ignore, OFTEN)
        assert (await wait.run(images)).ok
        assert wait.calls()[SOURCE.host][ASK]["throttled"] == 3


async def test_a_registry_that_fails_is_asked_again_and_again(tmp_path: Path) -> None:
    def faults(info: CallInfo) -> Fault | None:
        return Fault(code="ServerException", status=500) if info.action == ASK else None

    async with pushed(tmp_path, faults, attempts=1) as (server, options, (image, _)):
        report = ReplicationReport()
        events: list[Event] = []
        await cancelled_when(
            lambda: asked(server, image) >= 3, image, options, events.append, report
        )
        (found,) = report.images
        assert found.status is ReplicationStatus.UNKNOWN
        assert isinstance(found.error, TransientError)
        assert [e.message for e in events if isinstance(e, Warned)] == [
            f"replication is unknown: {found.error}"
        ]


async def cancelled_when(
    true: Callable[[], bool],
    image: AwaitedImage,
    options: PushOptions,
    emit: EventSink,
    report: ReplicationReport,
) -> None:
    """Wait for an image, but no longer than until something is true."""
    async with anyio.create_task_group() as tasks:

        async def cancel_later() -> None:
            while not true():
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

        tasks.start_soon(cancel_later)
        await ReplicationWait(options, emit, OFTEN).run([image], report)
    assert not report.complete


@pytest.mark.parametrize(
    ("action", "silence"), [("DescribeRegistry", "its rules"), (ASK, "how the image stands")]
)
async def test_what_is_not_answered_in_time_is_unknown(
    tmp_path: Path, release: Callable[[], None], action: str, silence: str
) -> None:
    hang: list[str] = []

    def faults(info: CallInfo) -> Fault | None:
        return Held() if info.action in hang else None

    async with pushed(tmp_path, faults) as (server, options, (image, _)):
        hang.append(action)
        report = ReplicationReport()
        begun = server.calls.counters.calls
        await cancelled_when(
            lambda before=begun[action]: begun[action] > before, image, options, ignore, report
        )
        assert [one.status for one in report.images] == [ReplicationStatus.UNKNOWN]
        assert f"has not told {silence} in time" in str(report.images[0].error)
        release()


async def test_a_cancelled_waiting_leaves_what_it_knew(
    tmp_path: Path, release: Callable[[], None]
) -> None:
    def faults(info: CallInfo) -> Fault | None:
        return Held() if replicating(info, WEST.region) else None

    async with pushed(tmp_path, faults, NEAR, WEST) as (server, options, (image, _)):
        report = ReplicationReport()
        await cancelled_when(lambda: asked(server, image) >= 3, image, options, ignore, report)
        (found,) = report.images
        assert found.status is ReplicationStatus.IN_PROGRESS
        release()


async def test_an_image_of_many_names_is_asked_about_once(tmp_path: Path) -> None:
    async with pushed(tmp_path) as (_, options, (image, _)):
        other = AwaitedImage(f"{image.reference}-again", image.repository, image.image)
        report = await ReplicationWait(options, ignore, OFTEN).run([image, other])
        assert report.ok
        assert len(report.images) == 1


async def test_each_registry_is_waited_for_by_itself(tmp_path: Path) -> None:
    async with pushed(tmp_path) as (server, options, (image, _)):
        elsewhere = parse_reference(f"{REGISTRIES[1].host}/app000:v0")
        keyless = AwsOptions(
            access_key_id="AKIDUNKNOWN000000000",
            secret_access_key="x",
            endpoint_url=server.url,
        )
        both = PushOptions(
            registries={**options.registries, REGISTRIES[1]: RegistrySettings(aws=keyless)}
        )
        plain = parse_reference("docker://example.com/app:v1")
        events: list[Event] = []
        report = await ReplicationWait(both, events.append, OFTEN).run(
            [
                image,
                AwaitedImage("elsewhere", elsewhere.repository, "v0"),
                AwaitedImage("plain", plain.repository, "v1"),
            ]
        )
        found = {one.reference: one.status for one in report.images}
        assert found == {
            image.reference: ReplicationStatus.COMPLETE,
            "elsewhere": ReplicationStatus.UNKNOWN,
            "plain": ReplicationStatus.NOT_COVERED,
        }
        assert report.only_unknown
        assert len([e for e in events if isinstance(e, Warned)]) == 1
        assert ReplicationAwaited("example.com", 0, 1) in events


async def test_an_image_that_is_gone_has_failed(tmp_path: Path) -> None:
    async with pushed(tmp_path) as (_, options, (image, _)):
        gone = AwaitedImage("gone", image.repository, "never")
        report = await ReplicationWait(options, ignore, OFTEN).run([gone, image])
        failed, good = sorted(report.images, key=lambda one: one.reference != "gone")
        assert isinstance(failed.error, ManifestsNotFoundError)
        assert failed.status is ReplicationStatus.FAILED
        assert good.status is ReplicationStatus.COMPLETE


async def test_a_pusher_waits_for_what_it_pushed_and_counts_the_calls(tmp_path: Path) -> None:
    layouts = write_layouts(tmp_path / "layouts", 1, 3)
    async with serving(tmp_path / "store", [layouts[0].name]) as server:
        options = options_for(server)
        await let_have(options, Rule(frozenset({NEAR}), frozenset({"app"})))
        async with Pusher(options) as pusher:
            await pusher.push([PushItem(layouts[0], f"{SOURCE.host}/{layouts[0].name}")])
            replicated = await pusher.wait_for_replication(OFTEN)
        assert replicated.ok
        assert replicated.count(ReplicationStatus.COMPLETE) == 3
        assert pusher.report.calls[SOURCE.host]["DescribeRegistry"]["calls"] == 1
        assert pusher.report.calls[SOURCE.host][ASK]["calls"] >= 3
        tags = await server.tags(ONE, NEAR.region, layouts[0].name)
        assert tags == await server.tags(ONE, SOURCE.region, layouts[0].name)
