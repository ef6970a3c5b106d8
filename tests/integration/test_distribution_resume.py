"""Uploads over OCI distribution that break or are killed go on behind what the registry has."""

from __future__ import annotations

import base64
import json
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from forked import Forked
from support import (
    ACCOUNT,
    KEY_ID,
    PUSH_ACTIONS,
    REGION,
    SECRET,
    asyncpush,
    docker_registry_at,
    environment,
    serve,
)

from asyncpush.localregistry import (
    CallInfo,
    DistributionOptions,
    Fault,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
)
from asyncpush.localregistry.identity import Registry
from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
BLOB = 300 * MIB
REPOSITORY = "large/app"
ANYBODY = DistributionOptions(anonymous_push=True)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image whose one layer has 300 MiB."""
    writer = LayoutWriter(tmp_path_factory.mktemp("large") / "layout")
    layer = writer.blob(bytes(BLOB), mediatypes.OCI_LAYER)
    writer.entry(writer.image([layer]), "v1")
    return writer.close()


@asynccontextmanager
async def serving(
    root: Path,
    faults: Callable[[CallInfo], Fault | None] | None = None,
    distribution: DistributionOptions = ANYBODY,
) -> AsyncIterator[RunningRegistry]:
    """A local registry that is as ECR but for taking pushes from anybody."""
    home = Registry(ACCOUNT, REGION)
    options = LocalRegistryOptions(distribution=distribution, default_registry=home, faults=faults)
    async with LocalRegistry(root, [Key(KEY_ID, SECRET, ACCOUNT)], options).run() as server:
        await server.ensure_repository(*home, REPOSITORY)
        yield server


def start_push(layout: Path, address: str, state: Path, *options: str) -> Forked:
    env = environment(None, "") | {"XDG_STATE_HOME": str(state), "DOCKER_CONFIG": "/nonexistent"}
    target = f"docker://{address}/{REPOSITORY}"
    return Forked("push", layout, target, "-v", *options, env=env)


async def finish(process: Forked) -> str:
    out, err = await anyio.to_thread.run_sync(process.communicate)
    assert process.returncode == 0, err
    return out + err


def bytes_under(folder: Path) -> int:
    found = 0
    for path in folder.rglob("*"):
        # What the server moves away meanwhile does not count.
        with suppress(FileNotFoundError):
            found += path.stat().st_size if path.is_file() else 0
    return found


async def assert_whole_and_nothing_came_twice(server: RunningRegistry, layout: Path) -> None:
    tags = await server.tags(ACCOUNT, REGION, REPOSITORY)
    assert tags == {e.ref_name: e.digest for e in Layout(layout).entries}
    received: defaultdict[str | None, int] = defaultdict(int)
    for call in (*server.calls.of("v2.PatchUpload"), *server.calls.of("v2.PutUpload")):
        # What arrived is acknowledged, also of a chunk that broke off.
        assert call.layer_bytes == call.acknowledged_bytes
        received[call.upload_id] += call.layer_bytes
    # One session for the layer, one for the image's configuration.
    assert len(received) == 2
    assert max(received.values()) == BLOB


async def test_killed_in_the_middle_of_a_chunk_it_goes_on_behind_the_last_byte(
    tmp_path: Path, layout: Path
) -> None:
    async with serving(tmp_path / "store") as server:
        address = server.url.removeprefix("http://")
        process = start_push(layout, address, tmp_path / "state")
        with anyio.fail_after(60):
            while bytes_under(tmp_path / "store" / "uploads") < 100 * MIB:
                await anyio.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        await anyio.to_thread.run_sync(process.communicate)
        assert process.returncode == -signal.SIGKILL

        text = await finish(start_push(layout, address, tmp_path / "state"))
        assert "resumed sha256:" in text
        await assert_whole_and_nothing_came_twice(server, layout)
        (asked,) = server.calls.of("v2.GetUpload")
        assert asked.status == 204
        (broken,) = (c for c in server.calls.of("v2.PatchUpload") if c.error)
        assert (broken.error, broken.upload_id) == ("ConnectionDropped", asked.upload_id)


async def test_chunk_that_breaks_off_goes_on_behind_the_last_byte(
    tmp_path: Path, layout: Path
) -> None:
    def cut_twice(call: CallInfo) -> Fault | None:
        first = (call.action, call.number) in (("v2.PatchUpload", 2), ("v2.PatchUpload", 4))
        return Fault(drop="during") if first else None

    absolute = replace(ANYBODY, absolute_locations=True)
    async with serving(tmp_path / "store", cut_twice, absolute) as server:
        await finish(start_push(layout, server.url.removeprefix("http://"), tmp_path / "state"))
        await assert_whole_and_nothing_came_twice(server, layout)
        errors = server.calls.counters.errors
        assert errors["v2.PatchUpload", "ConnectionDropped"] == 2
        assert errors["v2.PatchUpload", "BLOB_UPLOAD_INVALID"] == 2


async def test_chunks_may_break_off_as_often_as_they_like_while_bytes_arrive(
    tmp_path: Path, layout: Path
) -> None:
    def cut_often(call: CallInfo) -> Fault | None:
        # Every second one is the question what has arrived of the one before.
        cut = call.action == "v2.PatchUpload" and call.number % 2 and call.number < 40
        return Fault(drop="during") if cut else None

    async with serving(tmp_path / "store", cut_often) as server:
        address = server.url.removeprefix("http://")
        await finish(start_push(layout, address, tmp_path / "state", "--part-size", "20"))
        await assert_whole_and_nothing_came_twice(server, layout)
        assert server.calls.counters.errors["v2.PatchUpload", "ConnectionDropped"] > 8


def test_killed_push_to_docker_registry_is_completed(tmp_path: Path, layout: Path) -> None:
    with docker_registry_at(tmp_path) as address:
        process = start_push(layout, address, tmp_path / "state")
        deadline = time.monotonic() + 60
        while bytes_under(tmp_path / "data") < 100 * MIB:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        again = start_push(layout, address, tmp_path / "state")
        _, err = again.communicate()
        assert again.returncode == 0, err
        done = asyncpush(
            "verify",
            layout,
            f"docker://{address}/{REPOSITORY}",
            "--deep",
            env=environment(None, ""),
        )
        assert done.returncode == 0, done.stderr


def test_six_actions_are_enough_over_this_transport_too(tmp_path: Path, sample: Path) -> None:
    actions = [f"ecr:{action}" for action in sorted(PUSH_ACTIONS)]
    allow: dict[str, Any] = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    pusher = {
        "access_key_id": "AKIDSIXACTIONS000000",
        "secret_access_key": "six",
        "account": ACCOUNT,
        "policy": {"Statement": [allow]},
    }
    with serve(tmp_path, [pusher], "--region", REGION) as served:
        served.create("team/app")
        client = served.client("AKIDSIXACTIONS000000", "six")
        (data,) = client.get_authorization_token()["authorizationData"]
        user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        address = served.url.removeprefix("http://")
        config = {"auths": {address: {"username": user, "password": password}}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        env = environment(None, "") | {"DOCKER_CONFIG": str(tmp_path)}
        for _ in range(2):
            done = asyncpush("push", sample, f"docker://{address}/team/app", env=env)
            assert done.returncode == 0, done.stderr
        assert served.digests("team/app") == {e.ref_name: e.digest for e in Layout(sample).entries}
        uploads = [c for c in served.calls() if c["action"] == "v2.PutUpload"]
        assert len(uploads) == 34
