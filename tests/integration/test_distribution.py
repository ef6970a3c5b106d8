"""Any registry as a target: OCI distribution, against Debian's docker-registry."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from aiohttp import web
from proxy import proxy
from support import HTPASSWD, asyncpush, docker_registry_at, environment, error_lines

from asyncpush import Pusher, PushItem, PushOptions
from asyncpush.oci import mediatypes
from asyncpush.oci.digest import compute
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

MIB = 1024 * 1024


def env_with(folder: Path | None = None, **variables: str) -> dict[str, str]:
    """An environment whose docker configuration is in a folder, or nowhere."""
    env = environment(None, "")
    env.pop("REGISTRY_AUTH_FILE", None)
    return env | {"DOCKER_CONFIG": str(folder or "/nonexistent")} | variables


def tags_at(address: str, repository: str, layout: Path, **headers: str) -> None:
    """Every entry of a layout is there under its name, byte for byte."""
    for entry in Layout(layout).entries:
        request = urllib.request.Request(
            f"http://{address}/v2/{repository}/manifests/{entry.ref_name}",
            headers={"Accept": entry.media_type, **headers},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert compute(answer.read()) == entry.digest


def test_atomic_pushes_take_other_registries_too(docker_registry: str, sample: Path) -> None:
    target = f"docker://{docker_registry}/team/atomic"
    done = asyncpush("push", sample, target, "--atomic", "--rollback", env=env_with())
    assert done.returncode == 0, done.stderr
    tags_at(docker_registry, "team/atomic", sample)


def test_jobs_take_other_registries_too(docker_registry: str, sample: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        json.dumps(
            {
                "version": 1,
                "registries": [{"hosts": [f"docker://{docker_registry}"]}],
                "sources": [{"layouts": str(sample)}],
                "targets": [{"repository": "job/{directory}"}],
            }
        )
    )
    done = asyncpush("run", job, "--atomic", "--verify", env=env_with())
    assert done.returncode == 0, done.stderr
    tags_at(docker_registry, f"job/{sample.name}", sample)
    assert asyncpush("run", job, env=env_with()).returncode == 4
    planned = asyncpush("plan", job, "--json", env=env_with())
    assert json.loads(planned.stdout)["bytes"] == 0


def test_a_referrer_is_listed_by_the_tag_scheme_where_there_is_no_referrers_api(
    docker_registry: str, sample: Path
) -> None:
    target = f"docker://{docker_registry}/team/referrers"
    for _ in range(2):
        done = asyncpush("push", sample, target, env=env_with())
        assert done.returncode == 0, done.stderr
    found = 0
    for entry in Layout(sample).entries:
        manifest = json.loads(
            (sample / "blobs" / "sha256" / entry.digest.partition(":")[2]).read_bytes()
        )
        if subject := manifest.get("subject"):
            tag = subject["digest"].replace(":", "-")
            with urllib.request.urlopen(
                urllib.request.Request(
                    f"http://{docker_registry}/v2/team/referrers/manifests/{tag}",
                    headers={"Accept": mediatypes.OCI_INDEX},
                ),
                timeout=10,
            ) as answer:
                index = json.load(answer)
            assert [m["digest"] for m in index["manifests"]] == [entry.digest]
            found += 1
    assert found


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """docker-registry behind Basic authentication."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "htpasswd").write_text(HTPASSWD)
    config = f"auth: {{htpasswd: {{realm: here, path: '{folder / 'htpasswd'}'}}}}\n"
    with docker_registry_at(folder, config) as address:
        yield address


def docker_config(folder: Path, content: dict[str, object]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_credential_helpers_and_containers_auth_files(
    locked: str, sample: Path, tmp_path: Path
) -> None:
    helper = tmp_path / "bin" / "docker-credential-mine"
    helper.parent.mkdir()
    helper.write_text(
        '#!/bin/sh\nread server\n[ "$1 $server" = "get ' + locked + '" ] || exit 1\n'
        'echo \'{"ServerURL": "", "Username": "user", "Secret": "secret"}\'\n'
    )
    helper.chmod(0o755)
    path = f"{helper.parent}:{os.environ['PATH']}"
    for content in ({"credHelpers": {locked: "mine"}}, {"credsStore": "mine"}):
        config = docker_config(tmp_path / "docker", content)
        target = f"docker://{locked}/team/helper"
        done = asyncpush("push", sample, target, env=env_with(config, PATH=path))
        assert done.returncode == 0, done.stderr
    auth = base64.b64encode(b"user:secret").decode()
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {f"{locked}/team": {"auth": auth}}}))
    done = asyncpush(
        "push",
        sample,
        f"docker://{locked}/team/namespaced",
        env=env_with(REGISTRY_AUTH_FILE=str(file)),
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "there are none"),
        ({"auths": {"HOST": {"auth": base64.b64encode(b"user:wrong").decode()}}}, "docker login"),
        ({"auths": {"HOST": {"auth": "%%%"}}}, "damaged"),
        ({"credHelpers": {"HOST": "absent"}}, "not installed"),
    ],
)
def test_credentials_that_do_not_do_are_one_line_and_exit_code_3(
    locked: str, sample: Path, tmp_path: Path, content: dict[str, object], message: str
) -> None:
    text = json.dumps(content).replace("HOST", locked)
    config = docker_config(tmp_path / "docker", json.loads(text))
    done = asyncpush(
        "push", f"{sample}:service-01", f"docker://{locked}/team/no", env=env_with(config)
    )
    lines = error_lines(done)
    assert done.returncode == 3, done.stderr
    assert len(lines) == 1
    assert message in lines[0]
    assert "wrong" not in done.stderr.replace("what is wrong", "")


