"""Archives: the layout in an OCI archive, and the manifests that docker's archives lack."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from tarfiles import LAYER, archive_of, docker_members, docker_save, tar_of

from asyncpush.errors import ContentError, DigestMismatchError, LimitError
from asyncpush.oci import mediatypes
from asyncpush.oci.archive import DockerLayout, OciArchive, open_archive
from asyncpush.oci.digest import compute
from asyncpush.oci.dockerarchive import DockerArchive
from asyncpush.oci.layout import BlobRange, Content, Layout, read_manifest
from asyncpush.oci.manifest import ImageManifest, parse_manifest
from asyncpush.oci.select import entries_named
from asyncpush.oci.writer import LayoutWriter


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    writer = LayoutWriter(tmp_path / "layout")
    layer = writer.blob(b"layer" * 1000, mediatypes.OCI_LAYER)
    writer.entry(writer.image([layer]), "v1")
    return writer.close()


def manifest_of(content: Content) -> ImageManifest:
    """The manifest of the first entry, as it would be pushed."""
    entry = content.entries[0]
    manifest = parse_manifest(read_manifest(content.find_manifest(entry)), entry.media_type)
    assert isinstance(manifest, ImageManifest)
    return manifest


def test_an_oci_archive_is_the_layout_in_it(layout: Path, tmp_path: Path) -> None:
    archive = open_archive("oci-archive", archive_of(layout, tmp_path / "a.tar"))
    directory = Layout(layout)
    assert archive.entries == directory.entries
    (entry,) = archive.entries
    source = archive.find_manifest(entry)
    assert isinstance(source, BlobRange)
    raw = (tmp_path / "a.tar").read_bytes()[source.offset : source.offset + source.size]
    assert compute(raw) == entry.digest
    assert archive.holds(entry.digest)


def test_docker_25_saves_a_layout_whose_images_go_by_their_references(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layout")
    for repository in ("app", "db"):
        image = writer.image([writer.blob(repository.encode(), mediatypes.OCI_LAYER)])
        for tag in ("v1", "v2"):
            name = {"io.containerd.image.name": f"docker.io/library/{repository}:{tag}"}
            writer.entry({**image, "annotations": name}, tag)
    (writer.root / "manifest.json").write_text("[]")
    path = archive_of(writer.close(), tmp_path / "a.tar")
    archive = open_archive("docker-archive", path)
    assert isinstance(archive, DockerLayout)
    (entry,) = entries_named(archive, "db:v1")
    assert entry.ref_name == "docker.io/library/db:v1"
    first, _, third, _ = archive.entries
    assert list(archive.numbered) == [first, third]
    # As an OCI archive it is what its index says.
    plain = open_archive("oci-archive", path)
    assert [e.ref_name for e in plain.entries] == ["v1", "v2", "v1", "v2"]


def test_what_docker_saved_before_gets_a_manifest_and_a_name_for_each_tag(tmp_path: Path) -> None:
    archive = open_archive("docker-archive", docker_save(tmp_path / "a.tar"))
    assert isinstance(archive, DockerArchive)
    assert [entry.ref_name for entry in archive.entries] == ["app:v1", "app:v2"]
    assert len({entry.digest for entry in archive.entries}) == 1
    for entry in archive.entries:
        assert archive.holds(entry.digest)
    assert list(archive.numbered) == [archive.entries[0]]
    (layer,) = manifest_of(archive).layers
    assert layer.digest == compute(LAYER)
    for blob in (layer, manifest_of(archive).config):
        source = archive.find(blob)
        # Nothing of an image is held in memory.
        assert isinstance(source, BlobRange)
        assert compute(read_manifest(source)) == blob.digest


def test_a_layer_that_is_compressed_in_the_archive_goes_as_it_is(tmp_path: Path) -> None:
    packed = gzip.compress(LAYER)
    path = tar_of(tmp_path / "a.tar", docker_members(packed))
    for compress in (False, True):
        archive = open_archive("docker-archive", path, compress_layers=compress)
        (layer,) = manifest_of(archive).layers
        assert (layer.digest, layer.size) == (compute(packed), len(packed))
        assert layer.media_type == mediatypes.DOCKER_LAYER_GZIP


def test_a_layer_is_compressed_where_that_is_asked_for_and_its_content_stays(
    tmp_path: Path,
) -> None:
    archive = open_archive("docker-archive", docker_save(tmp_path / "a.tar"), compress_layers=True)
    manifest = manifest_of(archive)
    (layer,) = manifest.layers
    packed = read_manifest(archive.find(layer))
    assert compute(packed) == layer.digest
    assert gzip.decompress(packed) == LAYER
    config = json.loads(read_manifest(archive.find(manifest.config)))
    assert config["rootfs"]["diff_ids"] == [compute(LAYER)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Layers": []}, "0 layers, its config tells of 1"),
        ({"Layers": ["gone.tar"]}, "lacks the layer gone.tar"),
        ({"Layers": [7]}, "lacks the layer 7"),
        ({"Layers": None}, "lacks Config or Layers"),
        ({"Config": "../../etc/passwd"}, "has no ../../etc/passwd"),
        ({"Config": "l.tar"}, "no JSON"),
        ({"layer": b"BZh9" + LAYER}, "compressed with bzip2; gzip can be pushed"),
    ],
)
def test_a_damaged_docker_archive_is_one_error(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ContentError, match=message) as caught:
        open_archive("docker-archive", docker_save(tmp_path / "a.tar", **changes))
    assert caught.value.where["file"] == str(tmp_path / "a.tar")


def test_a_layer_that_is_not_what_its_config_says_is_found_when_it_is_compressed(
    tmp_path: Path,
) -> None:
    path = docker_save(tmp_path / "a.tar", diff=b"something else")
    with pytest.raises(DigestMismatchError, match="its config says"):
        open_archive("docker-archive", path, compress_layers=True)


def test_a_short_list_that_makes_endless_manifests_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncpush.oci.dockerarchive._MOST_BYTES", 100_000)
    members = dict(docker_members())
    (image,) = json.loads(members["manifest.json"])  # type: ignore[arg-type]
    members["manifest.json"] = json.dumps([image] * 700).encode()
    with pytest.raises(LimitError, match="more layers than"):
        open_archive("docker-archive", tar_of(tmp_path / "a.tar", members))


def test_archives_that_are_none_are_told_apart(layout: Path, tmp_path: Path) -> None:
    plain = archive_of(layout, tmp_path / "a.tar")
    cut = tmp_path / "cut.tar"
    cut.write_bytes(plain.read_bytes()[:3000])
    with pytest.raises(ContentError, match="no whole tar file"):
        open_archive("oci-archive", cut)
    (tmp_path / "text").write_text("hello" * 200)
    with pytest.raises(ContentError, match="no whole tar file"):
        open_archive("oci-archive", tmp_path / "text")
    with pytest.raises(ContentError, match="cannot be read"):
        open_archive("oci-archive", tmp_path / "gone.tar")
    with pytest.raises(ContentError, match="cannot be read"):
        open_archive("oci-archive", tmp_path)
    with pytest.raises(ContentError, match="cannot be read"):
        open_archive("oci-archive", "a\0b")
    with pytest.raises(ContentError, match="holds no OCI layout"):
        open_archive("oci-archive", tar_of(tmp_path / "b.tar", {"x": b""}))
    assert isinstance(open_archive("oci-archive", plain), OciArchive)
