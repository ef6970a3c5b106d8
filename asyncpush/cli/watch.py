"""All that follows a push from the command line while it runs, by what its options ask for."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from asyncpush.cli.logs import HANDLER, configure_logging
from asyncpush.cli.options import Output
from asyncpush.engine.events import Event, EventSink
from asyncpush.engine.options import PushOptions
from asyncpush.engine.results import PushReport
from asyncpush.replication.results import ReplicationReport
from asyncpush.telemetry.tracker import Tracker

if TYPE_CHECKING:
    from asyncpush.cli.live import LiveView
    from asyncpush.report.recorder import Recorder
    from asyncpush.telemetry.exporter import MetricsFile

_LOGGER = logging.getLogger("asyncpush.cli")


class Watch:
    """Takes a push's events, and shows and keeps what was asked for.

    :param output: the options.
    :raises UsageError: one of them cannot be had.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        quiet = output.quiet or output.as_json
        configure_logging(verbose=output.verbose, quiet=quiet)
        self._tracker = Tracker()
        self._sinks: list[EventSink] = [self._tracker.take]
        self._view: LiveView | None = None
        if not quiet and not HANDLER.as_json:
            self._view = _view(self._tracker, verbose=output.verbose)
        self._recorder = None if output.report is None else _recorder(output.report)
        if self._recorder is not None:
            self._sinks.append(self._recorder.take)
        self._listen: tuple[str, int] | None = None
        self._file: MetricsFile | None = None
        if output.metrics is not None or output.metrics_listen is not None:
            self._measure(output)
        if output.otel:
            from asyncpush.cli.otel import spans  # noqa: PLC0415 - an extra, not always there

            self._sinks.append(spans().take)

    def _measure(self, output: Output) -> None:
        """Keep the metrics that are asked for."""
        from asyncpush.telemetry.exporter import MetricsFile, parse_listen  # noqa: PLC0415 - as below
        from asyncpush.telemetry.metrics import Metrics  # noqa: PLC0415

        self._metrics = Metrics()
        if output.metrics_listen is not None:
            self._listen = parse_listen(output.metrics_listen)
        if output.metrics is not None:
            self._file = MetricsFile(output.metrics, self._metrics)
        self._sinks.append(self._metrics.take)

    def take(self, event: Event) -> None:
        """Take one event."""
        for sink in self._sinks:
            sink(event)

    def stop(self) -> None:
        """Tell whoever looks that the push is being stopped."""
        if self._view is not None:
            self._view.stop()

    def write_report(
        self,
        title: str,
        report: PushReport,
        options: PushOptions,
        replication: ReplicationReport | None,
    ) -> None:
        """Write the report, if one was asked for.

        :param title: what people call the push.
        :param replication: what waiting for replication has shown, if it was waited for.
        """
        if self._recorder is not None and self._output.report is not None:
            from asyncpush.report.file import write_report  # noqa: PLC0415 - as in _recorder

            write_report(self._output.report, title, self._recorder, report, options, replication)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the push while the context lasts; afterwards nothing of the view is left."""
        try:
            if self._view is None:
                yield
                return
            with HANDLER.redirected(self._view.above):
                try:
                    yield
                finally:
                    self._view.close()
        finally:
            if self._file is not None:
                self._file.write()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do what has to be done now and then while the context lasts.

        :raises UsageError: the port for the metrics cannot be had.
        """
        async with AsyncExitStack() as stack:
            if self._listen:
                from asyncpush.telemetry.exporter import serve_metrics  # noqa: PLC0415

                serving = serve_metrics(self._metrics, *self._listen)
                url = await stack.enter_async_context(serving)
                extra = {"event": "metrics_served", "fields": {"url": url}}
                _LOGGER.info("metrics are served at %s", url, extra=extra)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            if self._view is not None:
                tasks.start_soon(self._view.run)
            elif self._output.heartbeat:
                from asyncpush.cli.heartbeat import beat  # noqa: PLC0415

                tasks.start_soon(beat, self._tracker, self._output.heartbeat)
            if self._file is not None:
                tasks.start_soon(self._file.keep_up)
            yield
            tasks.cancel_scope.cancel()


def _view(tracker: Tracker, *, verbose: bool) -> LiveView | None:
    """The view of a terminal, whose modules take as long to import as a short push takes."""
    from asyncpush.cli.live import LiveView, wants_live_view  # noqa: PLC0415

    if not wants_live_view(HANDLER.console):
        return None
    return LiveView(HANDLER.console, tracker, verbose=verbose)


def _recorder(path: Path) -> Recorder:
    """Begin a report, whose modules take longer to import than everything else of a push."""
    from asyncpush.report.file import check_writable  # noqa: PLC0415
    from asyncpush.report.recorder import Recorder  # noqa: PLC0415

    check_writable(path)
    return Recorder()
