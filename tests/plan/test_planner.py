"""The graph: everything once, in an order that never names what is not there yet."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from asyncpush.errors import (
    AsyncpushError,
    BlobMissingError,
    DigestMismatchError,
    IndexCycleError,
    LimitError,
    ManifestError,
    UnsupportedDigestError,
    UsageError,
)
from asyncpush.oci import mediatypes as mt
from asyncpush.oci.digest import compute
from asyncpush.oci.layout import BlobData, Layout
from asyncpush.oci.writer import LayoutWriter
from asyncpush.plan.graph import PlannedImage, RepositoryPlan
from asyncpush.plan.limits import MIB
from asyncpush.plan.planner import Planner
from asyncpush.plan.reference import Repository, parse_reference

REPOSITORY = parse_reference("111122223333.dkr.ecr.eu-west-1.amazonaws.com/app").repository
OTHER = Repository(REPOSITORY.registry, "other")


def add(planner: Planner, root: Path, repository: Repository = REPOSITORY) -> list[PlannedImage]:
    layout = Layout(root)
    return [
        planner.add(layout, entry, repository, (entry.ref_name,) if entry.ref_name else ())
        for entry in layout.entries
    ]


def planned(writer: LayoutWriter, **options: Any) -> RepositoryPlan:
    planner = Planner(**options)
    add(planner, writer.close())
    return planner.plan.repositories[REPOSITORY]


def blob_path(writer: LayoutWriter, descriptor: dict[str, Any]) -> Path:
    return writer.root / "blobs" / descriptor["digest"].replace(":", "/")


def test_shared_blobs_and_manifests_are_planned_once_for_each_repository(
    writer: LayoutWriter,
) -> None:
    base, own = writer.layer({"a": b"a"}), writer.layer({"b": b"b"})
    small, large = writer.image([base]), writer.image([base, own])
    writer.entry(small, "small")
    writer.entry(large, "large")
    writer.entry(large, "latest")
    writer.entry(writer.index([small, large]), "both")
    root, planner = writer.close(), Planner()
    images = [*add(planner, root), *add(planner, root, OTHER)]
    assert list(planner.plan.images()) == images
    assert set(planner.plan.repositories) == {REPOSITORY, OTHER}
    for graph in planner.plan.repositories.values():
        assert len(graph.blobs) == 4  # two configs, two layers
        assert len(graph.manifests) == 3
        assert set(graph.tags) == {"small", "large", "latest", "both"}
        assert list(graph.blobs_of(graph.images[1]))[1:] == [base["digest"], own["digest"]]
    assert images[0].reference == f"{REPOSITORY}:small"


def test_an_image_without_a_tag_is_named_by_its_digest(writer: LayoutWriter) -> None:
    image = writer.entry(writer.image([]))
    (planned_image,) = planned(writer).images
    assert (planned_image.name, planned_image.tags) == (image["digest"], ())
    assert planned_image.reference == f"{REPOSITORY}@{image['digest']}"


def test_children_come_before_their_index_and_subjects_before_referrers(
    writer: LayoutWriter,
) -> None:
    child, other = writer.image([]), writer.image([writer.layer({"a": b"a"})])
    subject = writer.index([child])
    sbom = writer.artifact("application/spdx+json", [], subject=subject)
    signature = writer.manifest(writer.blob(b"{}", mt.OCI_CONFIG), [], subject=sbom)
    root = writer.entry(writer.index([other, signature, child]), "all")
    graph = planned(writer)
    (image,) = graph.images
    expected = [other, child, subject, sbom, signature, root]
    assert image.manifests == tuple(m["digest"] for m in expected)
    assert graph.manifests[sbom["digest"]].needs == (subject["digest"],)
    artifacts = {m.digest for m in graph.manifests.values() if m.is_artifact}
    assert artifacts == {sbom["digest"], signature["digest"]}


def test_an_absent_subject_is_left_to_the_registry(writer: LayoutWriter) -> None:
    subject = writer.image([])
    artifact = writer.entry(writer.artifact("application/spdx+json", [], subject=subject))
    blob_path(writer, subject).unlink()
    (image,) = planned(writer).images
    assert image.manifests == (artifact["digest"],)


def test_missing_children_are_named_with_their_platforms(writer: LayoutWriter) -> None:
    images = [
        {**writer.image([], architecture=a), "platform": {"os": "linux", "architecture": a}}
        for a in ("amd64", "arm64", "s390x")
    ]
    writer.entry(writer.index(images))
    for image in images[1:]:
        blob_path(writer, image).unlink()
    with pytest.raises(
        BlobMissingError, match=r"lacks 2 of the index's 3.*linux/arm64.*--platform"
    ):
        planned(writer)


@pytest.mark.parametrize("include", [False, True])
def test_foreign_layers_are_left_out_unless_asked_for(writer: LayoutWriter, include: bool) -> None:
    own = writer.layer({"a": b"a"}, docker=True)
    foreign = writer.blob(b"windows", mt.DOCKER_FOREIGN_LAYER)
    writer.entry(writer.image([{**foreign, "urls": ["https://example.com"]}, own], docker=True))
    if not include:
        blob_path(writer, foreign).unlink()
    graph = planned(writer, include_foreign=include)
    assert (foreign["digest"] in graph.blobs) is include
    assert own["digest"] in graph.blobs


@pytest.mark.parametrize("where", ["layer", "manifest"])
def test_sha512_is_refused_before_anything_is_sent(writer: LayoutWriter, where: str) -> None:
    if where == "layer":
        writer.entry(writer.image([writer.blob(b"x", mt.OCI_LAYER, hash_name="sha512")]))
    else:
        raw = blob_path(writer, writer.image([])).read_bytes()
        writer.entry(writer.blob(raw, mt.OCI_MANIFEST, hash_name="sha512"))
    with pytest.raises(UnsupportedDigestError, match="takes no sha512 digests"):
        planned(writer)


@pytest.mark.parametrize(("part_size", "mib"), [(None, 42_000), (5 * MIB, 21_000)])
def test_a_layer_has_at_most_4200_parts(
    writer: LayoutWriter, part_size: int | None, mib: int
) -> None:
    def huge(size: int) -> None:
        layer = writer.blob(b"huge %d" % size, mt.OCI_LAYER)
        os.truncate(blob_path(writer, layer), size)  # sparse, it takes no space
        writer.entry(writer.image([{**layer, "size": size}]))

    huge(mib * MIB)
    assert len(planned(writer, part_size=part_size).blobs) == 2
    huge(mib * MIB + 1)
    with pytest.raises(LimitError, match=r"4,201 parts of .* at most 4,200.*--part-size"):
        planned(writer, part_size=part_size)


def test_two_images_cannot_have_one_tag(writer: LayoutWriter) -> None:
    first, second = (writer.image([], config={"n": n}) for n in range(2))
    writer.entry(first, "same")
    writer.entry(second, "same")
    with pytest.raises(UsageError, match=f"the tag same: {first['digest']} and {second['digest']}"):
        planned(writer)


def _layer_gone(writer: LayoutWriter, layer: dict[str, Any], image: dict[str, Any]) -> None:
    blob_path(writer, layer).unlink()


def _layer_cut(writer: LayoutWriter, layer: dict[str, Any], image: dict[str, Any]) -> None:
    os.truncate(blob_path(writer, layer), 3)


def _manifest_altered(writer: LayoutWriter, layer: dict[str, Any], image: dict[str, Any]) -> None:
    path = blob_path(writer, image)
    path.write_bytes(path.read_bytes().replace(b"schemaVersion", b"SchemaVersion"))


def _manifest_spaced(writer: LayoutWriter, layer: dict[str, Any], image: dict[str, Any]) -> None:
    path = blob_path(writer, image)
    path.write_bytes(path.read_bytes().replace(b'": ', b'" :'))  # the same JSON, as long


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (_layer_gone, BlobMissingError),
        (_layer_cut, DigestMismatchError),
        (_manifest_altered, DigestMismatchError),
        (_manifest_spaced, DigestMismatchError),
    ],
)
def test_an_image_that_fails_leaves_no_trace(
    writer: LayoutWriter, spoil: Any, kind: type[AsyncpushError]
) -> None:
    good = writer.image([writer.layer({"a": b"a"})])
    last = writer.layer({"b": b"b"})
    bad = writer.image([writer.layer({"c": b"c"}), last])
    writer.entry(writer.index([good, bad]), "bad")
    spoil(writer, last, bad)
    root, planner = writer.close(), Planner()
    with pytest.raises(kind) as caught:
        add(planner, root)
    assert caught.value.where["digest"] in (last["digest"], bad["digest"])
    assert planner.plan.repositories == {}


def test_one_blob_may_be_config_and_layer(writer: LayoutWriter) -> None:
    empty = writer.blob(b"{}", mt.OCI_EMPTY)
    artifact = writer.entry(writer.artifact("application/vnd.example", [empty, empty]))
    graph = planned(writer)
    assert list(graph.blobs) == [empty["digest"]]
    assert graph.manifests[artifact["digest"]].blobs == (empty["digest"],)


def test_one_digest_with_two_sizes_is_a_lie(writer: LayoutWriter) -> None:
    layer = writer.layer({"a": b"a"})
    writer.entry(writer.image([layer, {**layer, "size": layer["size"] + 1}]))
    with pytest.raises(DigestMismatchError, match="one descriptor says"):
        planned(writer)


def test_docker_and_unknown_media_types_stay_as_they_are(writer: LayoutWriter) -> None:
    docker = writer.image([writer.layer({"a": b"a"}, docker=True)], docker=True)
    docker_list = writer.entry(writer.index([docker], docker=True))
    odd = writer.blob(b"odd", "application/x-odd")
    custom = writer.entry(writer.manifest(writer.blob(b"{}", "application/x-config"), [odd]))
    graph = planned(writer)
    kinds = {digest: m.media_type for digest, m in graph.manifests.items()}
    assert kinds == {
        docker["digest"]: mt.DOCKER_MANIFEST,
        docker_list["digest"]: mt.DOCKER_LIST,
        custom["digest"]: mt.OCI_MANIFEST,
    }
    assert graph.manifests[custom["digest"]].is_artifact


def test_what_an_index_names_beside_manifests_is_a_blob(writer: LayoutWriter) -> None:
    image, note = writer.image([]), writer.blob(b"note", "text/plain")
    root = writer.entry(writer.index([note, image]))
    manifest = planned(writer).manifests[root["digest"]]
    assert (manifest.blobs, manifest.needs) == ((note["digest"],), (image["digest"],))


@pytest.mark.parametrize("kind", sorted(mt.SCHEMA_1))
def test_schema_1_is_refused_also_within_an_index(writer: LayoutWriter, kind: str) -> None:
    writer.entry(writer.index([writer.document({"schemaVersion": 1}, kind)]))
    with pytest.raises(ManifestError, match="schema 1 cannot be pushed"):
        planned(writer)


def test_embedded_manifests_and_blobs_need_no_files(writer: LayoutWriter) -> None:
    config = {"mediaType": mt.OCI_EMPTY, "digest": compute(b"{}"), "size": 2, "data": "e30="}
    artifact = writer.manifest(config, [config])
    raw = blob_path(writer, artifact).read_bytes()
    blob_path(writer, artifact).unlink()
    writer.entry(writer.index([{**artifact, "data": base64.b64encode(raw).decode()}]))
    graph = planned(writer)
    assert graph.blobs[compute(b"{}")].source == BlobData(b"{}")
    assert graph.manifests[artifact["digest"]].source == BlobData(raw)


def test_a_ring_of_indexes_is_named(writer: LayoutWriter) -> None:
    first, second = compute(b"first"), compute(b"second")
    for digest, named in ((first, second), (second, first)):
        child = {"mediaType": mt.OCI_INDEX, "digest": named, "size": 256}
        raw = json.dumps({"schemaVersion": 2, "manifests": [child]}).encode()
        path = blob_path(writer, {"digest": digest})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw.ljust(256))
    writer.entry({"mediaType": mt.OCI_INDEX, "digest": first, "size": 256})
    with pytest.raises(IndexCycleError, match=f"{first} -> {second} -> {first}"):
        planned(writer)


def test_indexes_that_nest_beyond_reason_are_refused(writer: LayoutWriter) -> None:
    index = writer.image([])
    for _ in range(129):
        index = writer.index([index, index])
    writer.entry(index)
    with pytest.raises(IndexCycleError, match="deeper than 128"):
        planned(writer)


def test_a_second_descriptor_that_lies_about_a_known_manifest_is_found(
    writer: LayoutWriter,
) -> None:
    image = writer.entry(writer.image([]), "honest")
    writer.entry({**image, "size": image["size"] + 1}, "liar")
    layout = Layout(writer.close())
    planner = Planner()
    planner.add(layout, layout.entries[0], REPOSITORY, ("honest",))
    with pytest.raises(DigestMismatchError, match="one descriptor says"):
        planner.add(layout, layout.entries[1], REPOSITORY, ("liar",))


def test_a_damaged_manifest_is_told_as_such_and_not_by_what_it_seems_to_lack(
    writer: LayoutWriter,
) -> None:
    layer = writer.blob(b"layer", mt.OCI_LAYER)
    image = writer.entry(writer.image([layer]), "v1")
    layout = Layout(writer.close())
    path = layout.root / "blobs" / image["digest"].replace(":", "/")
    wrong = compute(b"another layer")
    path.write_text(path.read_text().replace(layer["digest"], wrong))
    with pytest.raises(DigestMismatchError, match="content has the digest"):
        Planner().add(layout, layout.entries[0], REPOSITORY, ("v1",))


def test_a_subject_from_another_layout_of_the_push_comes_first(tmp_path: Path) -> None:
    first, second = LayoutWriter(tmp_path / "one"), LayoutWriter(tmp_path / "two")
    image = first.entry(first.image([]), "v1")
    artifact = second.entry(second.artifact("a/b", [], subject=image), "sbom")
    layouts = [Layout(first.close()), Layout(second.close())]
    planner = Planner()
    for layout in layouts:
        planner.add(layout, layout.entries[0], REPOSITORY, (str(layout.entries[0].ref_name),))
    (planned,) = [i for i in planner.plan.images() if i.root == artifact["digest"]]
    assert planned.manifests == (image["digest"], artifact["digest"])
