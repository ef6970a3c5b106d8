"""Standard error: one line for each record of ``asyncpush.*``, for people or as JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_STATUS_STYLES = {
    "pushed": "green",
    "exists": "cyan",
    "refused": "yellow",
    "staged": "yellow",
    "failed": "red",
}
# What the summary on standard output says.
_NOT_FOR_PEOPLE = frozenset({"push_ended"})


class LogHandler(logging.Handler):
    """Writes records of asyncpush to standard error, as text or as JSON.

    Many commands write none, so what styles them is imported with the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.as_json = False
        self._above: Callable[[logging.LogRecord, Text], None] | None = None

    @cached_property
    def console(self) -> Console:
        """Standard error."""
        from rich.console import Console  # noqa: PLC0415

        return Console(stderr=True, highlight=False)

    @contextmanager
    def redirected(self, above: Callable[[logging.LogRecord, Text], None]) -> Iterator[None]:
        """Give text to a view, which knows where it can be shown, while the context lasts."""
        self._above = above
        try:
            yield
        finally:
            self._above = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if self.as_json:
            sys.stderr.write(json.dumps(_document(record)) + "\n")
            sys.stderr.flush()
        elif _event_of(record) in _NOT_FOR_PEOPLE:
            return
        elif self._above is not None:
            self._above(record, _styled(record))
        else:
            self.console.print(_styled(record), soft_wrap=True)


HANDLER = LogHandler()
"""The one handler of the command line."""


def configure_logging(*, verbose: bool = False, quiet: bool = False) -> None:
    """Let the command line's handler have what is worth a line.

    :param verbose: also layers, manifests and retries.
    :param quiet: warnings and errors alone.
    """
    logger = logging.getLogger("asyncpush")
    if HANDLER not in logger.handlers:
        logger.addHandler(HANDLER)
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    logger.setLevel(level)


def _event_of(record: logging.LogRecord) -> str:
    return str(getattr(record, "event", "message"))


def _document(record: logging.LogRecord) -> dict[str, Any]:
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {
        "time": time.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": _event_of(record),
        "message": record.getMessage(),
        **getattr(record, "fields", {}),
    }


def _styled(record: logging.LogRecord) -> Text:
    from rich.text import Text  # noqa: PLC0415

    message = record.getMessage()
    if record.levelno >= logging.ERROR:
        return Text.assemble(("error: ", "red"), message)
    if record.levelno >= logging.WARNING:
        return Text.assemble(("warning: ", "yellow"), message)
    line = Text(message)
    if _event_of(record) == "image_finished":
        status = getattr(record, "fields", {}).get("status", "")
        line.stylize(_STATUS_STYLES.get(status, ""), 0, len(status))
    elif _event_of(record) == "call_retried":
        line.stylize("yellow")
    return line
