"""Proxies are found in the environment; passwords of other programs are not looked for there."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from asyncpush.oci.digest import compute
from asyncpush.registries.distribution.transport import open_transport
from asyncpush.registries.proxies import Proxies

SECRET = "of-another-program"


class Heard:
    """A registry that has nothing, and keeps the Authorization headers that it gets."""

    def __init__(self) -> None:
        self.headers: list[str | None] = []
        self.host = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers.get("Authorization"))
        return web.Response(status=200 if request.path == "/v2/" else 404)


@pytest.fixture
async def registry() -> AsyncIterator[Heard]:
    heard = Heard()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", heard.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    heard.host = "{}:{}".format(*runner.addresses[0][:2])
    yield heard
    await runner.cleanup()


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "netrc"
    path.write_text(f"machine 127.0.0.1\nlogin somebody\npassword {SECRET}\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.anyio
@pytest.mark.usefixtures("netrc")
async def test_no_registry_gets_the_passwords_of_netrc(registry: Heard) -> None:
    async with open_transport(
        registry.host, connections=2, user_agent="test", plain_http=True
    ) as transport:
        await transport.authorize()
        assert await transport.available("app", [compute(b"blob")]) == set()
    assert registry.headers == [None, None]


@pytest.mark.anyio
@pytest.mark.usefixtures("netrc")
async def test_a_request_needs_no_thread(registry: Heard) -> None:
    before = threading.active_count()
    async with open_transport(
        registry.host, connections=2, user_agent="test", plain_http=True
    ) as transport:
        await transport.available("app", [compute(bytes([i])) for i in range(8)])
    assert threading.active_count() == before


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "all_proxy", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", "inner.test")
    return monkeypatch


@pytest.mark.usefixtures("proxied")
def test_a_proxy_is_for_its_scheme_and_not_for_hosts_that_are_excepted() -> None:
    proxies = Proxies()
    found = proxies.of(URL("http://registry.test/v2/"))
    assert found == {"proxy": URL("http://me:secret@proxy.test:3128")}
    assert proxies.of(URL("https://registry.test/v2/")) == {}
    assert proxies.of(URL("http://inner.test/v2/")) == {}


def test_a_proxy_without_an_address_fails_without_its_password(
    proxied: pytest.MonkeyPatch,
) -> None:
    proxied.setenv("HTTP_PROXY", f"http://u:{SECRET}@proxy.test:99999")
    with pytest.raises(aiohttp.InvalidURL) as caught:
        Proxies().of(URL("http://registry.test/v2/"))
    assert SECRET not in str(caught.value)
