"""Tokens and logins: shared, side by side, bounded, and found anew when they are refused."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
from aiohttp import web
from yarl import URL

from asyncpush.errors import CredentialsError, TransientError
from asyncpush.registries.distribution.auth import Authorizer
from asyncpush.registries.distribution.dockerconfig import Login
from asyncpush.registries.distribution.logins import DockerLogins
from asyncpush.registries.proxies import Proxies

pytestmark = pytest.mark.anyio

HOST = "registry.test:5000"


class Tokens:
    """A token service over sockets."""

    def __init__(self) -> None:
        self.password = "first"
        self.status = 200
        self.delay = 0.0
        self.lifetime = 300.0
        self.url = ""
        self.scopes: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0

    async def handle(self, request: web.Request) -> web.Response:
        self.scopes.update(request.query.getall("scope"))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await anyio.sleep(self.delay)
        finally:
            self.at_once -= 1
        if request.headers.get("Authorization") != basic("user", self.password):
            return web.json_response({}, status=401)
        if self.status != 200:
            return web.json_response({}, status=self.status)
        token = " ".join(request.query.getall("scope"))
        return web.json_response({"token": token, "expires_in": self.lifetime})


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
async def service() -> AsyncIterator[Tokens]:
    tokens = Tokens()
    app = web.Application()
    app.router.add_get("/token", tokens.handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    tokens.url = "http://{}:{}/token".format(*runner.addresses[0][:2])
    yield tokens
    await runner.cleanup()


class Helper:
    """A credential helper that a docker configuration names; ``asked`` has its servers in order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = folder / "docker-credential-test"
        self.environ = {"DOCKER_CONFIG": str(folder), "PATH": f"{folder}:/usr/bin:/bin"}
        (folder / "config.json").write_text(json.dumps({"credsStore": "test"}))
        self.gives("first")

    def gives(self, password: str) -> None:
        answer = json.dumps({"Username": "user", "Secret": password})
        self._program.write_text(
            f"#!/bin/sh\nread server\necho $server >> {self._folder}/asked\necho '{answer}'\n"
        )
        self._program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        file = self._folder / "asked"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def helper(tmp_path: Path) -> Helper:
    return Helper(tmp_path)


@asynccontextmanager
async def authorizer(service: Tokens, helper: Helper) -> AsyncIterator[Authorizer]:
    async with aiohttp.ClientSession() as session:
        url = URL(f"http://{HOST}")
        found = Authorizer(session, HOST, url, DockerLogins(HOST, helper.environ), Proxies())
        assert await found.header("any") is None
        assert found.challenged(None, [f'Bearer realm="{service.url}",service="test"'])
        yield found


async def test_scopes_get_their_tokens_side_by_side_and_bounded_with_one_login(
    service: Tokens, helper: Helper
) -> None:
    service.delay = 0.1
    headers: dict[int, set[str | None]] = {i: set() for i in range(40)}
    async with authorizer(service, helper) as auth:

        async def ask(number: int) -> None:
            headers[number].add(await auth.header(f"app{number}"))

        begin = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                for number in headers:
                    tasks.start_soon(ask, number)
        seconds = time.monotonic() - begin
    assert set(service.scopes.values()) == {1}
    assert all(len(found) == 1 for found in headers.values())
    assert len({next(iter(found)) for found in headers.values()}) == 40
    assert 1 < service.most_at_once <= 8
    # Five rounds of 0.1 s, where one after the other takes four seconds.
    assert seconds < 2.5
    assert helper.asked == [HOST]


async def test_a_cancelled_request_for_a_token_is_made_by_the_next_who_waits(
    service: Tokens, helper: Helper
) -> None:
    service.delay = 0.2
    found: list[str | None] = []
    async with authorizer(service, helper) as auth:

        async def ask() -> None:
            found.append(await auth.header("app"))

        async with anyio.create_task_group() as tasks, anyio.create_task_group() as leader:
            leader.start_soon(ask)
            with anyio.fail_after(5):
                while not service.scopes:
                    await anyio.sleep(0.01)
            tasks.start_soon(ask)
            tasks.start_soon(ask)
            await anyio.sleep(0.01)
            leader.cancel_scope.cancel()
        assert len(found) == 2
        assert service.scopes.total() == 2


async def test_a_failing_token_service_is_asked_once_for_all_who_wait(
    service: Tokens, helper: Helper
) -> None:
    service.status, service.delay = 503, 0.1
    failures: list[TransientError] = []
    async with authorizer(service, helper) as auth:

        async def ask() -> None:
            try:
                await auth.header("app")
            except TransientError as exc:
                failures.append(exc)

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(ask)
        assert service.scopes.total() == 1
        assert len({id(exc) for exc in failures}) == 20
        service.status = 200
        assert await auth.header("app")


async def test_a_login_is_found_anew_when_the_token_service_refuses_it(
    service: Tokens, helper: Helper
) -> None:
    async with authorizer(service, helper) as auth:
        assert await auth.header("one")
        assert await auth.header("two")
        assert len(helper.asked) == 1
        # As helpers of cloud registries do once an hour.
        service.password = "second"
        helper.gives("second")
        assert await auth.header("three")
        assert len(helper.asked) == 2
        service.password = "third"
        with pytest.raises(CredentialsError, match="does not accept"):
            await auth.header("four")
        # It is not kept either: what is mended is found by the next call.
        helper.gives("third")
        assert await auth.header("four")


async def test_a_password_is_found_anew_when_the_registry_refuses_it(helper: Helper) -> None:
    async with aiohttp.ClientSession() as session:
        url = URL(f"http://{HOST}")
        auth = Authorizer(session, HOST, url, DockerLogins(HOST, helper.environ), Proxies())
        auth.challenged(None, ['Basic realm="here"'])
        assert {await auth.header(f"app{i}") for i in range(5)} == {basic("user", "first")}
        assert len(helper.asked) == 1
        helper.gives("second")
        for _ in range(5):
            # All calls that were on their way are refused; that is one reason to look again.
            auth.challenged(basic("user", "first"), ['Basic realm="here"'])
            assert await auth.header("app0") == basic("user", "second")
        assert len(helper.asked) == 2


async def test_namespaces_have_logins_of_their_own_and_signing_in_is_noticed(
    tmp_path: Path,
) -> None:
    def auth(name: str) -> dict[str, str]:
        return {"auth": base64.b64encode(f"{name}:secret".encode()).decode()}

    def write(**auths: dict[str, str]) -> None:
        document = {"auths": {f"{HOST}{path}": found for path, found in auths.items()}}
        file.write_text(json.dumps(document))

    file = tmp_path / "auth.json"
    write(**{"": auth("all"), "/team": auth("team"), "/team/app": auth("app")})
    logins = DockerLogins(HOST, {"REGISTRY_AUTH_FILE": str(file)})
    users = {"team/app": "app", "team/app/x": "app", "team/other": "team", "else": "all"}
    for repository, user in users.items():
        assert await logins.find(repository) == Login(user, "secret")
    write(**{"/team": auth("new")})
    assert await logins.find("team/other") == Login("team", "secret")
    logins.forget(await logins.find("team/other"))
    assert await logins.find("team/other") == Login("new", "secret")
    write()
    nothing = DockerLogins(HOST, {"REGISTRY_AUTH_FILE": str(file)})
    assert await nothing.find("else") is None
    write(**{"": auth("late")})
    assert await nothing.find("else") is None
    nothing.forget(None)
    assert await nothing.find("else") == Login("late", "secret")
