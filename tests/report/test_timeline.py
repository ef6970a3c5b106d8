"""Sums over time: nothing is lost when buckets widen, and nothing grows with a push's length."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.engine.events import (
    BlobExists,
    CallEnded,
    CallRetried,
    ImageStarted,
    LayerComplete,
    LayerFailed,
    LayerStarted,
    PartSent,
    TagsMoving,
)
from asyncpush.errors import RegistryError
from asyncpush.report import recorder as recording
from asyncpush.report.recorder import Recorder
from asyncpush.report.timeline import MOST_BUCKETS, Buckets, Stretches

MOMENT = st.floats(0, 500_000)


@given(st.lists(st.tuples(MOMENT, MOMENT, st.integers(0, 10**12))))
def test_widening_loses_nothing(spans: list[tuple[float, float, int]]) -> None:
    buckets = Buckets()
    for one, other, amount in spans:
        buckets.add(("calls",), one)
        buckets.spread(("bytes",), min(one, other), max(one, other), amount)
    for (name,), figures in buckets.items():
        assert len(figures) <= MOST_BUCKETS
        wanted = len(spans) if name == "calls" else sum(amount for _, _, amount in spans)
        assert sum(figures) == pytest.approx(wanted)
        assert all(figure >= 0 for figure in figures)


def test_an_amount_is_spread_over_the_time_that_it_took() -> None:
    buckets = Buckets()
    buckets.spread(("bytes",), 0.375, 1.0, 500)
    assert list(buckets.items()) == [(("bytes",), [0, 100, 200, 200, 0])]


@given(st.integers(1, 3000), st.integers(1, 64))
def test_stretches_keep_all_parts_in_few_rows(parts: int, most: int) -> None:
    stretches = Stretches()
    for part in range(parts):
        stretches.add(part, part + 0.5, 10, most)
    rows = stretches.rows()
    assert len(rows) <= most
    assert sum(row[3] for row in rows) == parts
    assert sum(row[2] for row in rows) == 10 * parts
    assert (rows[0][0], rows[-1][1]) == (0, parts - 0.5)
    # All but the last have the same number of parts, and each ends before the next begins.
    assert {row[3] for row in rows[:-1]} <= {rows[0][3]}
    assert all(before[1] < after[0] for before, after in itertools.pairwise(rows))


def test_stretches_of_all_blobs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_STRETCHES", 100)
    recorder = Recorder()
    for blob in range(60):
        digest = f"sha256:{blob}"
        recorder.take(LayerStarted("r/a", digest, 30))
        for part in range(3):
            recorder.take(PartSent("r/a", digest, 10 * part, 10, 0.0, 0.1))
        recorder.take(LayerComplete("r/a", digest, 30, 30))
    blobs = list(recorder.documents())
    assert sum(len(blob.get("stretches", ())) for blob in blobs) <= 100
    # What has no stretches has its sums.
    assert "stretches" not in blobs[-1]
    assert all((blob["parts"], blob["bytes_sent"]) == (3, 30) for blob in blobs)
    assert all(blob["sending"] == pytest.approx(0.3) for blob in blobs)


def test_images_name_their_blobs_by_their_places() -> None:
    recorder = Recorder()
    recorder.take(BlobExists("r/other", "sha256:1", 1))
    recorder.take(
        ImageStarted("r/a:1", "one", "r/a", {"sha256:1": 1, "sha256:2": 2}, ("sha256:m",))
    )
    recorder.take(LayerFailed("r/a", "sha256:2", 2, 0, RegistryError("no")))
    recorder.take(
        ImageStarted("r/a:2", "two", "r/a", {"sha256:2": 2, "sha256:3": 3}, ("sha256:n",))
    )
    blobs = list(recorder.documents())
    named = [blobs[index] for index in recorder.image("r/a:2")["blobs"]]
    assert [(blob["digest"], blob["status"]) for blob in named] == [
        ("sha256:2", "failed"),
        ("sha256:3", "unfinished"),
    ]
    assert recorder.image("r/a:1")["blobs"] == [1, 2]
    assert "ended" not in recorder.image("r/a:1")
    assert recorder.image("r/never:1") == {}


def test_calls_are_counted_by_what_came_of_them() -> None:
    recorder = Recorder()
    for outcome in ("ok", "throttled", "transient", "access-denied"):
        recorder.take(CallEnded("PutImage", "r/a", outcome, 0.5, 0.1, 10, 10))
    recorder.take(CallRetried("PutImage", "r/a", "slow down", 1, 2.5, throttled=True))
    recorder.take(TagsMoving(3))
    timeline = recorder.timeline()
    series = timeline["registries"]["r"]["calls"]["PutImage"]
    assert {name: sum(figures) for name, figures in series.items()} == {  # type: ignore[arg-type]
        "calls": 4,
        "throttled": 1,
        "failed": 1,
        "paced": 2.0,
        "delayed": 2.5,
        "seconds": pytest.approx(0.4),
    }
    assert timeline["tags_moving"] >= 0
