"""Smaller indexes: some platforms, their attestations, always the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asyncpush.errors import EntryNotFoundError, ManifestError
from asyncpush.oci.digest import compute
from asyncpush.oci.layout import Layout, read_manifest
from asyncpush.oci.manifest import ImageIndex, parse_manifest
from asyncpush.oci.select import parse_platform
from asyncpush.oci.trim import trim
from asyncpush.oci.writer import LayoutWriter

PLATFORMS = ("linux/amd64", "linux/arm64/v8", "linux/s390x")


def image(writer: LayoutWriter, text: str) -> dict[str, Any]:
    keys = ("os", "architecture", "variant")
    built = writer.image([], config={"for": text})
    return {**built, "platform": dict(zip(keys, text.split("/"), strict=False))}


def attested(writer: LayoutWriter, subject: dict[str, Any]) -> dict[str, Any]:
    built = writer.image([], config={"about": subject["digest"]})
    return {
        **built,
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {
            "vnd.docker.reference.digest": subject["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        },
    }


@pytest.fixture
def layout(writer: LayoutWriter) -> Layout:
    images = [image(writer, platform) for platform in PLATFORMS]
    notes = [attested(writer, member) for member in images]
    writer.entry(writer.index([*images, *notes]), "v1")
    return Layout(writer.close())


def kept(layout: Layout, *platforms: str) -> tuple[Any, ImageIndex]:
    found = trim(layout, layout.entries[0], [parse_platform(p) for p in platforms])
    index = parse_manifest(read_manifest(layout.find_manifest(found.index)), found.index.media_type)
    assert isinstance(index, ImageIndex)
    return found, index


def test_platforms_stay_with_their_attestations(layout: Layout) -> None:
    found, index = kept(layout, "linux/amd64", "linux/arm64")
    platforms = [str(member.platform) for member in index.manifests]
    assert platforms == ["linux/amd64", "linux/arm64/v8", "unknown/unknown", "unknown/unknown"]
    about = {m.annotations["vnd.docker.reference.digest"] for m in index.manifests if m.annotations}
    assert about == {member.digest for member in index.manifests[:2]}
    assert found.kept == ("linux/amd64", "linux/arm64/v8")
    assert found.left_out == ("linux/s390x",)
    assert found.index.ref_name == "v1"
    assert found.index.digest != layout.entries[0].digest
    assert found.index.digest == compute(found.index.data)
    assert found.index.size == len(found.index.data)


def test_the_same_input_gives_the_same_bytes_in_any_order(layout: Layout) -> None:
    one = kept(layout, "linux/amd64", "linux/arm64")[0]
    two = kept(layout, "linux/arm64", "linux/amd64")[0]
    assert one.index == two.index
    # What is unknown to this package, and the order of keys, stay as they were.
    source = json.loads(read_manifest(layout.find_manifest(layout.entries[0])))
    smaller = json.loads(one.index.data)
    assert list(smaller) == list(source)
    assert [m for m in source["manifests"] if m in smaller["manifests"]] == smaller["manifests"]


def test_an_index_that_loses_nothing_keeps_its_digest(layout: Layout) -> None:
    found, _ = kept(layout, "linux/amd64", "linux/arm64", "linux/s390x")
    assert found.index is layout.entries[0]
    assert found.left_out == ()


def test_an_image_is_no_index_and_stays(writer: LayoutWriter) -> None:
    writer.entry(writer.image([]), "v1")
    layout = Layout(writer.close())
    assert trim(layout, layout.entries[0], [parse_platform("a/b")]).index is layout.entries[0]


def test_a_platform_that_is_not_there_is_named(layout: Layout) -> None:
    with pytest.raises(EntryNotFoundError, match=r"no image for linux/ppc64le.*it has linux/amd64"):
        kept(layout, "linux/amd64", "linux/ppc64le")


def test_members_without_a_platform_go_and_nested_indexes_are_refused(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "plain")
    bare = writer.image([], config={"n": 1})
    writer.entry(writer.index([image(writer, "linux/amd64"), bare]), "v1")
    found, index = kept(Layout(writer.close()), "linux/amd64")
    assert len(index.manifests) == 1
    assert found.left_out == (bare["digest"],)
    writer = LayoutWriter(tmp_path / "nested")
    inner = writer.index([image(writer, "linux/amd64")])
    writer.entry(writer.index([inner]), "v1")
    with pytest.raises(ManifestError, match="holds other indexes"):
        kept(Layout(writer.close()), "linux/amd64")
