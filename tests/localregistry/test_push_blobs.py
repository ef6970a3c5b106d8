"""Uploads over the OCI distribution API, whole, in chunks and as streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anyio
import pytest
from oci_driver import Oci, error_of, finish, log_in, patch, push_blob, serving, start
from registry_driver import NAME, SMALL_PARTS, put_part, sha256, upload

from asyncpush.localregistry import (
    PLAIN_REGISTRY,
    CallInfo,
    DistributionOptions,
    Fault,
    RunningRegistry,
)

pytestmark = pytest.mark.anyio

DATA = bytes(range(64))
BY_THE_BOOK = DistributionOptions(patch_status=202, stale_range=False)


@pytest.fixture
async def oci(registry: RunningRegistry, ecr: Any) -> AsyncIterator[Oci]:
    """A session with a token."""
    async with await log_in(ecr, registry.url) as session:
        yield session


async def available(ecr: Any, digest: str, name: str = NAME) -> bool:
    answer = await ecr.batch_check_layer_availability(repositoryName=name, layerDigests=[digest])
    return bool(answer["layers"][0]["layerAvailability"] == "AVAILABLE")


async def content(oci: Oci, digest: str, name: str = NAME) -> bytes:
    async with oci.get(f"/v2/{name}/blobs/{digest}") as response:
        assert response.status == 200
        return await response.read()


async def test_blob_in_one_put_is_there_for_both_apis(
    registry: RunningRegistry, ecr: Any, oci: Oci
) -> None:
    where = await start(oci, NAME)
    async with oci.put(f"{where}?digest={sha256(DATA)}", data=DATA) as response:
        assert response.status == 201
        assert response.headers["Location"] == f"/v2/{NAME}/blobs/{sha256(DATA)}"
        assert response.headers["Docker-Content-Digest"] == sha256(DATA)
    assert await content(oci, sha256(DATA)) == DATA
    assert await available(ecr, sha256(DATA))
    assert [call.action for call in registry.calls][-5:-2] == [
        "GetAuthorizationToken",
        "v2.StartUpload",
        "v2.PutUpload",
    ]
    (put,) = registry.calls.of("v2.PutUpload")
    assert (put.layer_bytes, put.acknowledged_bytes) == (64, 64)
    assert put.upload_id == registry.calls.of("v2.StartUpload")[0].upload_id
    assert put.upload_id is not None


async def test_blob_in_one_post(registry: RunningRegistry, ecr: Any, oci: Oci) -> None:
    address = f"/v2/{NAME}/blobs/uploads/?digest="
    async with oci.post(address + sha256(DATA), data=DATA) as response:
        assert response.status == 201
        assert response.headers["Docker-Content-Digest"] == sha256(DATA)
    assert await available(ecr, sha256(DATA))
    async with oci.post(address + sha256(b"other"), data=DATA) as response:
        assert await error_of(response) == (400, "DIGEST_INVALID")
    async with oci.post(address + "sha512:00", data=DATA) as response:
        assert await error_of(response) == (400, "DIGEST_INVALID")
    assert [call.layer_bytes for call in registry.calls.of("v2.PutBlob")] == [64, 64, 0]


@pytest.mark.parametrize("last_with_put", [True, False])
async def test_blob_in_chunks(tmp_path: Path, last_with_put: bool) -> None:
    async with serving(tmp_path, BY_THE_BOOK) as (server, ecr, oci):
        await ecr.create_repository(repositoryName=NAME)
        async with oci.post(f"/v2/{NAME}/blobs/uploads/") as response:
            assert response.headers["OCI-Chunk-Min-Length"] == "8"
            where = response.headers["Location"]
        assert await patch(oci, where, DATA[:30], Content_Range="0-29") == (202, "0-29")
        assert await patch(oci, where, DATA[30:60], Content_Range="30-59") == (202, "0-59")
        async with oci.get(where) as response:
            assert (response.status, response.headers["Range"]) == (204, "0-59")
            assert response.headers["Location"] == where
        if last_with_put:
            sent = await finish(oci, where, sha256(DATA), DATA[60:], Content_Range="60-63")
        else:
            assert await patch(oci, where, DATA[60:], Content_Range="60-63") == (202, "0-63")
            sent = await finish(oci, where, sha256(DATA))
        assert sent == 201
        assert await content(oci, sha256(DATA)) == DATA
        assert server.calls.counters.layer_bytes_acknowledged == 64
        async with oci.get(where) as response:
            assert await error_of(response) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_stream_of_unknown_length(registry: RunningRegistry, oci: Oci) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for first in range(0, 64, 16):
            yield DATA[first : first + 16]

    where = await start(oci, NAME)
    assert (await patch(oci, where, pieces()))[0] == 201
    assert await finish(oci, where, sha256(DATA)) == 201
    assert await content(oci, sha256(DATA)) == DATA


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (DATA[20:], "20-63"),  # a gap
        (DATA[:30], "0-29"),  # once more
        (DATA[30:], "63-30"),
        (DATA[30:], "bytes 30-63/64"),
        (DATA[30:], ""),
    ],
)
async def test_chunk_out_of_order_is_refused_with_what_is_there(
    registry: RunningRegistry, oci: Oci, data: bytes, header: str
) -> None:
    where = await start(oci, NAME)
    await patch(oci, where, DATA[:30], Content_Range="0-29")
    async with oci.patch(where, data=data, headers={"Content-Range": header}) as response:
        assert await error_of(response) == (416, "BLOB_UPLOAD_INVALID")
        assert response.headers["Range"] == "0-29"
        assert response.headers["Location"] == where
    async with oci.put(
        f"{where}?digest={sha256(DATA)}", data=data, headers={"Content-Range": header}
    ) as response:
        assert response.status == 416
    assert await finish(oci, where, sha256(DATA), DATA[30:], Content_Range="30-63") == 201
    assert registry.calls.counters.layer_bytes_acknowledged == 64


async def test_chunk_of_another_length_than_it_says_counts_nothing(
    registry: RunningRegistry, oci: Oci
) -> None:
    async def stream(data: bytes) -> AsyncIterator[bytes]:
        yield data

    where = await start(oci, NAME)
    for body in (DATA[:20], stream(DATA[:20])):
        async with oci.patch(where, data=body, headers={"Content-Range": "0-29"}) as response:
            assert await error_of(response) == (400, "SIZE_INVALID")
    body = stream(DATA[:40])
    async with oci.patch(where, data=body, headers={"Content-Range": "0-29"}) as response:
        assert await error_of(response) == (413, "SIZE_INVALID")
    async with oci.get(where) as response:
        assert response.headers["Range"] == "0-0"
    assert await finish(oci, where, sha256(DATA), DATA) == 201


async def test_chunk_that_is_too_small_is_refused_unless_it_is_the_last(
    registry: RunningRegistry, oci: Oci
) -> None:
    where = await start(oci, NAME)
    await patch(oci, where, DATA[:7], Content_Range="0-6")
    async with oci.put(
        f"{where}?digest={sha256(DATA)}", data=DATA[7:], headers={"Content-Range": "7-63"}
    ) as response:
        assert await error_of(response) == (400, "SIZE_INVALID")
    where = await start(oci, NAME)
    await patch(oci, where, DATA[:7])
    assert await finish(oci, where, sha256(DATA[:7])) == 201


async def test_wrong_digest_leaves_the_session_as_it_was(
    registry: RunningRegistry, ecr: Any, oci: Oci
) -> None:
    where = await start(oci, NAME)
    await patch(oci, where, DATA[:30])
    async with oci.put(f"{where}?digest={sha256(b'no')}", data=DATA[30:]) as response:
        assert await error_of(response) == (400, "DIGEST_INVALID")
    async with oci.put(f"{where}?digest={sha256(b'no')}") as response:
        assert await error_of(response) == (400, "DIGEST_INVALID")
    for query in ("", "?digest=", "?digest=md5:00"):
        async with oci.put(where + query) as response:
            assert await error_of(response) == (400, "DIGEST_INVALID")
    assert not await available(ecr, sha256(DATA))
    assert await finish(oci, where, sha256(DATA), DATA[30:]) == 201


async def test_blob_that_is_there_is_taken_again_and_counted(
    registry: RunningRegistry, ecr: Any, oci: Oci
) -> None:
    await upload(ecr, DATA, 64)
    await push_blob(oci, NAME, DATA)
    assert registry.calls.counters.layer_bytes_duplicate == 64


async def test_one_session_serves_both_apis(ecr: Any, oci: Oci) -> None:
    session = (await ecr.initiate_layer_upload(repositoryName=NAME))["uploadId"]
    where = f"/v2/{NAME}/blobs/uploads/{session}"
    await put_part(ecr, session, 0, DATA[:16])
    assert (await patch(oci, where, DATA[16:32], Content_Range="16-31"))[0] == 201
    await put_part(ecr, session, 32, DATA[32:])
    assert await finish(oci, where, sha256(DATA)) == 201
    assert await content(oci, sha256(DATA)) == DATA


async def test_session_can_be_given_up(registry: RunningRegistry, oci: Oci, tmp_path: Path) -> None:
    where = await start(oci, NAME)
    await patch(oci, where, DATA)
    async with oci.delete(where) as response:
        assert response.status == 204
    for method in ("GET", "DELETE", "PATCH", "PUT"):
        query = f"?digest={sha256(DATA)}" if method == "PUT" else ""
        async with oci.request(method, where + query) as response:
            assert await error_of(response) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert list((tmp_path / "root" / "uploads").iterdir()) == []
    async with oci.get(f"/v2/{NAME}/blobs/uploads/no-such-id") as response:
        assert await error_of(response) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_ecr_refuses_an_empty_blob_and_a_plain_registry_takes_it(tmp_path: Path) -> None:
    async with serving(tmp_path / "1") as (_, ecr, oci):
        await ecr.create_repository(repositoryName=NAME)
        where = await start(oci, NAME)
        assert await finish(oci, where, sha256(b"")) == 500
    async with serving(tmp_path / "2", PLAIN_REGISTRY) as (_, ecr, oci):
        assert await finish(oci, await start(oci, NAME), sha256(b"")) == 201
        assert await content(oci, sha256(b"")) == b""
        async with oci.head(f"/v2/{NAME}/blobs/{sha256(b'')}") as response:
            assert (response.status, response.headers["Content-Length"]) == (200, "0")


async def test_range_of_a_chunks_answer_stays_at_the_first_chunk_as_in_ecr(
    registry: RunningRegistry, oci: Oci
) -> None:
    where = await start(oci, NAME)
    for first in (0, 20, 40):
        told = await patch(
            oci, where, DATA[first : first + 20], Content_Range=f"{first}-{first + 19}"
        )
        assert told == (201, "0-19")
    async with oci.get(where) as response:
        assert response.headers["Range"] == "0-59"


async def test_locations_may_be_absolute(tmp_path: Path) -> None:
    async with serving(tmp_path, DistributionOptions(absolute_locations=True)) as (server, ecr, _):
        await ecr.create_repository(repositoryName=NAME)
        async with await log_in(ecr, server.url) as client, aiohttp.ClientSession() as oci:
            oci.headers.update(client.headers)
            headers = {"Host": "registry.example:1234"}
            address = f"{server.url}/v2/{NAME}/blobs/uploads/"
            async with oci.post(address, headers=headers) as response:
                assert urlsplit(response.headers["Location"]).netloc == "registry.example:1234"
            async with oci.post(address) as response:
                where = response.headers["Location"]
            assert where.startswith(f"{server.url}/v2/{NAME}/blobs/uploads/")
            async with oci.put(f"{where}?digest={sha256(DATA)}", data=DATA) as response:
                assert (
                    response.headers["Location"] == f"{server.url}/v2/{NAME}/blobs/{sha256(DATA)}"
                )


@pytest.mark.parametrize("kind", ["answer", "cut"])
async def test_missing_repository(tmp_path: Path, kind: Any) -> None:
    options = DistributionOptions(missing_repository=kind)
    async with serving(tmp_path, options) as (server, _, oci):
        if kind == "answer":
            async with oci.post(f"/v2/{NAME}/blobs/uploads/") as response:
                assert await error_of(response) == (404, "NAME_UNKNOWN")
            async with oci.post(f"/v2/{NAME}/blobs/uploads/?digest={sha256(DATA)}") as response:
                assert await error_of(response) == (404, "NAME_UNKNOWN")
        else:
            with pytest.raises(aiohttp.ClientConnectionError):
                await oci.post(f"/v2/{NAME}/blobs/uploads/")
            assert server.calls.of("v2.StartUpload")[0].error == "ConnectionDropped"
        async with oci.head(f"/v2/{NAME}/blobs/{sha256(DATA)}") as response:
            assert response.status == 404


@pytest.mark.parametrize("framing", ["Content-Length: 64", "Transfer-Encoding: chunked"])
async def test_what_arrived_of_a_broken_chunk_counts(
    registry: RunningRegistry, oci: Oci, tmp_path: Path, framing: str
) -> None:
    where = await start(oci, NAME)
    body = DATA[:20] if "Length" in framing else b"14\r\n" + DATA[:20] + b"\r\n14\r\n"
    _, writer = await asyncio.open_connection(registry.host, registry.port)
    authorization = oci.headers["Authorization"]
    head = f"PATCH {where} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n{framing}\r\n"
    writer.write(f"{head}Content-Range: 0-63\r\n\r\n".encode() + body)
    await writer.drain()
    uploads = tmp_path / "root" / "uploads"
    with anyio.fail_after(10):
        while not any(path.stat().st_size for path in uploads.iterdir()):
            await anyio.sleep(0.01)
    writer.close()
    await writer.wait_closed()
    with anyio.fail_after(10):
        while not registry.calls.of("v2.PatchUpload"):
            await anyio.sleep(0.01)
    (call,) = registry.calls.of("v2.PatchUpload")
    assert (call.error, call.acknowledged_bytes) == ("ConnectionDropped", 20)
    async with oci.get(where) as response:
        assert response.headers["Range"] == "0-19"
    # The rest of the chunk is no chunk of its own, so 4 bytes of it are not too small.
    assert (await patch(oci, where, DATA[20:24], Content_Range="20-23"))[0] == 201
    assert await finish(oci, where, sha256(DATA), DATA[24:], Content_Range="24-63") == 201
    assert registry.calls.counters.layer_bytes_acknowledged == 64
    assert await content(oci, sha256(DATA)) == DATA


def cutting(*actions: str) -> Callable[[CallInfo], Fault | None]:
    """Cuts the first call of each action in the middle of its body."""

    def fault(call: CallInfo) -> Fault | None:
        return Fault(drop="during") if call.action in actions and call.number == 1 else None

    return fault


async def test_broken_last_chunk_counts_only_if_it_said_where_it_belongs(tmp_path: Path) -> None:
    options = replace(SMALL_PARTS, faults=cutting("v2.PutUpload", "v2.PutBlob"))
    data = bytes(200_000)
    async with serving(tmp_path, options=options) as (server, ecr, oci):
        await ecr.create_repository(repositoryName=NAME)
        where = await start(oci, NAME)
        with pytest.raises(aiohttp.ClientConnectionError):
            await finish(oci, where, sha256(data), data)
        async with oci.get(where) as response:
            assert response.headers["Range"] == "0-0"
        server.calls.clear()
        with pytest.raises(aiohttp.ClientConnectionError):
            await finish(oci, where, sha256(data), data, Content_Range="0-199999")
        (call,) = server.calls.of("v2.PutUpload")
        kept = call.acknowledged_bytes
        assert 100_000 <= kept < 200_000
        headers = {"Content_Range": f"{kept}-199999"}
        assert await finish(oci, where, sha256(data), data[kept:], **headers) == 201
        with pytest.raises(aiohttp.ClientConnectionError):
            await oci.post(f"/v2/{NAME}/blobs/uploads/?digest={sha256(b'x')}", data=b"x")
    assert list((tmp_path / "uploads").iterdir()) == []
