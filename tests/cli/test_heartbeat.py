"""Heartbeats: what they say of a push in every phase."""

from __future__ import annotations

from asyncpush.cli.heartbeat import figures, words
from asyncpush.engine.events import (
    CallEnded,
    CallRetried,
    ImageFinished,
    ImageStaged,
    ImageStarted,
    ImageVerified,
    ManifestCommitted,
    PartSent,
    PushPlanned,
    RegistryTotals,
    ReplicationAwaited,
    TagsMoving,
)
from asyncpush.engine.results import ImageResult, ImageStatus
from asyncpush.errors import RegistryError
from asyncpush.telemetry.tracker import Tracker

HOST = "registry.example"
REPOSITORY = f"{HOST}/app"


def test_a_push_from_its_sources_to_its_tags() -> None:
    now = 0.0
    tracker = Tracker(clock=lambda: now)
    now = 5.0
    assert list(words(tracker)) == ["progress: reading the sources, 0:05 gone"]

    totals = RegistryTotals(images=3, blobs=3, bytes=3000, commits=6)
    tracker.take(PushPlanned(3, 1, 3, 3, 3000, {HOST: totals}))
    for tag in ("a", "b", "c"):
        tracker.take(ImageStarted(f"{REPOSITORY}:{tag}", tag, REPOSITORY, {f"l{tag}": 1000}))
    now = 10.0
    tracker.take(PartSent(REPOSITORY, "la", 0, 1000))
    now = 11.0
    tracker.take(CallEnded("PutImage", REPOSITORY, "throttled", 0, 0, 7.0, 10.0))
    tracker.take(CallRetried("PutImage", REPOSITORY, "slow", 1, 1, throttled=True))
    tracker.take(CallRetried("UploadLayerPart", REPOSITORY, "lost", 1, 1))
    error = RegistryError("broken")
    failed = ImageResult("c", f"{REPOSITORY}:c", "d", ImageStatus.FAILED, error=error)
    tracker.take(ImageFinished(failed))
    line = "; ".join(words(tracker))
    assert line.startswith("progress: 1 of 3 images, 1000 B of 2.9 KiB, ")
    assert "0:11 gone, about 0:0" in line
    assert "1 failed; 1 call retried; registry.example throttled PutImage 1 times, now at 7" in line
    assert line.endswith("2 in flight, the oldest: registry.example/app:a (1000 of 1000 B, 0:06)")
    found = figures(tracker)
    assert found["slowed_calls"] == [
        {"registry": HOST, "call": "PutImage", "throttled": 1, "rate": 7.0, "quota": 10.0}
    ]
    assert [one["reference"][-1] for one in found["slowest"]] == ["a", "b"]
    assert (found["retries"], found["throttles"], found["images_failed"]) == (1, 1, 1)

    tracker.take(ImageStaged(f"{REPOSITORY}:a", REPOSITORY))
    assert "1 staged" in list(words(tracker))
    tracker.take(TagsMoving(2))
    tracker.take(ManifestCommitted(REPOSITORY, "d", "a", existed=False))
    assert list(words(tracker))[-1] == "moving tags: 1 of 2"
    tracker.take(ImageVerified("a", f"{REPOSITORY}:a", "d", ()))
    tracker.take(ReplicationAwaited(HOST, 2, 0))
    assert {"1 verified", "0 of 2 replicated"} <= set(words(tracker))


def test_a_pace_that_nobody_reaches_is_not_told() -> None:
    tracker = Tracker()
    tracker.take(PushPlanned(0, 0, 0, 0, 0, {HOST: RegistryTotals()}))
    tracker.take(CallEnded("PutImage", REPOSITORY, "throttled", 0, 0, 70_000.0, 100_000.0))

    assert f"{HOST} throttled PutImage 1 times" in list(words(tracker))
