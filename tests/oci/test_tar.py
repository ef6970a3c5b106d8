"""Tar files: one that is not what it claims is one clear error, in bounded memory and time."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tarfiles import docker_save, tar_of

from asyncpush.errors import AsyncpushError, ContentError
from asyncpush.oci.archive import open_archive
from asyncpush.oci.layout import BlobRange, read_manifest
from asyncpush.oci.tar import Tar

BLOCK = tarfile.BLOCKSIZE


def opened(path: Path) -> Tar:
    return Tar(BlobRange(str(path), 0, path.stat().st_size))


def header(name: str, kind: bytes, size: int = 0, link: str = "") -> bytes:
    """One header with whatever size, without content."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info.tobuf(tarfile.GNU_FORMAT)


def with_size(block: bytes, size: int) -> bytes:
    """A header that claims another size, in the base-256 form that takes any number."""
    raw = bytearray(block)
    raw[124:136] = (size % 256**12).to_bytes(12, "big")
    raw[124] |= 0xFF if size < 0 else 0x80
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def sparse_without_end() -> list[bytes]:
    """A sparse file whose map goes on and on (GNU's format before pax)."""
    first = bytearray(header("holes", tarfile.GNUTYPE_SPARSE))
    first[482] = 1
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    more = b"00000000001\0" * 42 + b"\1"
    return [bytes(first), *([more.ljust(BLOCK, b"\0")] * 5000)]


def raw_tar(path: Path, *blocks: bytes) -> Path:
    path.write_bytes(b"".join(blocks) + bytes(2 * BLOCK))
    return path


def test_files_are_found_where_they_are(tmp_path: Path) -> None:
    tar = opened(tar_of(tmp_path / "a.tar", {"./a": b"one", "b/c": b"two"}))
    for name, content in (("a", b"one"), ("b/c", b"two")):
        source = tar.source(name)
        assert source is not None
        assert read_manifest(source) == content
    assert "a" in tar
    assert tar.source("b") is None


def test_links_inside_are_followed_and_others_lead_nowhere(tmp_path: Path) -> None:
    hard = tarfile.TarInfo("dir/hard")
    hard.type, hard.linkname = tarfile.LNKTYPE, "dir/real"
    links = {"a": "b", "b": "a", "c": "../../etc/passwd", "d": "/etc/passwd", "good": "dir/hard"}
    tar = opened(tar_of(tmp_path / "a.tar", {"dir/real": b"x", "dir/hard": hard}, **links))
    assert all(tar.source(name) is None for name in "abcd")
    assert tar.source("good") == tar.source("dir/hard") == tar.source("dir/real") is not None


def test_names_that_climb_are_no_names(tmp_path: Path) -> None:
    members = {"../oci-layout": b"x", "blobs/../../index.json": b"y", "/etc/passwd": b"z"}
    tar = opened(tar_of(tmp_path / "a.tar", members))
    assert not any(name in tar for name in ("oci-layout", "index.json", "etc/passwd"))


def test_the_last_of_several_counts_and_a_document_must_be_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for content in (b"first", b"second!"):
            info = tarfile.TarInfo("manifest.json")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    archive = opened(path)
    source = archive.source("manifest.json")
    assert source is not None
    assert read_manifest(source) == b"second!"
    with pytest.raises(ContentError, match=r"has manifest\.json twice"):
        archive.read("manifest.json")


def test_a_sparse_file_is_said_to_be_one(tmp_path: Path) -> None:
    tar = opened(raw_tar(tmp_path / "a.tar", header("holes", tarfile.GNUTYPE_SPARSE)))
    with pytest.raises(ContentError, match="holes is stored as a sparse file"):
        tar.source("holes")


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([header("a", tarfile.REGTYPE, 10_000)], "a ends behind the end"),
        ([with_size(header("a", tarfile.REGTYPE), 2**60)], "a ends behind the end"),
        ([with_size(header("a", tarfile.REGTYPE), -BLOCK)], "lead back"),
        ([header("a", tarfile.REGTYPE), with_size(header("b", tarfile.REGTYPE), -1024)], "back"),
        ([with_size(header("x", tarfile.XHDTYPE), 2**40)], "claims to have 1099511627776 bytes"),
        ([with_size(header("x", tarfile.XHDTYPE), -5 * BLOCK)], "claims to have -2560 bytes"),
        ([with_size(header("x", tarfile.GNUTYPE_LONGNAME), 2**33)], "claims to have 8589934592"),
        ([header("g", tarfile.XGLTYPE)] * 20_000, "headers nest"),
        (sparse_without_end(), "headers have no end"),
        ([header("a", tarfile.REGTYPE), b"?" * BLOCK], "at byte 512 is no header"),
        ([b"?" * BLOCK], "no whole tar file"),
    ],
)
def test_headers_that_lie_are_errors(tmp_path: Path, blocks: list[bytes], message: str) -> None:
    with pytest.raises(ContentError, match=message):
        opened(raw_tar(tmp_path / "a.tar", *blocks))


def test_more_members_than_any_archive_has_are_an_error_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncpush.oci.tar._MOST_MEMBERS", 2000)
    path = raw_tar(tmp_path / "a.tar", *(header(str(i), tarfile.REGTYPE) for i in range(6000)))
    tracemalloc.start()
    try:
        with pytest.raises(ContentError, match="more than 2,000 members"):
            opened(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_file_cut_off_anywhere_is_an_error_or_lacks_what_was_cut(tmp_path: Path) -> None:
    whole = docker_save(tmp_path / "a.tar").read_bytes()
    end = len(whole.rstrip(b"\0"))
    cut = tmp_path / "cut.tar"
    for size in range(0, end, 256):
        cut.write_bytes(whole[:size])
        with pytest.raises(ContentError):
            open_archive("docker-archive", cut)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=2000), st.integers(0, 10_000))
def test_no_damage_brings_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    path = docker_save(tmp_path_factory.mktemp("noise") / "a.tar")
    raw = bytearray(path.read_bytes())
    raw[at : at + len(noise)] = noise
    path.write_bytes(raw)
    try:
        archive = open_archive("docker-archive", str(path))
        for entry in archive.entries:
            archive.find_manifest(entry)
    except AsyncpushError:
        pass


KINDS = st.sampled_from([bytes([kind]) for kind in b"0123456789xgLKSNVAX\0"])


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(KINDS, st.integers(-(2**70), 2**70) | st.integers(-3000, 3000), st.binary()),
        max_size=6,
    )
)
def test_headers_of_any_kind_and_size_bring_no_traceback(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[bytes, int, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("headers") / "a.tar"
    blocks = []
    for kind, size, content in members:
        blocks += [with_size(header("name", kind), size), content.ljust(BLOCK, b"\0")]
    try:
        tar = opened(raw_tar(path, *blocks))
        tar.source("name")
    except AsyncpushError:
        pass


def test_reading_headers_ends_when_it_is_told_to(tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    def check() -> None:
        raise Stop

    path = raw_tar(tmp_path / "a.tar", header("a", tarfile.REGTYPE))
    with pytest.raises(Stop):
        Tar(BlobRange(str(path), 0, path.stat().st_size), check)
