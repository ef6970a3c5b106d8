"""``--otel``: spans for whatever has been set up to receive them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncpush.errors import UsageError

if TYPE_CHECKING:
    from asyncpush.telemetry.spans import Spans

_CARRIED = ("TRACEPARENT", "TRACESTATE")


def spans() -> Spans:
    """Spans by the global provider, below the one that the environment names.

    :raises UsageError: OpenTelemetry is not installed, or nothing would receive the spans.
    """
    try:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        from asyncpush.telemetry.spans import Spans  # noqa: PLC0415
    except ImportError as exc:
        raise UsageError(
            "OpenTelemetry is not installed", advice="pip install 'asyncpush[otel]'"
        ) from exc
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        raise UsageError(
            "nothing has been set up to receive spans",
            advice="run it as opentelemetry-instrument asyncpush ..."
            " (pip install opentelemetry-distro opentelemetry-exporter-otlp)",
        )
    carrier = {name.lower(): os.environ[name] for name in _CARRIED if name in os.environ}
    return Spans(provider, parent=TraceContextTextMapPropagator().extract(carrier))
