"""Choosing an entry: by name, by digest at any depth, by platform."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncpush.errors import (
    DigestMismatchError,
    EntryNotFoundError,
    IndexCycleError,
    UsageError,
)
from asyncpush.oci import mediatypes as mt
from asyncpush.oci import select
from asyncpush.oci.descriptor import Platform
from asyncpush.oci.digest import Digest, compute
from asyncpush.oci.layout import Layout, read_manifest
from asyncpush.oci.select import (
    MAX_INDEX_DEPTH,
    check_nesting,
    entries_named,
    entry_by_digest,
    for_platform,
    parse_platform,
    whole_reference,
)
from asyncpush.oci.writer import LayoutWriter


def member(writer: LayoutWriter, *platform: str) -> dict[str, Any]:
    image = writer.image([], config={"for": "/".join(platform)})
    names = ("os", "architecture", "variant")
    return {**image, "platform": dict(zip(names, platform, strict=False))}


def nest(writer: LayoutWriter, descriptor: dict[str, Any], levels: int) -> dict[str, Any]:
    for _ in range(levels):
        descriptor = writer.index([descriptor])
    return descriptor


def test_a_missing_name_lists_the_known_ones(writer: LayoutWriter) -> None:
    for i in range(12):
        writer.entry(writer.image([], config={"n": i}), f"v{i:02}")
    layout = Layout(writer.close())
    assert [e.ref_name for e in entries_named(layout, "v07")] == ["v07"]
    with pytest.raises(EntryNotFoundError, match=r"no entry named 'v7'.*v00, v01.*v09 and 2 more"):
        entries_named(layout, "v7")


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("app", "docker.io/library/app:latest"),
        ("app:v1", "docker.io/library/app:v1"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/app:v1", "docker.io/library/app:v1"),
        ("localhost/app", "localhost/app:latest"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("registry.example/team/app:v1", "registry.example/team/app:v1"),
        (f"app@{compute(b'')}", f"docker.io/library/app@{compute(b'')}"),
    ],
)
def test_a_reference_names_the_image_that_docker_means(
    name: str, whole: str, writer: LayoutWriter
) -> None:
    assert whole_reference(name) == whole_reference(whole) == whole
    writer.entry(writer.image([]), whole)
    assert [e.ref_name for e in entries_named(Layout(writer.close()), name)] == [whole]


def test_a_name_that_is_there_counts_before_a_reference_that_it_may_mean(
    writer: LayoutWriter,
) -> None:
    for name in ("docker.io/library/app:latest", "app"):
        writer.entry(writer.image([]), name)
    assert [e.ref_name for e in entries_named(Layout(writer.close()), "app")] == ["app"]


def test_without_names_the_advice_is_to_choose_by_digest(writer: LayoutWriter) -> None:
    writer.entry(writer.image([]))
    with pytest.raises(EntryNotFoundError, match="choose by digest"):
        entries_named(Layout(writer.close()), "v1")


def test_all_entries_of_one_name_are_found(writer: LayoutWriter) -> None:
    images = [writer.entry(writer.image([], config={"n": n}), "same") for n in range(2)]
    found = entries_named(Layout(writer.close()), "same")
    assert [e.digest for e in found] == [i["digest"] for i in images]


def test_a_digest_finds_entries_and_members_of_nested_indexes(writer: LayoutWriter) -> None:
    inner, top = member(writer, "linux", "arm64"), writer.image([])
    middle = writer.index([inner])
    writer.entry(writer.index([middle]), "nested")
    writer.entry(top, "top")
    layout = Layout(writer.close())
    for wanted in (inner, middle, top):
        assert entry_by_digest(layout, Digest(wanted["digest"])).digest == wanted["digest"]
    with pytest.raises(EntryNotFoundError, match=compute(b"x")):
        entry_by_digest(layout, compute(b"x"))


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/arm", "linux/arm/v6"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_a_platform_chooses_its_image_at_any_depth(
    writer: LayoutWriter, wanted: str, got: str
) -> None:
    arm = writer.index([member(writer, "linux", "arm", v) for v in ("v6", "v7")])
    unknown = writer.image([], config={"attestation": 1})
    others = [member(writer, "linux", "amd64"), member(writer, "windows", "amd64")]
    writer.entry(writer.index([unknown, arm, *others]), "app")
    layout = Layout(writer.close())
    chosen = for_platform(layout, layout.entries[0], parse_platform(wanted))
    assert str(chosen.platform) == got


@pytest.mark.parametrize("wanted", ["linux/arm64", "linux/amd64/v3", "windows/amd64"])
def test_a_missing_platform_lists_the_offered_ones(writer: LayoutWriter, wanted: str) -> None:
    writer.entry(writer.index([member(writer, "linux", "amd64"), member(writer, "linux", "arm")]))
    layout = Layout(writer.close())
    with pytest.raises(EntryNotFoundError, match=f"{wanted} .*it has linux/amd64, linux/arm$"):
        for_platform(layout, layout.entries[0], parse_platform(wanted))


def test_an_image_is_its_own_answer_for_any_platform(writer: LayoutWriter) -> None:
    writer.entry(writer.image([]))
    layout = Layout(writer.close())
    assert for_platform(layout, layout.entries[0], Platform("plan9", "mips")) is layout.entries[0]


def test_an_index_without_platforms_says_so(writer: LayoutWriter) -> None:
    writer.entry(writer.index([writer.image([])]))
    layout = Layout(writer.close())
    with pytest.raises(EntryNotFoundError, match="it names no platforms"):
        for_platform(layout, layout.entries[0], Platform("linux", "amd64"))


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux//v8"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no platform.*linux/arm64/v8"):
        parse_platform(text)


def test_an_index_whose_bytes_lie_is_not_descended(writer: LayoutWriter) -> None:
    index = writer.entry(writer.index([member(writer, "linux", "amd64")]))
    path = writer.close() / "blobs" / index["digest"].replace(":", "/")
    path.write_bytes(path.read_bytes().replace(b"amd64", b"arm64"))
    layout = Layout(writer.root)
    with pytest.raises(DigestMismatchError):
        for_platform(layout, layout.entries[0], Platform("linux", "arm64"))


def test_a_ring_of_indexes_ends(writer: LayoutWriter) -> None:
    digest = compute(b"ring")
    ring = {"mediaType": mt.OCI_INDEX, "digest": digest, "size": 0}
    raw = json.dumps({"schemaVersion": 2, "manifests": [ring]}).encode()
    root = writer.close()
    (root / "blobs/sha256").mkdir()
    (root / "blobs" / digest.replace(":", "/")).write_bytes(raw)
    (root / "index.json").write_text(json.dumps({"manifests": [{**ring, "size": len(raw)}]}))
    with pytest.raises(DigestMismatchError):
        entry_by_digest(Layout(root), compute(b"x"))


def test_check_nesting_names_the_ring_and_the_depth() -> None:
    a, b, c = (compute(x) for x in (b"a", b"b", b"c"))
    check_nesting(c, (a, b))
    with pytest.raises(IndexCycleError, match=f"{b} -> {c} -> {b}"):
        check_nesting(b, (a, b, c))
    above = tuple(compute(str(i).encode()) for i in range(MAX_INDEX_DEPTH))
    check_nesting(a, above[1:])
    with pytest.raises(IndexCycleError, match=f"nest deeper than {MAX_INDEX_DEPTH}"):
        check_nesting(a, above)


def test_the_depth_of_nesting_is_bounded(writer: LayoutWriter) -> None:
    image = member(writer, "linux", "amd64")
    deepest = writer.entry(nest(writer, image, MAX_INDEX_DEPTH), "deepest")
    writer.entry(writer.index([deepest]), "too-deep")
    layout = Layout(writer.close())
    chosen = for_platform(layout, layout.entries[0], Platform("linux", "amd64"))
    assert chosen.digest == image["digest"]
    with pytest.raises(IndexCycleError):
        for_platform(layout, layout.entries[1], Platform("linux", "arm64"))


def test_indexes_that_are_named_twice_are_read_once(
    writer: LayoutWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = iter(range(2 * MAX_INDEX_DEPTH))  # 2 to the power of the depth if all were followed
    monkeypatch.setattr(select, "read_manifest", lambda s: (next(reads), read_manifest(s))[1])
    index = writer.index([member(writer, "linux", "amd64")])
    for _ in range(MAX_INDEX_DEPTH - 1):
        index = writer.index([index, index])
    writer.entry(index)
    layout = Layout(writer.close())
    with pytest.raises(EntryNotFoundError):
        entry_by_digest(layout, compute(b"x"))
    with pytest.raises(EntryNotFoundError):
        for_platform(layout, layout.entries[0], Platform("linux", "arm64"))
