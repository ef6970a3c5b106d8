"""Blobs read in pieces, and the body of UploadLayerPart that is made of them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpush.errors import ContentError, DigestMismatchError
from asyncpush.oci.digest import compute
from asyncpush.oci.layout import BlobData, BlobFile
from asyncpush.registries import content
from asyncpush.registries.content import BlobReader, open_blob, read_manifest
from asyncpush.registries.ecr.body import PIECE, PartBody

pytestmark = pytest.mark.anyio

DATA = bytes(range(251)) * (3 * PIECE // 251 + 1)
HEAD = b'{"repositoryName": "app", "layerPartBlob": "'


class Reader:
    """A blob in memory that answers at once, or not, and that may end early."""

    def __init__(self, data: bytes, *, at_once: bool = True) -> None:
        self.data, self.at_once = data, at_once

    def read_into(self, buffer: memoryview, offset: int) -> None:
        if offset + len(buffer) > len(self.data):
            raise ContentError("the file ends early")
        buffer[:] = self.data[offset : offset + len(buffer)]

    def read_into_nowait(self, buffer: memoryview, offset: int) -> bool:
        if self.at_once and offset + len(buffer) <= len(self.data):
            self.read_into(buffer, offset)
            return True
        buffer[:] = b"?" * len(buffer)  # undefined, says the protocol
        return False

    def waits(self, offset: int, length: int) -> bool:
        return not self.at_once

    def file(self) -> tuple[int, int] | None:
        return None


def body_of(reader: BlobReader, offset: int, length: int) -> PartBody:
    return PartBody(HEAD, reader, offset, length, anyio.CapacityLimiter(2))


async def sent(body: PartBody) -> bytes:
    return b"".join([piece async for piece in body])


async def check(body: PartBody, part: bytes) -> None:
    raw = await sent(body)
    assert json.loads(raw) == {
        "repositoryName": "app",
        "layerPartBlob": base64.b64encode(part).decode(),
    }
    assert len(body) == len(raw)
    assert await body.sha256() == hashlib.sha256(raw).hexdigest()
    assert body.seek(0) == 0
    assert await sent(body) == raw
    assert body.failure is None


@given(
    st.sampled_from([0, 1, 2, 3, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 2]) | st.integers(0, 99),
    st.integers(0, PIECE),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_body_is_its_part_in_json_every_time(length: int, offset: int, at_once: bool) -> None:
    reader = Reader(DATA, at_once=at_once)
    anyio.run(check, body_of(reader, offset, length), DATA[offset : offset + length])


async def test_bodies_that_are_sent_together_do_not_mix() -> None:
    """They share a thread's buffer, which must never outlive the piece that it was read for."""
    parts = [(DATA[i:], i % 2 == 0) for i in range(8)]
    async with anyio.create_task_group() as tasks:
        for data, at_once in parts:
            reader = Reader(data, at_once=at_once)
            tasks.start_soon(check, body_of(reader, 0, 2 * PIECE), data[: 2 * PIECE])


@pytest.mark.parametrize("where", [(1, 0), (0, 1), (-1, 2)])
async def test_a_body_can_only_be_rewound(where: tuple[int, int]) -> None:
    with pytest.raises(OSError, match="only be rewound"):
        body_of(Reader(DATA), 0, 9).seek(*where)


async def test_a_file_that_was_cut_meanwhile_fails_the_body(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes(DATA)
    async with open_blob(BlobFile(str(path), len(DATA))) as reader:
        body = body_of(reader, 0, len(DATA))
        await check(body, DATA)
        os.truncate(path, 2 * PIECE + 5)
        with pytest.raises(ContentError, match=f"ends at byte {2 * PIECE + 5}") as caught:
            await sent(body)
        assert body.failure is caught.value
        assert caught.value.where == {"file": str(path)}
        with pytest.raises(ContentError, match="push again when nothing writes"):
            await body.sha256()


@pytest.mark.parametrize("nowait", [True, False])
async def test_a_blob_is_read_from_any_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowait: bool
) -> None:
    if not nowait:
        monkeypatch.setattr(content, "_NOWAIT", None)
    (tmp_path / "blob").write_bytes(b"0123456789")
    for source in (BlobFile(str(tmp_path / "blob"), 10), BlobData(b"0123456789")):
        async with open_blob(source) as reader:
            for offset in (7, 0):
                buffer = memoryview(bytearray(3))
                reader.read_into(buffer, offset)
                assert buffer == b"0123456789"[offset : offset + 3]
            at_once = reader.read_into_nowait(buffer, 4)
            assert at_once <= (nowait or isinstance(source, BlobData))
            assert not at_once or buffer == b"456"


async def test_a_read_behind_the_end_never_answers_at_once(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"0123456789")
    async with open_blob(BlobFile(str(tmp_path / "blob"), 10)) as reader:
        assert not reader.read_into_nowait(memoryview(bytearray(5)), 8)
        with pytest.raises(ContentError, match="ends at byte 10"):
            reader.read_into(memoryview(bytearray(5)), 8)


async def test_files_are_closed_when_the_reader_is_cancelled(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x")
    with anyio.CancelScope() as scope:
        async with open_blob(BlobFile(str(tmp_path / "blob"), 1)) as reader:
            scope.cancel()
            await anyio.sleep_forever()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader._fd)


async def test_a_blob_that_is_gone_is_a_content_error(tmp_path: Path) -> None:
    gone = BlobFile(str(tmp_path / "gone"), 1)
    with pytest.raises(ContentError, match="cannot be opened: No such file"):
        async with open_blob(gone):
            pass
    with pytest.raises(ContentError, match="cannot be read: No such file"):
        await read_manifest(gone, compute(b"x"))


async def test_a_manifest_is_proven_when_it_is_read(tmp_path: Path) -> None:
    path, digest = tmp_path / "manifest", compute(b"{}")
    path.write_bytes(b"{}")
    assert await read_manifest(BlobFile(str(path), 2), digest) == b"{}"
    assert await read_manifest(BlobData(b"{}"), digest) == b"{}"
    for other in (b"[]", b"{}\n"):
        path.write_bytes(other)
        with pytest.raises(DigestMismatchError):
            await read_manifest(BlobFile(str(path), 2), digest)
