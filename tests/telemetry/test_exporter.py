"""Where metrics go: a file that is never half written, an endpoint that loopback alone reaches."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from prometheus_client.parser import text_string_to_metric_families

from asyncpush.engine.events import Warned
from asyncpush.errors import UsageError
from asyncpush.telemetry import exporter
from asyncpush.telemetry.exporter import MetricsFile, parse_listen, serve_metrics
from asyncpush.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio


def warnings_in(text: str) -> float:
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return families["asyncpush_warnings"].samples[0].value


async def test_a_file_is_kept_up_and_replaced_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_WRITE_SECONDS", 0.01)
    metrics = Metrics()
    path = tmp_path / "push.prom"
    file = MetricsFile(path, metrics)
    with path.open() as first:
        await keep_up(file, path, metrics)
        # Whoever has opened a file that was replaced reads it to its end.
        assert "warnings" not in first.read()
    metrics.take(Warned("two"))
    file.write()

    assert warnings_in(path.read_text()) == 2
    assert list(tmp_path.iterdir()) == [path]


async def keep_up(file: MetricsFile, path: Path, metrics: Metrics) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(file.keep_up)
        metrics.take(Warned("one"))
        with anyio.fail_after(30):
            while "warnings" not in path.read_text():
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


def test_a_file_that_cannot_be_written_is_refused_before_a_push(tmp_path: Path) -> None:
    (tmp_path / "folder.prom").mkdir()
    for path in (tmp_path / "folder.prom", tmp_path / "missing" / "x.prom"):
        with pytest.raises(UsageError, match="--metrics"):
            MetricsFile(path, Metrics())


def test_a_file_that_cannot_be_written_any_more_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file = MetricsFile(folder / "x.prom", Metrics())
    (folder / "x.prom").unlink()
    folder.rmdir()
    with caplog.at_level(logging.WARNING, "asyncpush"):
        file.write()
        file.write()
        folder.mkdir()
        file.write()

    assert [record.getMessage() for record in caplog.records] == [
        f"the metrics cannot be written: No such file or directory (file {folder / 'x.prom'})"
    ]
    assert (folder / "x.prom").exists()


async def test_the_endpoint_serves_what_is_now() -> None:
    metrics = Metrics()
    async with serve_metrics(metrics, "127.0.0.1", 0) as url, aiohttp.ClientSession() as session:
        for count in (1, 2):
            metrics.take(Warned("x"))
            async with session.get(url) as answer:
                assert answer.status == 200
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                assert warnings_in(await answer.text()) == count
        async with session.get(url.replace("/metrics", "/")) as answer:
            assert answer.status == 404
    with pytest.raises(aiohttp.ClientConnectionError):
        async with aiohttp.ClientSession() as session, session.get(url):
            pass


async def test_the_endpoint_ends_soon_when_cancelled_in_spite_of_a_silent_client() -> None:
    with anyio.fail_after(30), anyio.CancelScope() as scope:
        async with serve_metrics(Metrics(), "127.0.0.1", 0) as url:
            port = int(url.split(":")[2].split("/")[0])
            async with await anyio.connect_tcp("127.0.0.1", port) as silent:
                await silent.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await silent.receive()).startswith(b"HTTP/1.1 200")
                await silent.send(b"GET /metrics HTTP/1.1\r\n")
                scope.cancel()
                await anyio.sleep_forever()
    assert scope.cancelled_caught
    with socket.create_server(("127.0.0.1", port)):
        pass  # The port is free again.


async def test_a_port_that_is_taken_is_one_clear_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UsageError, match="choose another port"),
    ):
        async with serve_metrics(Metrics(), "127.0.0.1", taken.getsockname()[1]):
            pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("127.8.9.1:0", ("127.8.9.1", 0)),
        ("localhost:80", ("127.0.0.1", 80)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.0.0.0:9464", "no loopback address"),
        ("10.1.2.3:9464", "no loopback address"),
        ("[::]:9464", "no loopback address"),
        ("example.com:9464", "no IP address"),
        ("127.0.0.1", "no address and port"),
        ("127.0.0.1:99999", "no address and port"),
        (":9464", "no address and port"),
        ("::1:9464", "no address and port"),
        ("127.0.0.1:x", "no address and port"),
    ],
)
def test_addresses_that_others_could_reach_or_nobody(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as found:
        parse_listen(text)
    assert "127.0.0.1:9464" in found.value.advice
