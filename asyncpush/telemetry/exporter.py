"""Where metrics go: a file that is replaced now and then, an endpoint on loopback."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from asyncpush.errors import UsageError
from asyncpush.telemetry.exposition import CONTENT_TYPE
from asyncpush.telemetry.metrics import Metrics

_LOGGER = logging.getLogger("asyncpush.metrics")
_WRITE_SECONDS = 15.0
_CLOSE_SECONDS = 1.0
_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:]+\]|[^:\[\]]+):(?P<port>[0-9]{1,5})")


class MetricsFile:
    """A file that holds metrics as a whole whenever the node exporter reads it.

    :param path: the file; its name should end in ``.prom``.
    :raises UsageError: the file cannot be written.
    """

    def __init__(self, path: Path, metrics: Metrics) -> None:
        self._path = path
        self._metrics = metrics
        self._failing = False
        # The collector reads what ends in .prom alone, so it never reads this one.
        self._beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            if path.is_dir():
                raise IsADirectoryError(21, "is a directory")
            self._replace(metrics.text())
        except OSError as exc:
            raise UsageError(
                f"the metrics cannot be written: {exc.strerror or exc}",
                advice="choose another file for --metrics",
                file=str(path),
            ) from exc

    async def keep_up(self) -> None:
        """Write the file now and then, until cancelled."""
        while True:
            await anyio.sleep(_WRITE_SECONDS)
            # The text is made here, where no event comes in between.
            await anyio.to_thread.run_sync(self._try, self._metrics.text())

    def write(self) -> None:
        """Write the file."""
        self._try(self._metrics.text())

    def _try(self, text: str) -> None:
        """Write, and when that fails warn once: metrics stop no push."""
        try:
            self._replace(text)
        except OSError as exc:
            if not self._failing:
                _LOGGER.warning(
                    "the metrics cannot be written: %s (file %s)", exc.strerror or exc, self._path
                )
            self._failing = True
        else:
            self._failing = False

    def _replace(self, text: str) -> None:
        try:
            self._beside.write_text(text, encoding="utf-8")
            self._beside.replace(self._path)
        finally:
            self._beside.unlink(missing_ok=True)


def parse_listen(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``, where the host is a loopback address.

    :raises UsageError: it is none. Whoever reaches the port reads the metrics.
    """
    advice = "write 127.0.0.1:9464; port 0 takes a free one"
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise UsageError(f"{text!r} is no address and port", advice=advice)
    host = "127.0.0.1" if match["host"] == "localhost" else match["host"].strip("[]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError as exc:
        raise UsageError(f"{host!r} is no IP address", advice=advice) from exc
    if not loopback:
        raise UsageError(f"{host} is no loopback address", advice=advice)
    return host, int(match["port"])


@asynccontextmanager
async def serve_metrics(metrics: Metrics, host: str, port: int) -> AsyncIterator[str]:
    """Serve metrics over HTTP while the context lasts; its value is their URL.

    :param port: 0 takes a free one.
    :raises UsageError: the port cannot be had.
    """
    # A push without an endpoint must not wait for a web server to be imported.
    from aiohttp import web  # noqa: PLC0415

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as exc:
            raise UsageError(
                f"metrics cannot be served: {exc.strerror or exc}",
                advice="choose another port for --metrics-listen, or 0",
            ) from exc
        bound = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound}/metrics"
    finally:
        # Closing must be let finish, also when cancelled, and hold nothing up.
        with anyio.move_on_after(2 * _CLOSE_SECONDS, shield=True):
            await runner.cleanup()
