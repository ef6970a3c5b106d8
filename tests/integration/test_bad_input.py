"""Each bad input is one clear line and an exit code, and the images beside it are pushed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import HOST, Served, asyncpush, environment, error_lines

from asyncpush.oci import mediatypes
from asyncpush.oci.digest import Digest
from asyncpush.oci.writer import JsonDescriptor, LayoutWriter

Break = Callable[[LayoutWriter, Path], Any]


def blob_path(root: Path, descriptor: JsonDescriptor) -> Path:
    return root / "blobs" / descriptor["digest"].replace(":", "/")


def good_image(writer: LayoutWriter) -> str:
    image = writer.image([writer.blob(b"good layer", mediatypes.OCI_LAYER)])
    writer.entry(image, "good")
    return str(image["digest"])


def image_of(writer: LayoutWriter, data: bytes = b"bad layer", **changes: Any) -> JsonDescriptor:
    layer = {**writer.blob(data, mediatypes.OCI_LAYER), **changes}
    return writer.entry(writer.image([layer]), "bad")


def manifest_is_no_json(writer: LayoutWriter, root: Path) -> None:
    writer.entry(writer.blob(b"{no json", mediatypes.OCI_MANIFEST), "bad")


def size_lies(writer: LayoutWriter, root: Path) -> None:
    image_of(writer, size=4711)


def manifest_digest_lies(writer: LayoutWriter, root: Path) -> None:
    image = image_of(writer)
    path = blob_path(root, image)
    path.write_bytes(path.read_bytes().replace(b"linux", b"Linux").replace(b" ", b"\n", 1))


def layer_digest_lies(writer: LayoutWriter, root: Path) -> None:
    layer = writer.blob(b"honest layer", mediatypes.OCI_LAYER)
    blob_path(root, layer).write_bytes(b"lying  layer")
    writer.entry(writer.image([layer]), "bad")


def layer_is_absent(writer: LayoutWriter, root: Path) -> None:
    layer = writer.blob(b"absent layer", mediatypes.OCI_LAYER)
    writer.entry(writer.image([layer]), "bad")
    blob_path(root, layer).unlink()


def manifest_is_absent(writer: LayoutWriter, root: Path) -> None:
    blob_path(root, image_of(writer)).unlink()


def symlink_leads_out(writer: LayoutWriter, root: Path) -> None:
    layer = writer.blob(b"outside layer", mediatypes.OCI_LAYER)
    writer.entry(writer.image([layer]), "bad")
    outside = root.parent / "outside"
    blob_path(root, layer).rename(outside)
    blob_path(root, layer).symlink_to(outside)


def digest_climbs(writer: LayoutWriter, root: Path) -> None:
    image_of(writer, digest="sha256:../../../../etc/passwd")


def algorithm_is_unknown(writer: LayoutWriter, root: Path) -> None:
    image_of(writer, digest="md5:" + "0" * 32)


def layer_is_sha512(writer: LayoutWriter, root: Path) -> None:
    layer = writer.blob(b"long layer", mediatypes.OCI_LAYER, hash_name="sha512")
    writer.entry(writer.image([layer]), "bad")


def indexes_go_round(writer: LayoutWriter, root: Path) -> None:
    outer, inner = (Digest(f"sha256:{c * 64}") for c in "ab")
    for digest, child in ((outer, inner), (inner, outer)):
        descriptor = {"mediaType": mediatypes.OCI_INDEX, "digest": child, "size": 230}
        document = json.dumps({"schemaVersion": 2, "manifests": [descriptor]})
        path = root / "blobs" / digest.replace(":", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document.ljust(230))
    writer.entry({"mediaType": mediatypes.OCI_INDEX, "digest": outer, "size": 230}, "bad")


def manifest_is_too_large(writer: LayoutWriter, root: Path) -> None:
    layer = writer.blob(b"bad layer", mediatypes.OCI_LAYER)
    config = writer.document({}, mediatypes.OCI_CONFIG)
    padding = {"padding": "x" * (4 * 1024 * 1024)}
    writer.entry(writer.manifest(config, [layer], annotations=padding), "bad")


def layer_has_too_many_parts(writer: LayoutWriter, root: Path) -> None:
    size = 4200 * 10 * 1024 * 1024 + 1
    digest = "sha256:" + "c" * 64
    path = root / "blobs" / digest.replace(":", "/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, size)
    layer = {"mediaType": mediatypes.OCI_LAYER, "digest": digest, "size": size}
    writer.entry(writer.image([layer]), "bad")


def children_are_missing(writer: LayoutWriter, root: Path) -> None:
    image = writer.image([writer.blob(b"child", mediatypes.OCI_LAYER)], architecture="arm64")
    child = {**image, "platform": {"os": "linux", "architecture": "arm64"}}
    writer.entry(writer.index([child]), "bad")
    blob_path(root, image).unlink()


def layer_is_empty(writer: LayoutWriter, root: Path) -> None:
    image_of(writer, b"")


def schema_1(writer: LayoutWriter, root: Path) -> None:
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    writer.entry(writer.document({"schemaVersion": 1}, kind), "bad")


CASES: list[tuple[Break, tuple[str, ...]]] = [
    (manifest_is_no_json, ("it is no JSON", "line 1, column 2", "digest sha256:", "file ")),
    (size_lies, ("9 bytes", "4711", "digest sha256:", "file ")),
    (manifest_digest_lies, ("content has the digest sha256:", "file ")),
    (
        layer_digest_lies,
        ("call CompleteLayerUpload", "request id", "InvalidLayerException", "digest sha256:"),
    ),
    (layer_is_absent, ("does not hold this blob", "digest sha256:", "file ")),
    (manifest_is_absent, ("does not hold this blob", "digest sha256:", "file ")),
    (symlink_leads_out, ("leads out of the layout", "outside", "digest sha256:")),
    (digest_climbs, ("not a digest", "../../../../etc/passwd")),
    (algorithm_is_unknown, ("algorithm md5 is unknown",)),
    (layer_is_sha512, ("takes no sha512 digests", "digest sha512:")),
    (indexes_go_round, ("leads back to itself", "a" * 64 + " -> sha256:" + "b" * 64)),
    (manifest_is_too_large, ("registries take at most 4194304", "digest sha256:", "file ")),
    (layer_has_too_many_parts, ("4,201 parts of 10 MiB", "at most 4,200", "--part-size")),
    (children_are_missing, ("lacks 1 of the index's 1 images", "linux/arm64", "--platform")),
    (layer_is_empty, ("EmptyUploadException", "zero bytes", "call CompleteLayerUpload")),
    (schema_1, ("schema 1 cannot be pushed", "digest sha256:")),
]


@pytest.mark.parametrize(("break_it", "words"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_bad_entry_is_one_line_and_the_other_image_is_pushed(
    registry: Served, tmp_path: Path, break_it: Break, words: tuple[str, ...]
) -> None:
    name = break_it.__name__.replace("_", "-")
    target = registry.create(name)
    writer = LayoutWriter(tmp_path / "layout")
    break_it(writer, tmp_path / "layout")
    good = good_image(writer)
    writer.close()

    done = asyncpush("push", tmp_path / "layout", target, env=environment(registry.url))

    (line,) = error_lines(done)
    assert f"bad -> {target}:bad" in line
    for word in words:
        assert word in line
    assert done.returncode == 1
    assert registry.digests(name) == {"good": good}


def without_oci_layout(root: Path) -> None:
    (root / "oci-layout").unlink()


def with_version_2(root: Path) -> None:
    (root / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')


def with_version_that_is_no_json(root: Path) -> None:
    (root / "oci-layout").write_text("1.0.0")


def with_index_that_is_no_json(root: Path) -> None:
    (root / "index.json").write_text("{")


def with_index_that_names_no_size(root: Path) -> None:
    digest = "sha256:" + "0" * 64
    entry = {"mediaType": mediatypes.OCI_MANIFEST, "digest": digest}
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def with_index_that_leads_out(root: Path) -> None:
    (root / "index.json").rename(root.parent / "index.json")
    (root / "index.json").symlink_to(root.parent / "index.json")


SOURCES: list[tuple[Callable[[Path], None], str]] = [
    (without_oci_layout, "it has no file oci-layout"),
    (with_version_2, "imageLayoutVersion is '2.0.0'"),
    (with_version_that_is_no_json, "oci-layout: it is no JSON"),
    (with_index_that_is_no_json, "index.json: it is no JSON"),
    (with_index_that_names_no_size, "manifests[0].size is None"),
    (with_index_that_leads_out, "leads out of the layout"),
]


@pytest.mark.parametrize(("break_it", "words"), SOURCES, ids=lambda v: getattr(v, "__name__", ""))
def test_bad_source_is_one_line_and_the_other_source_is_pushed(
    registry: Served, tmp_path: Path, break_it: Callable[[Path], None], words: str
) -> None:
    name = break_it.__name__.replace("_", "-")
    target = registry.create(name)
    for folder in ("bad", "good"):
        writer = LayoutWriter(tmp_path / folder)
        good = good_image(writer)
        writer.close()
    break_it(tmp_path / "bad")

    done = asyncpush(
        "push", tmp_path / "bad", tmp_path / "good", target, env=environment(registry.url)
    )

    (line,) = error_lines(done)
    assert words in line
    assert "file " in line
    assert done.returncode == 1
    assert registry.digests(name) == {"good": good}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-entry", f"{HOST}/bad"], "does not exist"),
        (["LAYOUT:nothing", f"{HOST}/bad"], "no entry named 'nothing'"),
        (["LAYOUT", "docker.io/library/alpine"], "no ECR reference"),
        (["LAYOUT", f"{HOST}/Upper"], "no repository named 'Upper'"),
        (["LAYOUT", f"{HOST}/bad:sp ace"], "no tag 'sp ace'"),
        (["LAYOUT", f"{HOST}/bad@sha256:123"], "64 lower-case hex digits"),
        (["LAYOUT", f"{HOST}/bad", "--platform", "linux"], "'linux' is no platform"),
        (["LAYOUT", f"{HOST}/bad", "--part-size", "4"], "--part-size"),
        (["LAYOUT", f"{HOST}/bad", "--layers", "0"], "--layers"),
        (["LAYOUT", f"{HOST}/bad", "-q", "-v"], "exclude each other"),
        (["LAYOUT", f"{HOST}/bad", "--no-such-option"], "--no-such-option'; see asyncpush push"),
        (["LAYOUT"], "SOURCE"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    writer = LayoutWriter(tmp_path / "layout")
    good_image(writer)
    writer.close()
    arguments = [a.replace("LAYOUT", str(tmp_path / "layout")) for a in arguments]

    done = asyncpush("push", *arguments, env=environment("http://127.0.0.1:1"))

    (line,) = error_lines(done)
    assert words in line
    assert done.returncode == (1 if "does not exist" in words else 2)
    assert not done.stdout.startswith("{")


def test_digest_of_the_target_must_be_the_entrys(registry: Served, tmp_path: Path) -> None:
    target = registry.create("wrong-digest")
    writer = LayoutWriter(tmp_path / "layout")
    good_image(writer)
    writer.close()
    wrong = hashlib.sha256(b"another").hexdigest()
    source = f"{tmp_path / 'layout'}:good"

    done = asyncpush("push", source, f"{target}@sha256:{wrong}", env=environment(registry.url))

    (line,) = error_lines(done)
    assert "the target's digest is not the entry's" in line
    assert done.returncode == 2
    assert registry.digests("wrong-digest") == {}
