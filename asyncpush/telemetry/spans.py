"""OpenTelemetry spans of a push, made of its events: push, image, layer, manifest.

Needs the extra ``otel``. Spans are begun and ended with the times of the events, so that the engine
knows nothing of them, and a push without them pays nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import metadata

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.util.types import AttributeValue

from asyncpush.engine.events import (
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
    TagsMoving,
    Warned,
    host_of,
)
from asyncpush.engine.results import ImageResult, ImageStatus
from asyncpush.errors import AsyncpushError

_Blob = tuple[str, str]


class Spans:
    """Takes the events of a push and makes spans of them.

    :param provider: gives the tracer; the global one by default.
    :param parent: the context that the push is part of.
    :param clock: gives the time in nanoseconds since 1970.
    """

    def __init__(
        self,
        provider: TracerProvider | None = None,
        *,
        parent: Context | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        version = metadata.version("asyncpush")
        self._tracer = (provider or trace.get_tracer_provider()).get_tracer("asyncpush", version)
        self._parent = parent
        self._clock = clock
        self._push: Span | None = None
        self._images: dict[str, Span] = {}
        # Images in flight that need a blob or manifest, the first of them first.
        self._needed_by: dict[_Blob, dict[str, None]] = {}
        self._needs: dict[str, list[_Blob]] = {}
        self._layers: dict[_Blob, Span] = {}
        self._parts: dict[_Blob, int] = {}

    def take(self, event: Event) -> None:
        """Take one event."""
        match event:
            case PartSent():
                key = (event.repository, event.digest)
                self._parts[key] = self._parts.get(key, 0) + 1
            case LayerStarted():
                self._start_layer(event)
            case LayerComplete() | LayerFailed():
                self._end_layer(event)
            case ManifestCommitted():
                self._manifest(event)
            case ImageStarted():
                self._start_image(event)
            case ImageFinished():
                self._end_image(event.result)
            case _:
                self._take_rare(event)

    def close(self) -> None:
        """End what is still open: the push was interrupted."""
        for span in (*self._layers.values(), *self._images.values()):
            self._end(span, StatusCode.ERROR, "interrupted")
        self._layers.clear()
        self._images.clear()
        if self._push is not None:
            self._end(self._push, StatusCode.ERROR, "interrupted")
            self._push = None

    def _take_rare(self, event: Event) -> None:
        match event:
            case PushPlanned():
                self._push = self._start(
                    "push",
                    None,
                    {
                        "asyncpush.images": event.images,
                        "asyncpush.manifests": event.manifests,
                        "asyncpush.blobs": event.blobs,
                        "asyncpush.bytes": event.bytes,
                    },
                )
            case CallRetried() | Warned() | TagsMoving():
                self._note(event)
            case PushEnded():
                self._end_push(event)

    def _start_image(self, event: ImageStarted) -> None:
        attributes = {
            **_place(event.repository),
            "asyncpush.image.name": event.name,
            "asyncpush.bytes": sum(event.blobs.values()),
        }
        self._images[event.reference] = self._start("push image", self._push, attributes)
        needs = [(event.repository, what) for what in (*event.blobs, *event.manifests)]
        self._needs[event.reference] = needs
        for key in needs:
            self._needed_by.setdefault(key, {})[event.reference] = None

    def _end_image(self, result: ImageResult) -> None:
        span = self._images.pop(result.reference, None)
        if span is None:
            # Rejected before its turn.
            span = self._start("push image", self._push, {"asyncpush.image.name": result.name})
        for key in self._needs.pop(result.reference, ()):
            needed_by = self._needed_by[key]
            needed_by.pop(result.reference, None)
            if not needed_by:
                del self._needed_by[key]
        span.set_attributes(
            {
                "oci.manifest.digest": result.digest,
                "container.image.tags": [tag.tag for tag in result.tags],
                "asyncpush.outcome": str(result.status),
                "asyncpush.bytes_sent": result.bytes_sent,
                "asyncpush.blobs_sent": result.blobs_sent,
                "asyncpush.blobs_mounted": result.blobs_mounted,
                "asyncpush.blobs_existing": result.blobs_existing,
            }
        )
        failed = result.status is ImageStatus.FAILED
        self._finish(span, result.error, failed=failed)

    def _start_layer(self, event: LayerStarted) -> None:
        key = (event.repository, event.digest)
        attributes = {
            **_place(event.repository),
            "asyncpush.digest": event.digest,
            "asyncpush.bytes": event.size,
        }
        image = self._image_of(key)
        self._layers[key] = self._start("push layer", image, attributes, kind=SpanKind.CLIENT)

    def _end_layer(self, event: LayerComplete | LayerFailed) -> None:
        key = (event.repository, event.digest)
        span, parts = self._layers.pop(key, None), self._parts.pop(key, 0)
        if span is None:
            return  # A file that cannot be opened fails before its upload starts.
        span.set_attributes({"asyncpush.bytes_sent": event.sent, "asyncpush.parts": parts})
        self._finish(span, event.error if isinstance(event, LayerFailed) else None)

    def _manifest(self, event: ManifestCommitted) -> None:
        attributes: dict[str, AttributeValue] = {
            **_place(event.repository),
            "oci.manifest.digest": event.digest,
            "asyncpush.outcome": "existed" if event.existed else "committed",
        }
        if event.tag is not None:
            attributes["container.image.tags"] = [event.tag]
        now = self._clock()
        image = self._image_of((event.repository, event.digest))
        begin = now - round(event.seconds * 1e9)
        self._start("commit manifest", image, attributes, begin, SpanKind.CLIENT).end(now)

    def _note(self, event: CallRetried | Warned | TagsMoving) -> None:
        if self._push is None:
            return
        match event:
            case CallRetried():
                attributes: dict[str, AttributeValue] = {
                    **_place(event.repository),
                    "asyncpush.call": event.call,
                    "asyncpush.attempt": event.attempt,
                    "asyncpush.delay": event.delay,
                    "asyncpush.error": event.error,
                }
                name = "call throttled" if event.throttled else "call retried"
            case Warned():
                name, attributes = "warning", {"asyncpush.warning": event.message}
            case TagsMoving():
                name, attributes = "tags moving", {"asyncpush.tags": event.tags}
        self._push.add_event(name, attributes, self._clock())

    def _end_push(self, event: PushEnded) -> None:
        report = event.report
        if self._push is not None and report.complete:
            self._push.set_attributes(
                {
                    "asyncpush.bytes_sent": report.bytes_sent,
                    "asyncpush.retries": report.retries,
                    "asyncpush.throttles": report.throttles,
                    **{f"asyncpush.images.{s}": report.count(s) for s in ImageStatus},
                }
            )
            failed = len(report.failed)
            why = f"{failed} of {len(report.images)} images failed" if failed else None
            self._end(self._push, StatusCode.ERROR if failed else StatusCode.UNSET, why)
            self._push = None
        self.close()

    def _image_of(self, key: _Blob) -> Span | None:
        """The image that needs a blob or manifest: the first of those that are in flight."""
        needed_by = self._needed_by.get(key)
        return self._images.get(next(iter(needed_by)), self._push) if needed_by else self._push

    def _start(
        self,
        name: str,
        parent: Span | None,
        attributes: dict[str, AttributeValue],
        begin: int | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        context = self._parent if parent is None else trace.set_span_in_context(parent)
        return self._tracer.start_span(
            name, context, kind, attributes, start_time=begin or self._clock()
        )

    def _finish(self, span: Span, error: AsyncpushError | None, *, failed: bool = True) -> None:
        if error is None:
            self._end(span)
            return
        span.set_attribute("error.type", error.kind)
        # No traceback: the error says what, where and what to do.
        span.add_event(
            "exception",
            {
                "exception.type": f"{type(error).__module__}.{type(error).__qualname__}",
                "exception.message": str(error),
            },
            self._clock(),
        )
        self._end(span, StatusCode.ERROR if failed else StatusCode.UNSET, error.message)

    def _end(self, span: Span, code: StatusCode = StatusCode.UNSET, why: str | None = None) -> None:
        if code is StatusCode.ERROR:
            span.set_status(Status(code, why))
        span.end(self._clock())


def _place(repository: str) -> dict[str, AttributeValue]:
    """Where something goes, in the words of the semantic conventions."""
    host, _, port = host_of(repository).rpartition(":")
    if not port.isdecimal():
        host, port = host_of(repository), ""
    attributes: dict[str, AttributeValue] = {"server.address": host}
    if port:
        attributes["server.port"] = int(port)
    if repository != host_of(repository):
        attributes["container.image.name"] = repository
    return attributes
