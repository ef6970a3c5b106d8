"""Archives: read in place, and one clear error for every tar file that is not what it claims."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpush.errors import AsyncpushError, ContentError
from asyncpush.oci import mediatypes
from asyncpush.oci.archive import Archive, DockerArchive, OciArchive, open_archive
from asyncpush.oci.digest import compute
from asyncpush.oci.layout import BlobRange, Layout
from asyncpush.oci.writer import LayoutWriter


def tar_of(path: Path, members: dict[str, bytes], **links: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.SYMTYPE
            info.linkname = target
            tar.addfile(info)
    return path


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    writer = LayoutWriter(tmp_path / "layout")
    layer = writer.blob(b"layer" * 1000, mediatypes.OCI_LAYER)
    writer.entry(writer.image([layer]), "v1")
    return writer.close()


def archive_of(layout: Path, path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        tar.add(layout, arcname=".")
    return path


def docker_save(path: Path, **changes: object) -> Path:
    layer = b"a layer of a tar"
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [compute(layer)]}}).encode()
    image = {"Config": "c.json", "RepoTags": ["app:v1", "app:v2"], "Layers": ["x/layer.tar"]}
    manifest = json.dumps([image | changes]).encode()
    members = {"manifest.json": manifest, "c.json": config, "l.tar": layer}
    return tar_of(path, members, **{"x/layer.tar": "../l.tar"})


def test_an_oci_archive_is_the_layout_in_it(layout: Path, tmp_path: Path) -> None:
    archive = OciArchive(archive_of(layout, tmp_path / "a.tar"))
    directory = Layout(layout)
    assert archive.entries == directory.entries
    (entry,) = archive.entries
    source = archive.find_manifest(entry)
    assert isinstance(source, BlobRange)
    raw = (tmp_path / "a.tar").read_bytes()[source.offset : source.offset + source.size]
    assert compute(raw) == entry.digest
    assert archive.holds(entry.digest)


def test_docker_25_saves_an_oci_layout(layout: Path, tmp_path: Path) -> None:
    (layout / "manifest.json").write_text("[]")
    path = archive_of(layout, tmp_path / "a.tar")
    assert isinstance(open_archive("docker-archive", str(path)), OciArchive)


def test_what_docker_saved_before_gets_a_manifest_and_a_name_for_each_tag(tmp_path: Path) -> None:
    archive = open_archive("docker-archive", str(docker_save(tmp_path / "a.tar")))
    assert isinstance(archive, DockerArchive)
    assert [entry.ref_name for entry in archive.entries] == ["app:v1", "app:v2"]
    assert len({entry.digest for entry in archive.entries}) == 1
    for entry in archive.entries:
        assert archive.holds(entry.digest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Layers": []}, "0 layers, its config tells of 1"),
        ({"Layers": ["gone.tar"]}, "lacks the layer gone.tar"),
        ({"Layers": [7]}, "lacks the layer 7"),
        ({"Layers": None}, "lacks Config or Layers"),
        ({"Config": "../../etc/passwd"}, "has no ../../etc/passwd"),
        ({"Config": "l.tar"}, "no JSON"),
    ],
)
def test_a_damaged_docker_archive_is_one_error(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ContentError, match=message) as caught:
        DockerArchive(docker_save(tmp_path / "a.tar", **changes))
    assert caught.value.where["file"] == str(tmp_path / "a.tar")


def test_archives_that_are_none_are_told_apart(layout: Path, tmp_path: Path) -> None:
    plain = archive_of(layout, tmp_path / "a.tar")
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(ContentError, match="compressed with gzip"):
        OciArchive(packed)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(plain.read_bytes()[:3000])
    with pytest.raises(ContentError, match="no whole tar file"):
        OciArchive(cut)
    (tmp_path / "text").write_text("hello" * 200)
    with pytest.raises(ContentError, match="no whole tar file"):
        OciArchive(tmp_path / "text")
    with pytest.raises(ContentError, match="cannot be read"):
        OciArchive(tmp_path / "gone.tar")
    with pytest.raises(ContentError, match="cannot be read"):
        OciArchive(tmp_path)
    with pytest.raises(ContentError, match="holds no OCI layout"):
        OciArchive(tar_of(tmp_path / "b.tar", {"x": b""}))


def test_links_that_lead_out_or_around_lead_nowhere(tmp_path: Path) -> None:
    links = {"a": "b", "b": "a", "c": "../../etc/passwd", "d": "/etc/passwd"}
    archive = Archive(tar_of(tmp_path / "a.tar", {"real": b"x"}, **links))
    assert all(archive.source(name) is None for name in links)
    assert archive.source("real") is not None


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