@asynccontextmanager
async def bearer_gate(
    upstream: str, lifetime: float, delay: float = 0
) -> AsyncIterator[tuple[str, list[str]]]:
    """A token service and a registry that wants its tokens, before a real registry.

    :param lifetime: seconds that a token is good for.
    :param delay: seconds that the token service takes.
    """
    issued: dict[str, float] = {}
    scopes: list[str] = []

    async def token(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Basic " + base64.b64encode(b"u:p").decode():
            return web.json_response({}, status=401)
        scopes.extend(request.query.getall("scope", []))
        await anyio.sleep(delay)
        name = f"token-{len(issued)}"
        issued[name] = time.monotonic() + lifetime
        return web.json_response({"token": name, "expires_in": lifetime})

    async def meet(request: web.Request) -> web.Response | None:
        if request.path == "/token":
            return await token(request)
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if issued.get(given, 0) >= time.monotonic():
            return None
        challenge = f'Bearer realm="http://{running.address}/token",service="gate, \\"x\\""'
        return web.json_response(
            {"errors": [{"code": "UNAUTHORIZED", "message": "token, please"}]},
            status=401,
            headers={"WWW-Authenticate": challenge},
        )

    async with proxy(upstream, meet) as running:
        yield running.address, scopes


@pytest.mark.anyio
@pytest.mark.parametrize("lifetime", [300, 1])
async def test_bearer_tokens_are_fetched_by_scope_and_renewed(
    docker_registry: str, sample: Path, tmp_path: Path, lifetime: int
) -> None:
    async with bearer_gate(docker_registry, lifetime) as (address, scopes):
        auth = {"auths": {address: {"username": "u", "password": "p"}}}
        config = docker_config(tmp_path / "docker", auth)
        done = await anyio.to_thread.run_sync(
            lambda: asyncpush(
                "push",
                sample,
                f"docker://{address}/bearer/app{lifetime}",
                "--images",
                "2",
                env=env_with(config),
            )
        )
        assert done.returncode == 0, done.stderr
    assert set(scopes) == {f"repository:bearer/app{lifetime}:pull,push"}
    if lifetime == 300:
        assert len(scopes) == 1
    tags_at(docker_registry, f"bearer/app{lifetime}", sample)


@pytest.mark.anyio
async def test_many_repositories_ask_one_helper_once_and_get_their_tokens_side_by_side(
    docker_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LayoutWriter(tmp_path / "layout")
    writer.entry(writer.image([writer.blob(b"a layer", mediatypes.OCI_LAYER)]), "v1")
    layout = writer.close()
    asked = tmp_path / "asked"
    helper = tmp_path / "bin" / "docker-credential-slow"
    helper.parent.mkdir()
    helper.write_text(
        f'#!/bin/sh\nread server\necho "$server" >> {asked}\nsleep 0.1\n'
        'echo \'{"ServerURL": "", "Username": "u", "Secret": "p"}\'\n'
    )
    helper.chmod(0o755)
    config = docker_config(tmp_path / "docker", {"credsStore": "slow"})
    monkeypatch.setenv("DOCKER_CONFIG", str(config))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    async with bearer_gate(docker_registry, 300, delay=0.2) as (address, scopes):
        items = [PushItem(layout, f"docker://{address}/side/by-side{i}") for i in range(50)]
        begin = time.monotonic()
        async with Pusher(PushOptions(images=50)) as pusher:
            report = await pusher.push(items)
        seconds = time.monotonic() - begin
    assert report.ok, [str(image.error) for image in report.failed]
    # One after the other the tokens alone would take 10 s, and the helpers 5 s.
    assert seconds < 8
    assert asked.read_text().split() == [address]
    # One for each repository, and one to mount into it from the first one.
    pushing = Counter(scope for scope in scopes if scope.endswith(":pull,push"))
    assert len(pushing) == 50
    assert max(pushing.values()) <= 2


def test_nobody_at_the_address_is_one_clear_error(sample: Path) -> None:
    done = asyncpush(
        "push",
        f"{sample}:service-01",
        "docker://127.0.0.1:1/team/app",
        "--attempts",
        "2",
        env=env_with(),
    )
    (line,) = error_lines(done)
    assert "the connection failed" in line
    assert done.returncode == 1
