"""Telemetry: how a push stands while it runs, for views, metrics and traces.

``asyncpush.telemetry.spans`` is not imported here: it needs the extra ``otel``.
"""

from asyncpush.telemetry.exporter import MetricsFile, serve_metrics
from asyncpush.telemetry.metrics import Metrics
from asyncpush.telemetry.tracker import Tracker

__all__ = ["Metrics", "MetricsFile", "Tracker", "serve_metrics"]
