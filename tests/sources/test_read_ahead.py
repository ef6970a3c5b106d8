"""Reading a tar's headers from afar: the same files as on disk, in few reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tarfiles import archive_of, tar_of

from asyncpush.errors import LayoutError
from asyncpush.oci.layout import BlobRange
from asyncpush.oci.sample import write_sample
from asyncpush.oci.tar import Tar
from asyncpush.sources.s3.archive import ReadAhead


def counting(data: bytes, reads: list[tuple[int, int]]) -> ReadAhead:
    def fetch(offset: int, size: int) -> bytes:
        assert 0 <= offset < len(data)
        assert size > 0
        reads.append((offset, size))
        return data[offset : offset + size]

    return ReadAhead(fetch, len(data), 4096)


@given(
    st.binary(max_size=20_000),
    st.lists(st.tuples(st.integers(0, 25_000), st.integers(0, 9000)), max_size=20),
)
def test_any_read_gives_what_is_there(data: bytes, asked: list[tuple[int, int]]) -> None:
    reads: list[tuple[int, int]] = []
    ahead = counting(data, reads)
    for offset, size in asked:
        assert ahead.read(offset, size) == data[offset : offset + size]
    assert len(reads) <= len(asked)


def test_a_tar_from_afar_has_the_files_of_the_one_on_disk(tmp_path: Path) -> None:
    layout = write_sample(tmp_path / "layout", images=2, base_bytes=50_000)
    path = archive_of(layout, tmp_path / "a.tar")
    data, reads = path.read_bytes(), list[tuple[int, int]]()
    local = Tar(BlobRange(str(path), 0, len(data)))
    far = Tar(BlobRange("s3://b/a.tar", 0, len(data)), content=counting(data, reads))
    members = [p.relative_to(layout) for p in layout.rglob("*") if p.is_file()]
    assert far.path == "s3://b/a.tar"
    for name in map(str, members):
        here, there = local.source(name), far.source(name)
        assert here is not None
        assert there is not None
        assert (here.offset, here.size) == (there.offset, there.size)
    assert far.read("index.json") == local.read("index.json")
    assert len(reads) < len(members)


def test_a_tar_that_became_shorter_is_no_small_file(tmp_path: Path) -> None:
    data = tar_of(tmp_path / "a.tar", {"a": b"x" * 9000}).read_bytes()

    class Shrunk:
        short = False

        def read(self, offset: int, size: int) -> bytes:
            return data[offset : offset + size][: 5 if self.short else None]

    shrunk = Shrunk()
    tar = Tar(BlobRange("s3://b/a.tar", 0, len(data)), content=shrunk)
    shrunk.short = True
    with pytest.raises(LayoutError, match="became shorter"):
        tar.read("a")
