"""Layouts on disk: what is read, and that nothing outside of the directory ever is."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpush.errors import (
    AsyncpushError,
    BlobMissingError,
    DigestMismatchError,
    LayoutError,
    LimitError,
    UnsafePathError,
)
from asyncpush.oci import layout as layout_module
from asyncpush.oci.descriptor import Descriptor, parse_descriptor
from asyncpush.oci.layout import BlobData, BlobFile, Layout, read_manifest
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES
from asyncpush.oci.writer import LayoutWriter


def read(value: dict[str, Any]) -> Descriptor:
    return parse_descriptor(value, "layers[0]")


def blob_path(root: Path, value: dict[str, Any]) -> Path:
    return root / "blobs" / value["digest"].replace(":", "/")


@pytest.mark.parametrize("version", ["1.0.0", "1.0", "1.1.0", "1"])
def test_every_layout_of_version_1_is_read(writer: LayoutWriter, version: str) -> None:
    image = writer.entry(writer.image([writer.layer({"a": b"a"})]), "v1")
    root = writer.close()
    (root / "oci-layout").write_text(json.dumps({"imageLayoutVersion": version}))
    layout = Layout(root)
    assert [(e.ref_name, e.digest) for e in layout.entries] == [("v1", image["digest"])]
    assert layout.find(layout.entries[0]) == BlobFile(str(blob_path(root, image)), image["size"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("oci-layout", None, "no OCI layout: it has no file oci-layout"),
        ("oci-layout", b"", "oci-layout: it is no JSON"),
        ("oci-layout", b"{}", "imageLayoutVersion is None"),
        ("oci-layout", b'{"imageLayoutVersion": 1}', "imageLayoutVersion is 1;"),
        ("oci-layout", b'{"imageLayoutVersion": "2.0.0"}', "is '2.0.0'; version 1.0.0 can be read"),
        ("oci-layout", b'{"imageLayoutVersion": "10.0"}', "is '10.0'"),
        ("index.json", None, "no index.json"),
        ("index.json", b"<html>", "index.json: it is no JSON: .* at line 1, column 1"),
        ("index.json", b"\xff", "index.json: it is no JSON: no UTF-8 at byte 0"),
        ("index.json", b"{}", "index.json: manifests is missing"),
        ("index.json", b'{"manifests": [{}]}', r"index.json: manifests\[0\].mediaType"),
        (
            "index.json",
            b'{"manifests": [{"mediaType": "a/b", "size": 1, "digest": "sha256:../../etc"}]}',
            "index.json: not a digest",
        ),
    ],
)
def test_a_directory_that_is_no_layout_is_refused(
    writer: LayoutWriter, name: str, content: bytes | None, message: str
) -> None:
    path = writer.close() / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LayoutError, match=message) as caught:
        Layout(writer.root)
    assert caught.value.where["file"] == str(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "does not exist"),
        ("file", "is no directory"),
        ("file/below", "does not exist"),
        ("nul\0", "does not exist"),
        ("x" * 300, "cannot be read: File name too long"),
    ],
)
def test_a_source_that_is_no_directory_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LayoutError, match=f"the source {message}"):
        Layout(tmp_path / name)


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
def test_a_file_that_may_not_be_read_is_a_layout_error(
    writer: LayoutWriter, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root = writer.close()

    def forbidding(path: str, mode: str) -> Any:
        if path.endswith(name):
            raise PermissionError(13, "Permission denied")
        return Path(path).open(mode)

    monkeypatch.setattr(layout_module, "open", forbidding, raising=False)
    with pytest.raises(LayoutError, match="cannot be read: Permission denied") as caught:
        Layout(root)
    assert caught.value.where["file"] == str(root / name)


@pytest.fixture(scope="module")
def empty_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LayoutWriter(tmp_path_factory.mktemp("hostile")).close()


@given(
    st.sampled_from(["oci-layout", "index.json"]),
    st.binary(max_size=200) | st.text(max_size=50).map(lambda t: json.dumps([t, t]).encode()),
)
@settings(deadline=None)
def test_arbitrary_bytes_raise_nothing_else(empty_layout: Path, name: str, content: bytes) -> None:
    good = (empty_layout / name).read_bytes()
    (empty_layout / name).write_bytes(content)
    try:
        with pytest.raises(AsyncpushError):
            Layout(empty_layout)
    finally:
        (empty_layout / name).write_bytes(good)


def test_sha512_entries_are_found(writer: LayoutWriter) -> None:
    blob = writer.blob(b"hello", "text/plain", hash_name="sha512")
    layout = Layout(writer.close())
    assert layout.find(read(blob)) == BlobFile(str(blob_path(writer.root, blob)), 5)
    assert "/sha512/" in str(blob_path(writer.root, blob))


def test_a_size_that_lies_is_told_from_an_absent_blob(writer: LayoutWriter) -> None:
    blob = writer.blob(b"hello", "text/plain")
    layout = Layout(writer.close())
    with pytest.raises(DigestMismatchError, match="has 5 bytes, its descriptor says 6"):
        layout.find(read({**blob, "size": 6}))
    blob_path(writer.root, blob).unlink()
    with pytest.raises(BlobMissingError) as caught:
        layout.find(read(blob))
    assert not layout.holds(read(blob).digest)
    assert caught.value.where["digest"] == blob["digest"]


def test_embedded_data_needs_no_file(writer: LayoutWriter) -> None:
    blob = writer.blob(b"hello", "text/plain")
    layout = Layout(writer.close())
    blob_path(writer.root, blob).unlink()
    source = layout.find(read({**blob, "data": "aGVsbG8="}))
    assert source == BlobData(b"hello")
    assert (source.size, read_manifest(source)) == (5, b"hello")


def test_a_manifest_over_4_mib_is_not_read(writer: LayoutWriter) -> None:
    largest = writer.blob(b" " * MAX_MANIFEST_BYTES, "text/plain")
    layout = Layout(writer.close())
    assert len(read_manifest(layout.find_manifest(read(largest)))) == MAX_MANIFEST_BYTES
    with pytest.raises(LimitError, match="4194305 bytes"):
        layout.find_manifest(read({**largest, "size": MAX_MANIFEST_BYTES + 1}))
    # It grew behind the descriptor's back, between the look and the read.
    os.truncate(blob_path(writer.root, largest), MAX_MANIFEST_BYTES + 1)
    with pytest.raises(LimitError, match="more than 4194304 bytes"):
        read_manifest(BlobFile(str(blob_path(writer.root, largest)), MAX_MANIFEST_BYTES))


def _file_link(root: Path, target: Path) -> None:
    target.mkdir()
    (blob,) = (root / "blobs/sha256").iterdir()
    shutil.move(blob, target / blob.name)
    blob.symlink_to(target / blob.name)


def _directory_link(root: Path, target: Path) -> None:
    shutil.move(root / "blobs/sha256", target)
    (root / "blobs/sha256").symlink_to(target)


def _relative_link(root: Path, target: Path) -> None:
    shutil.move(root / "blobs", target)
    (root / "blobs").symlink_to(os.path.relpath(target, root))


@pytest.mark.parametrize("link", [_file_link, _directory_link, _relative_link])
def test_a_link_may_lead_within_the_layout_and_never_out_of_it(
    writer: LayoutWriter, tmp_path: Path, link: Any
) -> None:
    blob = read(writer.blob(b"hello", "text/plain"))
    inside, outside = writer.close(), tmp_path / "layout-copy"
    shutil.copytree(inside, outside)
    link(inside, inside / "moved")
    source = Layout(inside).find(blob)
    assert read_manifest(source) == b"hello"
    link(outside, tmp_path / "layout-copy-elsewhere")  # a name that begins with the root's
    for look in (Layout(outside).find, lambda b: Layout(outside).holds(b.digest)):
        with pytest.raises(UnsafePathError, match="leads out of the layout"):
            look(blob)


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
def test_the_layouts_own_files_may_not_lead_out(
    writer: LayoutWriter, tmp_path: Path, name: str
) -> None:
    root = writer.close()
    shutil.move(root / name, tmp_path / name)
    (root / name).symlink_to(tmp_path / name)
    with pytest.raises(UnsafePathError):
        Layout(root)


def test_a_layout_may_be_reached_through_a_link(writer: LayoutWriter, tmp_path: Path) -> None:
    blob = read(writer.blob(b"hello", "text/plain"))
    (tmp_path / "link").symlink_to(writer.close())
    assert read_manifest(Layout(tmp_path / "link").find(blob)) == b"hello"


def test_a_dangling_link_is_an_absent_blob_and_a_ring_is_an_error(writer: LayoutWriter) -> None:
    value = writer.blob(b"hello", "text/plain")
    path, layout = blob_path(writer.root, value), Layout(writer.close())
    path.unlink()
    path.symlink_to("nothing")
    assert not layout.holds(read(value).digest)
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(LayoutError, match="symbolic links"):
        layout.find(read(value))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_only_regular_files_are_blobs(writer: LayoutWriter, make: Any) -> None:
    value = writer.blob(b"hello", "text/plain")
    path, layout = blob_path(writer.root, value), Layout(writer.close())
    path.unlink()
    make(path)
    with pytest.raises(LayoutError, match="no regular file"):
        layout.find(read(value))
