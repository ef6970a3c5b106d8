"""All that follows a push from the command line while it runs, by what its options ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from asyncpush.cli.heartbeat import beat
from asyncpush.cli.live import LiveView, wants_live_view
from asyncpush.cli.logs import HANDLER, configure_logging
from asyncpush.cli.options import Output
from asyncpush.engine.events import Event
from asyncpush.engine.options import PushOptions
from asyncpush.engine.results import PushReport
from asyncpush.replication.results import ReplicationReport
from asyncpush.telemetry.tracker import Tracker

if TYPE_CHECKING:
    from asyncpush.report.recorder import Recorder


class Watch:
    """Takes a push's events, and shows and keeps what was asked for.

    :param output: the options.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        quiet = output.quiet or output.as_json
        configure_logging(verbose=output.verbose, quiet=quiet)
        self._recorder = None if output.report is None else _recorder(output.report)
        self._tracker = Tracker()
        self._view: LiveView | None = None
        if not quiet and not HANDLER.as_json and wants_live_view(HANDLER.console):
            self._view = LiveView(HANDLER.console, self._tracker, verbose=output.verbose)

    def take(self, event: Event) -> None:
        """Take one event."""
        self._tracker.take(event)
        if self._recorder is not None:
            self._recorder.take(event)

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
        if self._view is None:
            yield
            return
        with HANDLER.redirected(self._view.above):
            try:
                yield
            finally:
                self._view.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do what has to be done now and then while the context lasts."""
        async with anyio.create_task_group() as tasks:
            if self._view is not None:
                tasks.start_soon(self._view.run)
            elif self._output.heartbeat:
                tasks.start_soon(beat, self._tracker, self._output.heartbeat)
            yield
            tasks.cancel_scope.cancel()


def _recorder(path: Path) -> Recorder:
    """Begin a report, whose modules take longer to import than everything else of a push."""
    from asyncpush.report.file import check_writable  # noqa: PLC0415
    from asyncpush.report.recorder import Recorder  # noqa: PLC0415

    check_writable(path)
    return Recorder()
