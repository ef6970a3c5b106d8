"""The tracker: what it counts, what it expects, and what an event costs it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import pytest

from asyncpush.engine.events import (
    BlobExists,
    CallEnded,
    CallRetried,
    Event,
    ImageFinished,
    ImageStaged,
    ImageStarted,
    LayerComplete,
    LayerStarted,
    ManifestCommitted,
    PartSent,
    PushPlanned,
    RegistryTotals,
    TagsMoving,
    UploadResumed,
)
from asyncpush.engine.results import ImageResult, ImageStatus
from asyncpush.errors import RegistryError
from asyncpush.telemetry.tracker import Forecast, Tracker

ONE, TWO = "one.example", "two.example"


@dataclass
class Push:
    """A push that is told of by hand, on a clock of its own."""

    now: float = 0.0
    tracker: Tracker = field(init=False)

    def __post_init__(self) -> None:
        self.tracker = Tracker(clock=lambda: self.now)

    def tell(self, *events: Event) -> None:
        for event in events:
            self.tracker.take(event)

    def plan(self, **registries: tuple[int, int, int]) -> None:
        """Images, bytes and commits of registries ``one`` and ``two``."""
        totals = {
            f"{name}.example": RegistryTotals(images, images, size, commits)
            for name, (images, size, commits) in registries.items()
        }
        images = sum(one.images for one in totals.values())
        self.tell(PushPlanned(images, 1, images, images, 0, totals))

    def start(self, tag: str, blobs: dict[str, int], host: str = ONE) -> None:
        self.tell(ImageStarted(f"{host}/app:{tag}", tag, f"{host}/app", blobs))

    def part(self, digest: str, offset: int, size: int, host: str = ONE) -> None:
        self.tell(PartSent(f"{host}/app", digest, offset, size))

    def finish(self, tag: str, status: ImageStatus, host: str = ONE) -> None:
        error = RegistryError("broken") if status is ImageStatus.FAILED else None
        self.tell(ImageFinished(ImageResult(tag, f"{host}/app:{tag}", "d", status, error=error)))

    def committed(self, rate: float, times: int = 1, host: str = ONE) -> None:
        for _ in range(times):
            self.now += 1 / rate
            self.tell(
                CallEnded("PutImage", f"{host}/app", "ok", 0, 0, rate, 10.0),
                ManifestCommitted(f"{host}/app", "d", "t", existed=False),
            )

    def forecast(self) -> Forecast:
        found = self.tracker.forecast()
        assert found is not None
        return found


def test_what_sources_are_asked_makes_no_targets_of_them() -> None:
    push = Push()
    push.tell(CallEnded("HeadManifest", "source.example/app", "ok", 0, 0, 1.0, 1.0))
    push.plan(one=(1, 1, 1))
    push.tell(CallEnded("GetBlob", "source.example/app", "ok", 0, 0, 1.0, 1.0))

    assert [registry.host for registry in push.tracker.registries.values()] == [ONE]


def test_a_blob_that_images_share_counts_once() -> None:
    push = Push()
    push.plan(one=(2, 30, 2))
    push.start("a", {"base": 20, "own-a": 5})
    push.start("b", {"base": 20, "own-b": 5})
    push.part("base", 0, 10)
    push.part("base", 10, 10)
    push.tell(LayerComplete(f"{ONE}/app", "base", 20, 20), BlobExists(f"{ONE}/app", "own-b", 5))

    assert (push.tracker.there, push.tracker.bytes) == (25, 30)
    a, b = (push.tracker.standing(image) for image in push.tracker.active.values())
    assert (a.there, a.total, b.there, b.total) == (20, 25, 25, 25)


def test_a_resumed_blob_begins_where_it_was() -> None:
    push = Push()
    push.plan(one=(1, 100, 1))
    push.start("a", {"layer": 100})
    push.tell(UploadResumed(f"{ONE}/app", "layer", 60))
    push.part("layer", 60, 10)

    assert push.tracker.there == 70
    assert push.tracker.registries[ONE].sent == 10


def test_the_oldest_image_comes_first_with_its_rate_and_its_idle_time() -> None:
    push = Push()
    push.plan(one=(2, 1000, 2))
    push.start("old", {"x": 500})
    push.now = 10.0
    push.start("young", {"y": 500})
    push.part("x", 0, 100)
    first, second = push.tracker.active.values()

    standing = push.tracker.standing(first)
    assert (standing.there, standing.rate, standing.seconds, standing.idle) == (100, 10.0, 10.0, 0)
    push.now = 55.0
    assert push.tracker.standing(first).idle == 45.0
    assert push.tracker.standing(second).rate == 0.0


def test_time_left_is_that_of_the_bytes_where_they_take_longest() -> None:
    push = Push()
    push.plan(one=(10, 1000, 10))
    push.tell(LayerStarted(f"{ONE}/app", "x", 1000))
    push.committed(10.0)
    for i in range(20):
        push.now += 0.5
        push.part("x", i * 10, 10)

    forecast = push.forecast()
    assert forecast.seconds == pytest.approx(40, rel=0.1)
    assert forecast.pace is None


def test_time_left_is_that_of_the_commits_where_they_take_longest() -> None:
    push = Push()
    push.plan(one=(500, 1000, 500))
    push.start("a", {"x": 1000})
    push.part("x", 0, 990)
    push.committed(10.0, 100)

    forecast = push.forecast()
    assert forecast.seconds == pytest.approx(40, rel=0.05)
    assert forecast.pace == 10.0


def test_commits_that_run_below_their_pace_are_taken_as_they_run() -> None:
    push = Push()
    push.plan(one=(500, 100, 500))
    push.part("x", 0, 100)
    for _ in range(100):
        push.now += 0.4
        push.committed(10.0)

    forecast = push.forecast()
    assert forecast.seconds == pytest.approx(200, rel=0.05)
    assert forecast.pace == pytest.approx(2.0, rel=0.05)


def test_time_left_follows_a_pace_that_throttling_lowered() -> None:
    push = Push()
    push.plan(one=(500, 100, 500))
    push.part("x", 0, 100)
    push.committed(10.0, 100)
    push.tell(
        CallEnded("PutImage", f"{ONE}/app", "throttled", 0, 0, 4.0, 10.0),
        CallRetried("PutImage", f"{ONE}/app", "slow down", 1, 0.1, throttled=True),
    )

    assert push.forecast().seconds == pytest.approx(100, rel=0.05)
    ((registry, name, call),) = push.tracker.slowed()
    assert (registry.host, name, call.throttles, call.rate, call.quota) == (
        ONE,
        "PutImage",
        1,
        4.0,
        10.0,
    )
    push.tell(CallEnded("PutImage", f"{ONE}/app", "ok", 0, 0, 10.0, 10.0))
    assert list(push.tracker.slowed()) == []


def test_what_exists_already_shortens_the_time_left() -> None:
    push = Push()
    push.plan(one=(100, 1000, 100))
    for i in range(50):
        push.now += 0.2
        push.tell(BlobExists(f"{ONE}/app", f"b{i}", 10))

    assert push.forecast().seconds == pytest.approx(10, rel=0.1)
    assert push.tracker.rate() == 0.0


def test_the_slowest_registry_says_when_all_is_there() -> None:
    push = Push()
    push.plan(one=(1, 1000, 1), two=(1, 1000, 1))
    for i in range(20):
        push.now += 0.5
        push.part("x", i * 10, 10, ONE)
        push.part("x", i * 40, 40, TWO)

    assert push.forecast().seconds == pytest.approx(40, rel=0.1)
    assert [one.number for one in push.tracker.registries.values()] == [1, 2]


def test_nobody_knows_the_time_left_while_a_registry_has_done_nothing() -> None:
    push = Push()
    push.plan(one=(1, 1000, 1), two=(1, 1000, 1))
    push.part("x", 0, 10, ONE)
    push.now += 5

    assert push.tracker.forecast() is None


def test_what_failed_is_not_waited_for_unless_another_image_brings_it_up() -> None:
    push = Push()
    push.plan(one=(3, 300, 3))
    push.start("bad", {"shared": 100, "own": 100})
    push.start("good", {"shared": 100})
    push.finish("bad", ImageStatus.FAILED)
    registry = push.tracker.registries[ONE]

    assert registry.lost == 200
    push.part("shared", 0, 50)
    assert (registry.lost, registry.there) == (100, 50)
    push.start("late", {"own": 100})
    assert registry.lost == 0


def test_nothing_is_left_when_all_images_have_ended() -> None:
    push = Push()
    push.plan(one=(2, 1000, 2))
    push.start("a", {"x": 500})
    push.start("b", {"y": 500})
    push.finish("a", ImageStatus.FAILED)
    push.finish("b", ImageStatus.PUSHED)

    assert push.forecast() == Forecast(0.0, None)
    assert push.tracker.done == 2


def test_images_that_were_rejected_belong_to_no_registry() -> None:
    push = Push()
    push.plan(one=(1, 10, 1))
    push.finish("rejected", ImageStatus.FAILED)

    assert push.tracker.done == 1
    assert push.tracker.registries[ONE].ended == 0


def test_an_atomic_push_stages_all_and_moves_tags_then() -> None:
    push = Push()
    push.plan(one=(2, 20, 4))
    for tag in ("a", "b"):
        push.start(tag, {tag: 10})
        push.part(tag, 0, 10)
        push.tell(
            ManifestCommitted(f"{ONE}/app", tag, None, existed=False),
            ImageStaged(f"{ONE}/app:{tag}", f"{ONE}/app"),
        )
    tracker = push.tracker

    assert (tracker.staged, len(tracker.active), tracker.done) == (2, 0, 0)
    assert tracker.registries[ONE].commits_left == 2
    push.tell(TagsMoving(2))
    push.committed(10.0)
    assert (tracker.tags, tracker.tags_moved) == (2, 1)
    push.finish("a", ImageStatus.PUSHED)
    push.finish("b", ImageStatus.PUSHED)
    assert tracker.registries[ONE].ended == 2


def test_the_last_failures_are_kept_one_for_each_repository_and_kind() -> None:
    push = Push()
    push.plan(one=(30, 0, 30))
    for i in range(10):
        push.finish(f"v{i}", ImageStatus.FAILED)
    assert [result.name for result in push.tracker.failures.values()] == ["v9"]
    for i in range(10):
        result = ImageResult(
            f"w{i}", f"{ONE}/r{i}:v", "d", ImageStatus.FAILED, error=RegistryError("x")
        )
        push.tell(ImageFinished(result))
    assert [result.name for result in push.tracker.failures.values()] == ["w7", "w8", "w9"]


def test_commits_of_an_earlier_run_are_not_waited_for() -> None:
    push = Push()
    push.plan(one=(100, 0, 100))
    for i in range(90):
        push.start(f"v{i}", {})
        push.finish(f"v{i}", ImageStatus.EXISTS)

    assert push.tracker.registries[ONE].commits_left == 10


def test_an_event_costs_the_same_in_a_large_push() -> None:
    """Counted, not timed: how many Python lines an event takes with 4 and with 4000 in flight."""

    def lines(active: int) -> int:
        push = Push()
        push.plan(one=(active, active * 10, active))
        for i in range(active):
            push.start(f"v{i}", {"base": 10, f"own{i}": 10})
        count = 0

        def trace(frame: object, event: str, argument: object) -> object:
            nonlocal count
            count += event == "line"
            return trace

        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            push.part("base", 0, 5)
            push.committed(10.0)
            push.tell(LayerComplete(f"{ONE}/app", "base", 10, 10))
            push.finish("v0", ImageStatus.PUSHED)
        finally:
            sys.settrace(None)
        return count

    assert lines(4000) == lines(4)
