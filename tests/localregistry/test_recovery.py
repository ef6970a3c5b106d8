"""Killed at any moment, the registry loses nothing that it acknowledged and shows nothing more."""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import ClientError
from botocore.exceptions import EndpointConnectionError, HTTPClientError
from oci_driver import finish, log_in, patch, start
from registry_driver import (
    NAME,
    SMALL_PARTS,
    answers,
    complete,
    connect,
    descriptor,
    manifest_text,
    push_image,
    put_image,
    put_part,
    sha256,
    upload,
)

from asyncpush.localregistry import CallInfo, CallLog, Fault, LocalRegistry, RunningRegistry
from asyncpush.localregistry.content.uploads import Uploads

pytestmark = pytest.mark.anyio

DATA = bytes(range(48))
PROGRAM = """
import asyncio, sys, uvloop
from pathlib import Path
from asyncpush.localregistry import LocalRegistry, LocalRegistryOptions
options = LocalRegistryOptions(min_part_size=8, part_size=16, max_part_size=1 << 20)
async def main():
    async with LocalRegistry(Path(sys.argv[1]), options=options).run() as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()
uvloop.run(main())
"""


@contextlib.asynccontextmanager
async def killed(root: Path) -> AsyncIterator[tuple[Any, subprocess.Popen[str]]]:
    """A client of a registry in a process of its own, which is killed in the end."""
    command = [sys.executable, "-c", PROGRAM, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(await anyio.to_thread.run_sync(process.stdout.readline))
            server = RunningRegistry("127.0.0.1", port, CallLog(1), None)  # type: ignore[arg-type]
            async with connect(server) as ecr:
                yield ecr, process
        finally:
            process.send_signal(signal.SIGKILL)


async def begin(ecr: Any) -> str:
    return str((await ecr.initiate_layer_upload(repositoryName=NAME))["uploadId"])


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    async with killed(tmp_path) as (ecr, _):
        await ecr.create_repository(repositoryName=NAME)
        image = await push_image(ecr, "1", "v1")
        session, empty = await begin(ecr), await begin(ecr)
        await put_part(ecr, session, 0, DATA[:16])
        await put_part(ecr, session, 16, DATA[16:32])
    async with killed(tmp_path) as (ecr, _):
        found = await ecr.list_images(repositoryName=NAME)
        assert found["imageIds"] == [{"imageDigest": image, "imageTag": "v1"}]
        with answers("InvalidLayerPartException") as error:
            await put_part(ecr, session, 16, DATA[16:32])
        assert error["lastValidByteReceived"] == 31
        await put_part(ecr, session, 32, DATA[32:])
        await complete(ecr, session, sha256(DATA))
        await put_part(ecr, empty, 0, DATA[:20])
        await complete(ecr, empty, sha256(DATA[:20]))
        layers = [descriptor(sha256(DATA)), descriptor(sha256(b"layer of 1"))]
        await put_image(ecr, manifest_text(sha256(b"config of 1"), layers), "v2")


async def test_kill_in_the_middle_of_everything_keeps_the_books_right(tmp_path: Path) -> None:
    rng = random.Random(7)
    size = 200_000
    layers = [rng.randbytes(size) for _ in range(40)]
    sessions: list[str] = []
    async with killed(tmp_path) as (ecr, _):
        await ecr.create_repository(repositoryName=NAME)
        sessions = [await begin(ecr) for _ in layers]
    acknowledged = [0] * len(layers)
    finished: set[int] = set()
    for _ in range(3):
        async with killed(tmp_path) as (ecr, process):

            async def push(number: int, client: Any) -> None:
                if number in finished:
                    return
                data = layers[number]
                try:
                    while acknowledged[number] < size:
                        first = acknowledged[number]
                        part = data[first : first + 50_000]
                        try:
                            answer = await put_part(client, sessions[number], first, part)
                            acknowledged[number] = answer["lastByteReceived"] + 1
                        except client.exceptions.InvalidLayerPartException as exc:
                            # More may be there than was told, and never less.
                            last = exc.response["lastValidByteReceived"] + 1
                            assert acknowledged[number] < last <= size
                            acknowledged[number] = last
                    try:
                        await complete(client, sessions[number], sha256(data))
                    except client.exceptions.UploadNotFoundException:
                        assert await available(client, sha256(data))
                    finished.add(number)
                except (HTTPClientError, EndpointConnectionError):
                    return

            async with anyio.create_task_group() as tasks:
                for number in range(len(layers)):
                    tasks.start_soon(push, number, ecr)
                await anyio.sleep(0.15)
                process.kill()
    async with LocalRegistry(tmp_path, options=SMALL_PARTS).run() as server, connect(server) as ecr:
        for number in finished:
            assert await available(ecr, sha256(layers[number]))
    known = {hashlib.sha256(data).hexdigest(): data for data in layers}
    for path in (tmp_path / "blobs" / "sha256").iterdir():
        assert path.read_bytes() == known[path.name]
    assert list((tmp_path / "tmp").iterdir()) == []


async def test_chunk_in_which_the_server_is_killed_is_sent_again(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(1 << 20)
    first, second = 1 << 18, 1 << 19
    async with killed(tmp_path) as (ecr, process):
        await ecr.create_repository(repositoryName=NAME)
        async with await log_in(ecr, ecr.meta.endpoint_url) as oci:
            where = await start(oci, NAME)
            await patch(oci, where, data[:first], Content_Range=f"0-{first - 1}")

            async def half() -> AsyncIterator[bytes]:
                yield data[first:second]
                path = tmp_path / "uploads" / where.rpartition("/")[2]
                while path.stat().st_size < second:
                    await anyio.sleep(0.01)
                process.kill()
                await anyio.sleep_forever()

            with anyio.fail_after(20), pytest.raises(ClientError):
                await patch(oci, where, half())
    async with (
        LocalRegistry(tmp_path, options=SMALL_PARTS).run() as server,
        connect(server) as ecr,
        await log_in(ecr, server.url) as oci,
    ):
        async with oci.get(where) as response:
            assert response.headers["Range"] == f"0-{first - 1}"
        last = {"Content_Range": f"{first}-{len(data) - 1}"}
        assert await finish(oci, where, sha256(data), data[first:], **last) == 201
        assert await available(ecr, sha256(data))


async def available(ecr: Any, digest: str) -> bool:
    answer = await ecr.batch_check_layer_availability(repositoryName=NAME, layerDigests=[digest])
    return bool(answer["layers"][0]["layerAvailability"] == "AVAILABLE")


async def test_start_removes_what_a_killed_server_left(tmp_path: Path) -> None:
    async with LocalRegistry(tmp_path, options=SMALL_PARTS).run() as server, connect(server) as ecr:
        await ecr.create_repository(repositoryName=NAME)
        session = await begin(ecr)
        await put_part(ecr, session, 0, DATA[:16])
        await upload(ecr, b"a layer")
    stray = tmp_path / "blobs" / "sha256" / sha256(DATA[:16])[7:]
    # As if it had been killed between the blob's second name and the commit.
    stray.hardlink_to(tmp_path / "uploads" / session)
    (tmp_path / "uploads" / "forgotten").write_bytes(b"x")
    (tmp_path / "tmp" / "spool").write_bytes(b"x")
    async with LocalRegistry(tmp_path, options=SMALL_PARTS).run() as server, connect(server) as ecr:
        assert not stray.exists()
        assert [path.name for path in (tmp_path / "uploads").iterdir()] == [session]
        assert list((tmp_path / "tmp").iterdir()) == []
        assert not await available(ecr, sha256(DATA[:16]))
        await put_part(ecr, session, 16, DATA[16:])
        await complete(ecr, session, sha256(DATA))
        assert await available(ecr, sha256(b"a layer"))


async def test_session_whose_bytes_a_crash_took_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with LocalRegistry(tmp_path, options=SMALL_PARTS).run() as server, connect(server) as ecr:
        await ecr.create_repository(repositoryName=NAME)
        session = await begin(ecr)
        await put_part(ecr, session, 0, DATA[:16])
    (tmp_path / "uploads" / session).write_bytes(b"short")
    async with LocalRegistry(tmp_path, options=SMALL_PARTS).run() as server, connect(server) as ecr:
        with answers("UploadNotFoundException"):
            await put_part(ecr, session, 16, DATA[16:])
    assert "lost acknowledged bytes" in caplog.text


async def test_failure_of_the_server_is_answered_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    async with LocalRegistry(tmp_path, options=SMALL_PARTS).run() as server, connect(server) as ecr:
        await ecr.create_repository(repositoryName=NAME)
        session = await begin(ecr)
        with monkeypatch.context() as patch:
            patch.setattr("os.pwrite", fail)
            with answers("ServerException"):
                await put_part(ecr, session, 0, DATA)
        await put_part(ecr, session, 0, DATA)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "hardlink_to", fail)
            with answers("ServerException"):
                await complete(ecr, session, sha256(DATA))
        with monkeypatch.context() as patch:
            patch.setattr(Uploads, "finish", fail)
            with answers("ServerException"):
                await complete(ecr, session, sha256(DATA))
        await complete(ecr, session, sha256(DATA))
        assert server.calls.of("UploadLayerPart")[0].error == "OSError"
    assert "no space left" in caplog.text


async def test_stop_waits_for_calls_in_flight(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        all_there = anyio.Event()

        def slow(info: CallInfo) -> Fault:
            if (info.action, info.number) == ("CompleteLayerUpload", 20):
                all_there.set()
            return Fault(delay=0.1)

        running = LocalRegistry(tmp_path, options=replace(SMALL_PARTS, faults=slow)).run()
        server = await running.__aenter__()
        ecr = await stack.enter_async_context(connect(server))
        await ecr.create_repository(repositoryName=NAME)
        async with anyio.create_task_group() as tasks:
            for i in range(20):
                tasks.start_soon(upload, ecr, DATA + bytes([i]))
            await all_there.wait()
            await running.__aexit__(None, None, None)
    async with LocalRegistry(tmp_path, options=SMALL_PARTS).run() as server, connect(server) as ecr:
        for i in range(20):
            assert await available(ecr, sha256(DATA + bytes([i])))
