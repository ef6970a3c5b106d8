"""What cannot be read in place: decompressed and compressed within bounds, always to the same."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tarfiles import archive_of

from asyncpush.errors import AsyncpushError, DigestMismatchError, LayoutError, TemporarySpaceError
from asyncpush.oci import compress, mediatypes
from asyncpush.oci.archive import open_archive
from asyncpush.oci.decompress import decompress
from asyncpush.oci.digest import compute
from asyncpush.oci.layout import BlobRange, Layout, read_manifest
from asyncpush.oci.scratch import MIB, Scratch
from asyncpush.oci.writer import LayoutWriter

try:
    from compression import zstd
except ImportError:
    from backports import zstd

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}
# Neither all alike nor all noise: what layers are like.
TEXT = b"".join(hashlib.sha256(str(i % 900).encode()).hexdigest().encode() for i in range(40_000))
SHORT = TEXT[:300_000]


@pytest.fixture(autouse=True)
def temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def unpacked(kind: str, data: bytes) -> bytes:
    return b"".join(decompress(kind, io.BytesIO(data).read, "a.tar"))


@pytest.mark.parametrize("kind", PACKERS)
def test_an_archive_is_the_same_however_it_is_compressed(
    kind: str, tmp_path: Path, temp_folder: Path
) -> None:
    writer = LayoutWriter(tmp_path / "layout")
    writer.entry(writer.image([writer.blob(SHORT, mediatypes.OCI_LAYER)]), "v1")
    plain = archive_of(writer.close(), tmp_path / "a.tar")
    packed = tmp_path / "packed"
    packed.write_bytes(PACKERS[kind](plain.read_bytes()))
    archive = open_archive("oci-archive", packed)
    assert archive.entries == Layout(writer.root).entries
    source = archive.find_manifest(archive.entries[0])
    assert compute(read_manifest(source)) == archive.entries[0].digest
    # The file has no name, so nothing can be left behind.
    assert list(temp_folder.iterdir()) == []


@pytest.mark.parametrize("kind", PACKERS)
def test_streams_behind_each_other_and_zeros_at_the_end_are_one_file(kind: str) -> None:
    pack = PACKERS[kind]
    assert unpacked(kind, pack(b"one") + pack(b"") + pack(SHORT) + bytes(70_000)) == b"one" + SHORT


@pytest.mark.parametrize("kind", PACKERS)
def test_what_is_cut_off_or_damaged_is_one_error(kind: str) -> None:
    packed = PACKERS[kind](SHORT)
    for size in (10, len(packed) // 2, len(packed) - 1):
        with pytest.raises(LayoutError, match=f"its {kind} data end too soon"):
            unpacked(kind, packed[:size])
    with pytest.raises(LayoutError, match=f"its {kind} data are damaged"):
        unpacked(kind, packed + b"behind it stands something else")
    if kind == "zstd":
        return  # Without a checksum of its own, as here, damage is found by the digests.
    spoilt = bytearray(packed)
    spoilt[len(packed) // 2] ^= 0x55
    with pytest.raises(LayoutError, match=f"its {kind} data"):
        unpacked(kind, bytes(spoilt))


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_ends_at_the_bound_in_little_memory(kind: str, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    bomb.write_bytes(PACKERS[kind](bytes(32 * MIB)))
    scratch = Scratch(limit=8 * MIB)
    tracemalloc.start()
    try:
        with pytest.raises(TemporarySpaceError, match="more than the 8 MiB") as caught:
            scratch.tar_of(bomb)
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    finally:
        tracemalloc.stop()
    assert "--temp-space" in caught.value.advice


def test_what_failed_leaves_its_room_to_others(tmp_path: Path) -> None:
    scratch = Scratch(limit=3 * MIB)
    for name, size in (("large", 4 * MIB), ("good", 2 * MIB)):
        (tmp_path / name).write_bytes(gzip.compress(b"x" * size))
    with pytest.raises(TemporarySpaceError):
        scratch.tar_of(tmp_path / "large")
    where = scratch.tar_of(tmp_path / "good")
    assert (where.offset, where.size) == (0, 2 * MIB)
    # Once more costs nothing.
    assert scratch.tar_of(tmp_path / "good") is where


def test_an_xz_file_that_asks_for_memory_does_not_get_it(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 512 * MIB, "mode": lzma.MODE_FAST}]
    greedy = bytearray(lzma.compress(b"x", filters=[{**filters[0], "dict_size": 4096}]))
    # The dictionary's size is one byte of the block's header, which ends in its CRC-32.
    at = greedy.index(b"\x21\x01") + 2
    greedy[at] = 34  # 512 MiB
    end = 12 + (greedy[12] + 1) * 4
    greedy[end - 4 : end] = zlib.crc32(greedy[12 : end - 4]).to_bytes(4, "little")
    with pytest.raises(LayoutError, match=r"xz data are damaged.*[Mm]emory"):
        unpacked("xz", bytes(greedy))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(list(PACKERS)), st.binary(max_size=200), st.integers(0, 3000))
def test_no_damage_brings_a_traceback(kind: str, noise: bytes, at: int) -> None:
    raw = bytearray(PACKERS[kind](TEXT[:9000]))
    raw[at : at + len(noise)] = noise
    with contextlib.suppress(AsyncpushError):
        unpacked(kind, bytes(raw))


def test_work_ends_when_it_is_told_to(tmp_path: Path, temp_folder: Path) -> None:
    class Stop(BaseException):
        pass

    (tmp_path / "a").write_bytes(gzip.compress(os.urandom(MIB)))
    calls = []

    def check() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise Stop

    with pytest.raises(Stop):
        Scratch(check=check).tar_of(tmp_path / "a")
    assert len(calls) == 3


def layer_at(path: Path, data: bytes) -> BlobRange:
    path.write_bytes(b"before" + data + b"behind")
    return BlobRange(str(path), 6, len(data))


def on_threads(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    with ThreadPoolExecutor(4) as pool:
        yield from pool.map(work, items)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, len(TEXT)])
def test_a_layer_is_compressed_to_the_same_bytes_whoever_does_it(size: int, tmp_path: Path) -> None:
    data = TEXT[:size]
    layer = layer_at(tmp_path / "layer", data)
    digest, where = Scratch().compress(layer, compute(data))
    again, _ = Scratch(ordered=on_threads).compress(layer, compute(data))
    assert digest == again
    packed = read_manifest(where)
    assert compute(packed) == digest
    assert gzip.decompress(packed) == data


def test_a_layer_is_compressed_to_the_bytes_of_all_other_machines(tmp_path: Path) -> None:
    # If this digest changes, so do those of everybody's images: say so in the changelog.
    digest, _ = Scratch().compress(layer_at(tmp_path / "layer", TEXT), compute(TEXT))
    assert digest == "sha256:8de25841b26c9e708b293017974583fc9a7ffbdc6ff7ac8d85db19a3bfcc408d"


def test_a_layer_is_compressed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = Scratch()
    first = scratch.compress(layer_at(tmp_path / "a", TEXT), compute(TEXT))
    monkeypatch.setattr(compress.deflate, "gzip_compress", None)
    assert scratch.compress(layer_at(tmp_path / "b", TEXT), compute(TEXT)) is first


def test_a_layer_with_another_content_is_refused_and_leaves_its_room(tmp_path: Path) -> None:
    scratch = Scratch()
    with pytest.raises(DigestMismatchError, match="its config says"):
        scratch.compress(layer_at(tmp_path / "a", TEXT), compute(b"other"))
    _, where = scratch.compress(layer_at(tmp_path / "a", TEXT), compute(TEXT))
    assert where.offset == 0


def test_another_compressor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compress._prove.cache_clear()
    monkeypatch.setattr(compress.deflate, "gzip_compress", lambda data, level: gzip.compress(data))
    try:
        with pytest.raises(AsyncpushError, match="writes other bytes"):
            Scratch().compress(layer_at(tmp_path / "a", TEXT), compute(TEXT))
    finally:
        compress._prove.cache_clear()


def test_a_folder_that_is_none_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    (tmp_path / "a").write_bytes(gzip.compress(b"x"))
    with pytest.raises(TemporarySpaceError, match="missing cannot be written") as caught:
        Scratch().tar_of(tmp_path / "a")
    assert "TMPDIR" in caught.value.advice


def test_the_room_is_free_again_when_nothing_refers_to_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(b"x"))
    scratch = Scratch()
    where = scratch.tar_of(tmp_path / "a")
    assert where.file is not None
    fd = where.file.fileno()
    os.fstat(fd)
    del scratch, where
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


@pytest.mark.parametrize("kind", ["plain", *PACKERS])
@pytest.mark.parametrize("data", [b"", b"abc", SHORT], ids=len)
def test_a_stream_is_kept_as_what_is_in_it(kind: str, data: bytes) -> None:
    stream = io.BytesIO(PACKERS.get(kind, bytes)(data))
    # A pipe gives what it has, which may be a byte.
    place = Scratch().spool(lambda size: stream.read(min(size, 1 + len(data) // 5)), "a pipe")
    assert place.path == "a pipe"
    assert read_manifest(place) == data


def test_a_stream_keeps_to_the_bound() -> None:
    with pytest.raises(TemporarySpaceError, match="--temp-space"):
        Scratch(1000).spool(io.BytesIO(SHORT).read, "a pipe")
