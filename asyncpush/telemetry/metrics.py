"""Metrics of a push, made of its events; what their labels can be is bounded.

Labels are registries, calls, statuses and outcomes, never images, repositories or digests, so a
job of 100,000 images has as many samples as one of ten.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from asyncpush.about import version
from asyncpush.engine.events import (
    BlobExists,
    BlobMounted,
    CallEnded,
    CallRetried,
    Event,
    ImageFinished,
    ImageReplicated,
    ImageStaged,
    ImageStarted,
    ImageVerified,
    LayerComplete,
    LayerFailed,
    LayerStarted,
    ManifestCommitted,
    PartSent,
    PushEnded,
    PushPlanned,
    Warned,
    host_of,
)
from asyncpush.telemetry.exposition import Family, Histogram, render

F = TypeVar("F", Family, Histogram)

_CALL_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_IMAGE_BOUNDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """Takes the events of pushes, and says what became of them in Prometheus' text format.

    :param clock: gives the time in seconds, from any moment on.
    :param time_of_day: gives the time in seconds since 1970.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        time_of_day: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._time_of_day = time_of_day
        self._families: list[Family | Histogram] = []
        self._hosts: set[str] = set()
        self._images_started: dict[str, str] = {}
        self._layers_started: dict[tuple[str, str], float] = {}

        info = self._gauge("build_info", "The version that runs; always 1.", "version")
        info.set(1, version())
        self._started = self._gauge("start_timestamp_seconds", "When the push was planned.")
        self._ended = self._gauge("end_timestamp_seconds", "When the push ended, if it has.")
        self._running = self._gauge("running", "1 while the push runs, then 0.")
        self._success = self._gauge(
            "success", "1 if the push came to its end and no image failed, else 0."
        )
        self._images_planned = self._gauge("images_planned", "Images to push.", "registry")
        self._bytes_planned = self._gauge(
            "bytes_planned", "Bytes of blobs, each counted once for its repository.", "registry"
        )
        self._images = self._counter("images_total", "Images that ended.", "registry", "status")
        self._images_in_flight = self._gauge(
            "images_in_flight", "Images whose turn has come and that have not ended.", "registry"
        )
        self._image_seconds = self._histogram(
            "image_duration_seconds", "From an image's turn to its end.", _IMAGE_BOUNDS, "registry"
        )
        self._blobs = self._counter(
            "blobs_total",
            "Blobs that were sent or mounted, existed or failed.",
            "registry",
            "outcome",
        )
        self._blob_bytes = self._counter(
            "blob_bytes_total", "Bytes of blobs that are there now.", "registry", "outcome"
        )
        self._layers_in_flight = self._gauge(
            "layers_in_flight", "Blobs that are being uploaded.", "registry"
        )
        self._layer_seconds = self._histogram(
            "layer_duration_seconds", "From a blob's turn to its end.", _IMAGE_BOUNDS, "registry"
        )
        self._bytes_sent = self._counter(
            "bytes_sent_total", "Bytes of parts that the registry acknowledged.", "registry"
        )
        self._manifests = self._counter(
            "manifests_total", "Manifests and tags committed or found.", "registry", "outcome"
        )
        self._calls = self._counter(
            "calls_total",
            "Calls made, each try of them, by ok or the kind of the error.",
            "registry",
            "call",
            "outcome",
        )
        self._call_seconds = self._histogram(
            "call_duration_seconds",
            "From when a call's turn had come to its end.",
            _CALL_BOUNDS,
            "registry",
            "call",
        )
        self._call_waits = self._counter(
            "call_wait_seconds_total", "Seconds waited for the pace of calls.", "registry", "call"
        )
        self._throttles = self._counter(
            "throttles_total", "Calls that the registry throttled.", "registry", "call"
        )
        self._retries = self._counter(
            "retries_total", "Calls tried again for other reasons.", "registry", "call"
        )
        self._pace = self._gauge(
            "call_pace", "Calls a second at most, as throttling has it now.", "registry", "call"
        )
        self._quota = self._gauge("call_quota", "Calls a second at most.", "registry", "call")
        self._verified = self._counter(
            "images_verified_total", "Images that were verified.", "registry", "outcome"
        )
        self._replicated = self._counter(
            "images_replicated_total",
            "Images by how their replication ended.",
            "registry",
            "status",
        )
        self._warnings = self._counter("warnings_total", "Warnings.")

    def text(self) -> str:
        """All metrics as they are now."""
        return render(self._families)

    def take(self, event: Event) -> None:
        """Count one event."""
        match event:
            case CallEnded():
                self._call(event)
            case PartSent():
                self._bytes_sent.add(event.size, host_of(event.repository))
            case BlobExists() | BlobMounted() | LayerStarted() | LayerComplete() | LayerFailed():
                self._blob(event)
            case ManifestCommitted():
                outcome = "existed" if event.existed else "committed"
                self._manifests.add(1, host_of(event.repository), outcome)
            case CallRetried():
                family = self._throttles if event.throttled else self._retries
                family.add(1, host_of(event.repository), event.call)
            case ImageStarted() | ImageStaged() | ImageFinished():
                self._image(event)
            case _:
                self._take_rare(event)

    def _take_rare(self, event: Event) -> None:
        match event:
            case PushPlanned():
                self._started.set(self._time_of_day())
                self._running.set(1)
                self._hosts.update(event.registries)
                for host, totals in event.registries.items():
                    self._images_planned.set(totals.images, host)
                    self._bytes_planned.set(totals.bytes, host)
            case PushEnded():
                self._ended.set(self._time_of_day())
                self._running.set(0)
                self._success.set(event.report.ok)
            case ImageVerified():
                outcome = "bad" if event.problems else "good"
                self._verified.add(1, host_of(event.reference), outcome)
            case ImageReplicated():
                self._replicated.add(1, host_of(event.result.reference), str(event.result.status))
            case Warned():
                self._warnings.add(1)

    def _call(self, event: CallEnded) -> None:
        host, call = host_of(event.repository), event.call
        self._calls.add(1, host, call, event.outcome)
        self._call_seconds.observe(event.seconds, host, call)
        self._call_waits.add(event.waited, host, call)
        self._pace.set(event.rate, host, call)
        self._quota.set(event.quota, host, call)

    def _blob(
        self, event: BlobExists | BlobMounted | LayerStarted | LayerComplete | LayerFailed
    ) -> None:
        host, key = host_of(event.repository), (event.repository, event.digest)
        match event:
            case LayerStarted():
                self._layers_started[key] = self._clock()
                self._layers_in_flight.add(1, host)
                return
            case LayerComplete():
                outcome = "sent"
            case LayerFailed():
                outcome = "failed"
            case BlobExists():
                outcome = "existed"
            case BlobMounted():
                outcome = "mounted"
        self._blobs.add(1, host, outcome)
        if outcome != "failed":
            self._blob_bytes.add(event.size, host, outcome)
        # A file that cannot be opened fails before its upload starts.
        began = self._layers_started.pop(key, None)
        if began is not None:
            self._layers_in_flight.add(-1, host)
            self._layer_seconds.observe(self._clock() - began, host)

    def _image(self, event: ImageStarted | ImageStaged | ImageFinished) -> None:
        match event:
            case ImageStarted():
                host = self._images_started[event.reference] = host_of(event.repository)
                self._images_in_flight.add(1, host)
            case ImageStaged():
                self._leave(event.reference)
            case ImageFinished():
                result = event.result
                self._leave(result.reference)
                host = host_of(result.reference)
                if host not in self._hosts:
                    host = ""  # What was rejected may name anything in the place of a registry.
                self._images.add(1, host, str(result.status))
                self._image_seconds.observe(result.seconds, host)

    def _leave(self, reference: str) -> None:
        host = self._images_started.pop(reference, None)
        if host is not None:
            self._images_in_flight.add(-1, host)

    def _counter(self, name: str, about: str, *labels: str) -> Family:
        return self._keep(Family(f"asyncpush_{name}", "counter", about, labels))

    def _gauge(self, name: str, about: str, *labels: str) -> Family:
        return self._keep(Family(f"asyncpush_{name}", "gauge", about, labels))

    def _histogram(
        self, name: str, about: str, bounds: tuple[float, ...], *labels: str
    ) -> Histogram:
        return self._keep(Histogram(f"asyncpush_{name}", about, labels, bounds))

    def _keep(self, family: F) -> F:
        self._families.append(family)
        return family
