"""A registry, or what answers in its place, says yes to everything: that is no push."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from releases import write_release

from asyncpush import Pusher, PushItem, PushOptions, PushReport
from asyncpush.engine import pace
from asyncpush.errors import CredentialsError, UnexpectedAnswerError

pytestmark = pytest.mark.anyio

PAGE = b"<html>welcome to the hotel</html>"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_release(tmp_path, "new", {"app": ["v1"]})["app"]


@pytest.fixture(autouse=True)
def _credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whose password must not go astray."""
    (tmp_path / "docker").mkdir()
    config = '{"auths": {"127.0.0.1": {"username": "user", "password": "the-secret"}}}'
    (tmp_path / "docker" / "config.json").write_text(config)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    # What throttles for ever is given up at once, and not after two minutes.
    monkeypatch.setattr(pace, "_PATIENCE", 0.0)


@asynccontextmanager
async def answering(status: int, headers: dict[str, str], body: bytes) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, headers=headers, body=body)

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


async def push(layout: Path, host: str) -> PushReport:
    options = PushOptions(attempts=2, retry_base=0.001)
    async with Pusher(options) as pusher:
        return await pusher.push([PushItem(layout, f"docker://{host}/app")])


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_a_yes_to_everything_is_no_push(layout: Path, status: int) -> None:
    body = b"" if status == 204 else PAGE
    async with answering(status, {"Content-Type": "text/html"}, body) as host:
        report = await push(layout, host)
    (failed,) = report.failed
    assert failed.error is not None
    assert failed.error.where["call"]
    if status == 200:
        assert isinstance(failed.error, UnexpectedAnswerError)


@pytest.mark.parametrize(
    "realm", ["http://169.254.169.254/token", "http://auth.example.com/token", "http://["]
)
async def test_a_password_goes_to_no_stranger(layout: Path, realm: str) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}
    async with answering(401, challenge, b"") as host:
        report = await push(layout, host)
    (failed,) = report.failed
    assert isinstance(failed.error, CredentialsError)
    assert "token service" in failed.error.message
    assert "the-secret" not in str(failed.error)


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "Fri, 27 Nov 2026 10:00:00 +999999999"},
        {"Range": "0-" + "9" * 5000},
        {"OCI-Chunk-Min-Length": "²"},
        {"Location": "http://" + "x" * 64 + ".example.com/v2/"},
        {"Docker-Content-Digest": "sha256:none"},
    ],
    ids=lambda headers: next(iter(headers)),
)
@pytest.mark.parametrize("status", [202, 307, 429, 500])
async def test_an_odd_header_is_a_typed_failure(
    layout: Path, status: int, headers: dict[str, str]
) -> None:
    async with answering(status, headers, b'{"errors":' + b"[" * 100_000) as host:
        report = await push(layout, host)
    assert report.complete
    (failed,) = report.failed
    assert failed.error is not None
    assert failed.error.kind != "unforeseen"
