"""Metrics, read with Prometheus' own parser: names, types, what they count, how many there are."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from asyncpush.engine.events import (
    BlobExists,
    BlobMounted,
    CallEnded,
    CallRetried,
    Event,
    ImageFinished,
    ImageStarted,
    LayerComplete,
    LayerFailed,
    LayerStarted,
    ManifestCommitted,
    PartSent,
    PushEnded,
    PushPlanned,
    RegistryTotals,
    Warned,
)
from asyncpush.engine.results import ImageResult, ImageStatus, PushReport
from asyncpush.errors import RegistryError
from asyncpush.telemetry.exposition import Family, Histogram, render
from asyncpush.telemetry.metrics import Metrics

HOST = "registry.example:5000"
REPOSITORY = f"{HOST}/team/app"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """Every sample by name and labels; none may be there twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


class Told:
    """Metrics that are told of a push by hand, on a clock of their own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.metrics = Metrics(clock=lambda: self.now, time_of_day=lambda: 1e9 + self.now)

    def tell(self, *events: Event) -> None:
        for event in events:
            self.metrics.take(event)

    def value(self, name: str, **labels: str) -> float:
        return parsed(self.metrics.text())[f"asyncpush_{name}", frozenset(labels.items())]


def image(name: str, status: ImageStatus, seconds: float = 3.0) -> ImageResult:
    return ImageResult(name, f"{REPOSITORY}:{name}", "d", status, seconds=seconds)


def plan(images: int = 10) -> PushPlanned:
    return PushPlanned(
        images, 1, images, images, 1000, {HOST: RegistryTotals(images, images, 1000, images)}
    )


def test_a_push_from_its_plan_to_its_end() -> None:
    told = Told()
    told.tell(plan(), ImageStarted(f"{REPOSITORY}:a", "a", REPOSITORY, {"x": 60, "y": 40}))
    assert told.value("running") == 1
    assert told.value("images_planned", registry=HOST) == 10
    assert told.value("bytes_planned", registry=HOST) == 1000
    assert told.value("images_in_flight", registry=HOST) == 1
    assert told.value("start_timestamp_seconds") == 1e9 + 100

    told.tell(BlobExists(REPOSITORY, "x", 60), LayerStarted(REPOSITORY, "y", 40))
    told.tell(BlobMounted(REPOSITORY, "z", 7, f"{HOST}/base"))
    assert told.value("layers_in_flight", registry=HOST) == 1
    told.now += 4.0
    told.tell(
        PartSent(REPOSITORY, "y", 0, 40),
        LayerComplete(REPOSITORY, "y", 40, 40),
        ManifestCommitted(REPOSITORY, "m", "a", existed=False),
        ImageFinished(image("a", ImageStatus.PUSHED)),
        PushEnded(PushReport([image("a", ImageStatus.PUSHED)], complete=True)),
    )

    assert told.value("bytes_sent_total", registry=HOST) == 40
    assert told.value("blobs_total", registry=HOST, outcome="existed") == 1
    assert told.value("blob_bytes_total", registry=HOST, outcome="sent") == 40
    assert told.value("blob_bytes_total", registry=HOST, outcome="mounted") == 7
    assert told.value("layers_in_flight", registry=HOST) == 0
    assert told.value("layer_duration_seconds_sum", registry=HOST) == 4.0
    assert told.value("layer_duration_seconds_bucket", registry=HOST, le="2.5") == 0
    assert told.value("layer_duration_seconds_bucket", registry=HOST, le="5") == 1
    assert told.value("layer_duration_seconds_bucket", registry=HOST, le="+Inf") == 1
    assert told.value("manifests_total", registry=HOST, outcome="committed") == 1
    assert told.value("images_total", registry=HOST, status="pushed") == 1
    assert told.value("images_in_flight", registry=HOST) == 0
    assert (told.value("running"), told.value("success")) == (0, 1)
    assert told.value("end_timestamp_seconds") == 1e9 + 104


def test_calls_by_outcome_with_their_pace() -> None:
    told = Told()
    told.tell(
        CallEnded("PutImage", REPOSITORY, "ok", 0.5, 0.02, 10.0, 10.0),
        CallEnded("PutImage", REPOSITORY, "throttled", 0.5, 0.2, 7.0, 10.0),
        CallRetried("PutImage", REPOSITORY, "slow down", 1, 0.1, throttled=True),
        CallRetried("UploadLayerPart", REPOSITORY, "lost", 1, 0.1),
        CallEnded("GetAuthorizationToken", HOST, "ok", 0.0, 1.0, 500.0, 500.0),
    )
    labels = {"registry": HOST, "call": "PutImage"}

    assert told.value("calls_total", **labels, outcome="ok") == 1
    assert told.value("calls_total", **labels, outcome="throttled") == 1
    assert told.value("call_wait_seconds_total", **labels) == 1.0
    assert told.value("call_duration_seconds_count", **labels) == 2
    assert told.value("call_duration_seconds_sum", **labels) == pytest.approx(0.22)
    assert (told.value("call_pace", **labels), told.value("call_quota", **labels)) == (7, 10)
    assert told.value("throttles_total", **labels) == 1
    assert told.value("retries_total", registry=HOST, call="UploadLayerPart") == 1
    assert told.value("calls_total", registry=HOST, call="GetAuthorizationToken", outcome="ok") == 1


def test_failures() -> None:
    told = Told()
    told.tell(
        plan(),
        LayerFailed(REPOSITORY, "unreadable", 5, 0, RegistryError("no such file")),
        LayerStarted(REPOSITORY, "x", 5),
        LayerFailed(REPOSITORY, "x", 5, 0, RegistryError("broken")),
        ImageFinished(image("a", ImageStatus.FAILED)),
        ImageFinished(ImageResult("b", "no reference at all", "", ImageStatus.FAILED)),
        Warned("careful"),
        PushEnded(PushReport([image("a", ImageStatus.FAILED)], complete=True)),
    )

    assert told.value("blobs_total", registry=HOST, outcome="failed") == 2
    assert told.value("layers_in_flight", registry=HOST) == 0
    assert told.value("images_total", registry=HOST, status="failed") == 1
    assert told.value("images_total", registry="", status="failed") == 1
    assert told.value("warnings_total") == 1
    assert told.value("success") == 0


def test_ten_thousand_images_have_as_many_samples_as_ten() -> None:
    def samples(images: int) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        told = Told()
        told.tell(plan(images))
        for i in range(images):
            repository = f"{HOST}/app{i}"
            told.tell(
                ImageStarted(f"{repository}:v", "v", repository, {f"l{i}": 1}),
                LayerStarted(repository, f"l{i}", 1),
                PartSent(repository, f"l{i}", 0, 1),
                LayerComplete(repository, f"l{i}", 1, 1),
                CallEnded("PutImage", repository, "ok", 0, 0, 1, 1),
                ManifestCommitted(repository, "m", "v", existed=False),
                ImageFinished(ImageResult("v", f"{repository}:v", "d", ImageStatus.PUSHED)),
            )
        assert told.metrics._images_started == told.metrics._layers_started == {}
        return set(parsed(told.metrics.text()))

    assert samples(10_000) == samples(10)


def test_names_follow_prometheus_conventions() -> None:
    told = Told()
    told.tell(plan(), CallEnded("PutImage", REPOSITORY, "ok", 0, 0, 1, 1), Warned("x"))
    for family in text_string_to_metric_families(told.metrics.text()):
        assert family.name.startswith("asyncpush_")
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")


def test_labels_are_escaped() -> None:
    family = Family("strange", "gauge", 'a "help"\nwith\\lines', ["label"])
    nasty = 'quote " backslash \\ and\nline'
    family.set(1.5, nasty)
    histogram = Histogram("times", "how long", ["label"], [0.1, 1])
    histogram.observe(0.1, nasty)

    (first, second) = text_string_to_metric_families(render([family, histogram]))

    assert first.samples[0].labels == {"label": nasty}
    assert first.samples[0].value == 1.5
    assert [s.value for s in second.samples] == [1, 1, 1, 0.1, 1]
