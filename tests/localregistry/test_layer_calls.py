"""The upload of layers: what is acknowledged, what is refused, and that nothing counts before."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from registry_driver import (
    ACCOUNT,
    NAME,
    SMALL_PARTS,
    answers,
    call,
    complete,
    connect,
    part_body,
    post,
    put_part,
    sha256,
    sign,
    upload,
)

from asyncpush.localregistry import DEFAULT_KEY, LocalRegistry, RunningRegistry

pytestmark = pytest.mark.anyio

DATA = bytes(range(40))
NOWHERE = "01234567-0123-0123-0123-0123456789ab"


async def begin(ecr: Any) -> str:
    return str((await ecr.initiate_layer_upload(repositoryName=NAME))["uploadId"])


def blobs(tmp_path: Path) -> list[bytes]:
    return [path.read_bytes() for path in (tmp_path / "root" / "blobs" / "sha256").iterdir()]


async def test_layer_is_there_once_its_upload_is_complete(ecr: Any, tmp_path: Path) -> None:
    session = await ecr.initiate_layer_upload(repositoryName=NAME)
    assert session["partSize"] == 16
    upload_id = session["uploadId"]
    assert (await put_part(ecr, upload_id, 0, DATA[:16]))["lastByteReceived"] == 15
    answer = await put_part(ecr, upload_id, 16, DATA[16:])
    assert (answer["registryId"], answer["repositoryName"]) == (ACCOUNT, NAME)
    assert (answer["uploadId"], answer["lastByteReceived"]) == (upload_id, 39)
    checked = await ecr.batch_check_layer_availability(
        repositoryName=NAME, layerDigests=[sha256(DATA)]
    )
    assert checked["layers"][0]["layerAvailability"] == "UNAVAILABLE"
    done = await complete(ecr, upload_id, sha256(DATA))
    assert (done["layerDigest"], done["uploadId"]) == (sha256(DATA), upload_id)
    checked = await ecr.batch_check_layer_availability(
        repositoryName=NAME,
        layerDigests=[sha256(DATA), sha256(b"other"), "sha512:" + "0" * 128, "x", ""],
    )
    assert [(x["layerAvailability"], x.get("layerSize")) for x in checked["layers"]] == [
        ("AVAILABLE", 40),
        ("UNAVAILABLE", None),
    ]
    assert [(x["layerDigest"], x["failureCode"]) for x in checked["failures"]] == [
        ("sha512:" + "0" * 128, "InvalidLayerDigest"),
        ("x", "InvalidLayerDigest"),
        ("", "MissingLayerDigest"),
    ]
    assert blobs(tmp_path) == [DATA]
    assert list((tmp_path / "root" / "uploads").iterdir()) == []
    with answers("UploadNotFoundException"):
        await complete(ecr, upload_id, sha256(DATA))


async def test_blob_is_stored_once_and_belongs_to_repositories_one_by_one(
    ecr: Any, tmp_path: Path
) -> None:
    await ecr.create_repository(repositoryName="other")
    await upload(ecr, DATA)
    checked = await ecr.batch_check_layer_availability(
        repositoryName="other", layerDigests=[sha256(DATA)]
    )
    assert checked["layers"][0]["layerAvailability"] == "UNAVAILABLE"
    await upload(ecr, DATA, name="other")
    assert blobs(tmp_path) == [DATA]
    with answers("LayerAlreadyExistsException", f"'{sha256(DATA)}' already exists"):
        await upload(ecr, DATA)
    assert list((tmp_path / "root" / "uploads").iterdir()) == []


@pytest.mark.parametrize("first", [0, 8, 15, 17, 1 << 40])
async def test_part_that_does_not_follow_the_last_one_is_refused(ecr: Any, first: int) -> None:
    session = await begin(ecr)
    await put_part(ecr, session, 0, DATA[:16])
    with answers("InvalidLayerPartException", "not consecutive") as error:
        await put_part(ecr, session, first, DATA[16:32])
    assert error["lastValidByteReceived"] == 15
    assert (error["registryId"], error["repositoryName"]) == (ACCOUNT, NAME)
    assert error["uploadId"] == session
    await put_part(ecr, session, 16, DATA[16:])
    await complete(ecr, session, sha256(DATA))


@pytest.mark.parametrize("length", [1, 15, 17, 64])
async def test_part_whose_range_is_not_its_length_is_refused(
    registry: RunningRegistry, ecr: Any, length: int
) -> None:
    session = await begin(ecr)
    body = part_body(session, 0, b"x" * 16, partLastByte=length - 1)
    status, document = await call(registry, "UploadLayerPart", json.dumps(body).encode())
    assert (status, document["__type"]) == (400, "InvalidLayerPartException")
    assert document["lastValidByteReceived"] == -1
    await put_part(ecr, session, 0, DATA)
    await complete(ecr, session, sha256(DATA))


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"layerPartBlob": "QU"}, "SerializationException"),
        ({"layerPartBlob": "Q!=="}, "SerializationException"),
        ({"layerPartBlob": 5}, "SerializationException"),
        ({"layerPartBlob": None}, "InvalidParameterException"),
        ({"layerPartBlob": ""}, "InvalidLayerPartException"),
        ({"layerPartBlob": "QUJD" * 22}, "InvalidParameterException"),
        ({"partFirstByte": -1}, "InvalidParameterException"),
        ({"partFirstByte": "0"}, "SerializationException"),
        ({"partFirstByte": None}, "InvalidParameterException"),
        ({"partLastByte": None}, "InvalidParameterException"),
        ({"partLastByte": -1}, "InvalidParameterException"),
        ({"partFirstByte": 0.0}, "SerializationException"),
        ({"uploadId": "x"}, "InvalidParameterException"),
        ({"uploadId": NOWHERE}, "UploadNotFoundException"),
        ({"repositoryName": "not/there"}, "RepositoryNotFoundException"),
        ({"repositoryName": "Not"}, "InvalidParameterException"),
        ({"registryId": "1"}, "InvalidParameterException"),
        ({"registryId": "999999999999"}, "AccessDeniedException"),
    ],
)
@pytest.mark.parametrize("blob_first", [False, True])
@pytest.mark.parametrize("claimed", [False, True])
async def test_malformed_part_is_refused_and_costs_nothing(
    registry: RunningRegistry,
    ecr: Any,
    more: dict[str, Any],
    code: str,
    blob_first: bool,
    claimed: bool,
) -> None:
    session = await begin(ecr)
    await put_part(ecr, session, 0, DATA[:16])
    members = part_body(session, 16, DATA[16:32]) | more
    if blob_first:
        members = {"layerPartBlob": members["layerPartBlob"]} | members
    else:
        members["layerPartBlob"] = members.pop("layerPartBlob")
    body = json.dumps(members).encode()
    headers = {"X_Amz_Content_SHA256": sha256(body)[7:]} if claimed else {}
    status, document = await call(registry, "UploadLayerPart", body, **headers)
    assert (status, document["__type"]) == (400, code)
    await put_part(ecr, session, 16, DATA[16:])
    await complete(ecr, session, sha256(DATA))


async def test_members_in_any_order_make_the_same_layer(
    registry: RunningRegistry, ecr: Any, tmp_path: Path
) -> None:
    members = part_body(await begin(ecr), 0, DATA)
    names = list(members)
    for shift in range(len(names)):
        session = await begin(ecr)
        members["uploadId"] = session
        body = json.dumps({name: members[name] for name in names[shift:] + names[:shift]}, indent=2)
        status, document = await call(registry, "UploadLayerPart", body.encode())
        assert (status, document.get("lastByteReceived")) == (200, 39)
        with answers("InvalidLayerException", f"'{sha256(DATA)}'"):
            await complete(ecr, session, sha256(b"something else"))
    await complete(ecr, session, sha256(DATA))
    assert blobs(tmp_path) == [DATA]
    assert list((tmp_path / "root" / "tmp").iterdir()) == []


async def test_registry_named_behind_the_blob_is_not_mistaken(
    registry: RunningRegistry, ecr: Any
) -> None:
    session = await begin(ecr)
    body = json.dumps(part_body(session, 0, DATA) | {"registryId": "999999999999"})
    status, document = await call(registry, "UploadLayerPart", body.encode())
    assert (status, document["__type"]) == (400, "InvalidParameterException")
    body = json.dumps(part_body(session, 0, DATA) | {"registryId": ACCOUNT})
    assert (await call(registry, "UploadLayerPart", body.encode()))[0] == 200


@pytest.mark.parametrize("claimed", [False, True])
async def test_body_changed_on_the_way_is_not_acknowledged(
    registry: RunningRegistry, ecr: Any, claimed: bool
) -> None:
    session = await begin(ecr)
    body = json.dumps(part_body(session, 0, DATA)).encode()
    more = {"X_Amz_Content_SHA256": sha256(body)[7:]} if claimed else {}
    headers = sign(registry.url, "UploadLayerPart", body, **more)
    status, document = await post(registry, body.replace(b"AAEC", b"AAED"), headers)
    assert (status, document["__type"]) == (400, "InvalidSignatureException")
    await put_part(ecr, session, 0, DATA)
    await complete(ecr, session, sha256(DATA))


async def test_stranger_learns_nothing_of_what_is_there(
    registry: RunningRegistry, ecr: Any
) -> None:
    for name in (NAME, "not/there"):
        body = json.dumps(part_body(NOWHERE, 0, DATA) | {"repositoryName": name}).encode()
        headers = sign(registry.url, "UploadLayerPart", b"signed for another body")
        _, document = await post(registry, body, headers)
        assert document["__type"] == "InvalidSignatureException"


async def test_small_part_is_refused_at_the_end_unless_it_is_the_last(ecr: Any) -> None:
    session = await begin(ecr)
    await put_part(ecr, session, 0, DATA[:7])
    await put_part(ecr, session, 7, DATA[7:])
    with answers("LayerPartTooSmallException", "at least 8 bytes"):
        await complete(ecr, session, sha256(DATA))
    assert await upload(ecr, DATA[:35])
    assert await upload(ecr, b"1")


async def test_upload_without_bytes_is_refused(ecr: Any) -> None:
    session = await begin(ecr)
    with answers("EmptyUploadException", "does not contain any layer parts"):
        await complete(ecr, session, sha256(b""))


async def test_unknown_upload_is_not_found(ecr: Any) -> None:
    await ecr.create_repository(repositoryName="other")
    session = await begin(ecr)
    for upload_id, name in ((NOWHERE, NAME), (session, "other")):
        with answers("UploadNotFoundException", f"'{upload_id}' does not exist"):
            await put_part(ecr, upload_id, 0, DATA, name)
        with answers("UploadNotFoundException"):
            await complete(ecr, upload_id, sha256(DATA), name)


@pytest.mark.parametrize("digests", [[], ["x"] * 101])
async def test_layers_must_be_1_to_100(ecr: Any, digests: Any) -> None:
    session = await begin(ecr)
    with answers("InvalidParameterException", "layerDigests"):
        await ecr.batch_check_layer_availability(repositoryName=NAME, layerDigests=digests)
    with answers("InvalidParameterException", "layerDigests"):
        await ecr.complete_layer_upload(repositoryName=NAME, uploadId=session, layerDigests=digests)


@pytest.mark.parametrize("digest", ["sha512:" + "0" * 128, "sha256:1", "", "SHA256:" + "0" * 64])
async def test_upload_is_completed_with_a_sha256_digest_alone(ecr: Any, digest: str) -> None:
    session = await begin(ecr)
    with answers("InvalidParameterException", "layerDigests"):
        await complete(ecr, session, digest)


async def test_session_ends_with_its_lifetime(tmp_path: Path) -> None:
    now = [0.0]
    options = replace(
        SMALL_PARTS,
        upload_lifetime=100,
        max_clock_skew=1000,
        clock=lambda: time.time() + now[0],
    )
    async with LocalRegistry(tmp_path / "root", options=options).run() as s, connect(s) as ecr:
        await ecr.create_repository(repositoryName=NAME)
        session = await begin(ecr)
        await put_part(ecr, session, 0, DATA[:16])
        now[0] = 101
        with answers("UploadNotFoundException"):
            await put_part(ecr, session, 16, DATA[16:])
        with answers("UploadNotFoundException"):
            await complete(ecr, session, sha256(DATA[:16]))
        other = await begin(ecr)
        assert list((tmp_path / "root" / "uploads").iterdir()) == []
        await put_part(ecr, other, 0, DATA)


async def test_parts_of_a_layer_are_counted(tmp_path: Path) -> None:
    options = replace(SMALL_PARTS, max_parts=2)
    async with LocalRegistry(tmp_path, options=options).run() as s, connect(s) as ecr:
        await ecr.create_repository(repositoryName=NAME)
        session = await begin(ecr)
        await put_part(ecr, session, 0, DATA[:8])
        await put_part(ecr, session, 8, DATA[8:16])
        with answers("LimitExceededException", "at most 2 parts"):
            await put_part(ecr, session, 16, DATA[16:])


async def test_same_part_sent_twice_at_once_counts_once(ecr: Any) -> None:
    session = await begin(ecr)
    outcomes: list[str] = []

    async def send() -> None:
        try:
            await put_part(ecr, session, 0, DATA)
            outcomes.append("")
        except ecr.exceptions.InvalidLayerPartException as exc:
            outcomes.append(exc.response["Error"]["Code"])

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(send)
    assert sorted(outcomes) == ["", *["InvalidLayerPartException"] * 4]
    await complete(ecr, session, sha256(DATA))


@pytest.mark.parametrize("claimed", [False, True])
async def test_client_that_leaves_in_the_middle_leaves_nothing_behind(
    registry: RunningRegistry, ecr: Any, claimed: bool
) -> None:
    session = await begin(ecr)
    await put_part(ecr, session, 0, DATA[:16])
    body = json.dumps(part_body(session, 16, b"?" * 60)).encode()
    more = {"X_Amz_Content_SHA256": sha256(body)[7:]} if claimed else {}
    headers = sign(registry.url, "UploadLayerPart", body, DEFAULT_KEY, **more)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Host: 127.0.0.1:{registry.port}", f"Content-Length: {len(body)}"]
    head = "\r\n".join(["POST / HTTP/1.1", *lines, "", ""]).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", registry.port)
    writer.write(head + body[:-20])
    await writer.drain()
    await anyio.sleep(0.05)
    writer.close()
    await writer.wait_closed()
    with anyio.fail_after(5):
        await put_part(ecr, session, 16, DATA[16:])
        await complete(ecr, session, sha256(DATA))
    assert "ConnectionDropped" in {r.error for r in registry.calls.of("UploadLayerPart")}


async def test_client_that_stalls_is_cut_off(tmp_path: Path) -> None:
    options = replace(SMALL_PARTS, body_timeout=0.1)
    async with LocalRegistry(tmp_path, options=options).run() as server, connect(server) as ecr:
        await ecr.create_repository(repositoryName=NAME)
        session = await begin(ecr)
        body = json.dumps(part_body(session, 0, DATA)).encode()
        headers = sign(server.url, "UploadLayerPart", body)
        lines = [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Host: 127.0.0.1:{server.port}", f"Content-Length: {len(body)}"]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write("\r\n".join(["POST / HTTP/1.1", *lines, "", ""]).encode() + body[:-5])
        with anyio.fail_after(5):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            await put_part(ecr, session, 0, DATA)


async def test_repository_deleted_under_an_upload_ends_it(ecr: Any, tmp_path: Path) -> None:
    session = await begin(ecr)
    await put_part(ecr, session, 0, DATA)
    await ecr.delete_repository(repositoryName=NAME)
    await ecr.create_repository(repositoryName=NAME)
    with answers("UploadNotFoundException"):
        await complete(ecr, session, sha256(DATA))
    assert list((tmp_path / "root" / "uploads").iterdir()) == []


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_real_part_sizes_of_ecr_pass_through_uneven_pieces(tmp_path: Path) -> None:
    mib = 1024 * 1024
    data = (b"0123456789abcdef" * 65537)[: mib + 7] * 11
    async with LocalRegistry(tmp_path).run() as server, connect(server) as ecr:
        await ecr.create_repository(repositoryName=NAME)
        session = await ecr.initiate_layer_upload(repositoryName=NAME)
        assert session["partSize"] == 10 * mib
        await put_part(ecr, session["uploadId"], 0, data[: 10 * mib])
        await put_part(ecr, session["uploadId"], 10 * mib, data[10 * mib :])
        await complete(ecr, session["uploadId"], sha256(data))
        assert server.calls.counters.layer_bytes_acknowledged == len(data)
        with answers("InvalidParameterException", "20971520"):
            await put_part(ecr, (await begin(ecr)), 0, b"x" * (20 * mib + 1))
