"""Descriptors, manifests and indexes: hostile JSON raises this package's errors and no others."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncpush.errors import (
    AsyncpushError,
    DigestMismatchError,
    ManifestError,
    UnsupportedDigestError,
)
from asyncpush.oci import mediatypes as mt
from asyncpush.oci.descriptor import Platform, parse_descriptor
from asyncpush.oci.digest import compute
from asyncpush.oci.manifest import ImageIndex, ImageManifest, parse_manifest

GOOD: dict[str, Any] = {"mediaType": "text/plain", "digest": compute(b"hello"), "size": 5}
CONFIG = {**GOOD, "mediaType": mt.OCI_CONFIG}
MANIFEST: dict[str, Any] = {"schemaVersion": 2, "config": CONFIG, "layers": [GOOD]}
INDEX: dict[str, Any] = {"schemaVersion": 2, "manifests": [{**GOOD, "mediaType": mt.OCI_MANIFEST}]}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def spoiled(good: dict[str, Any], fields: dict[str, st.SearchStrategy[Any]]) -> Any:
    """Good documents of which up to two fields are replaced: they reach further than chaos does."""
    some = st.lists(st.sampled_from(sorted(fields)), max_size=2, unique=True)
    changes = some.flatmap(lambda names: st.fixed_dictionaries({n: fields[n] for n in names}))
    return changes.map(lambda change: {**good, **change})


DESCRIPTORS = spoiled(
    GOOD,
    {
        "mediaType": st.sampled_from([mt.OCI_MANIFEST, mt.OCI_INDEX]) | JSON,
        "digest": JSON,
        "size": JSON,
        "urls": st.lists(st.text(max_size=5), max_size=2) | JSON,
        "annotations": st.dictionaries(st.text(max_size=5), st.text(max_size=5)) | JSON,
        "platform": spoiled({"os": "linux", "architecture": "arm"}, {"os": JSON, "variant": JSON}),
        "artifactType": JSON,
        "data": st.just("aGVsbG8=") | st.text(max_size=8),
    },
)
_SHARED = {
    "schemaVersion": JSON,
    "mediaType": st.sampled_from([mt.OCI_MANIFEST, mt.OCI_INDEX]) | JSON,
    "subject": DESCRIPTORS,
    "artifactType": JSON,
    "annotations": JSON,
}
_LISTS = st.lists(DESCRIPTORS, max_size=2) | JSON
MANIFESTS = spoiled(
    MANIFEST, {**_SHARED, "config": DESCRIPTORS | JSON, "layers": _LISTS, "manifests": _LISTS}
) | spoiled(INDEX, {**_SHARED, "manifests": _LISTS, "layers": _LISTS})
MEDIA_TYPES = st.sampled_from([mt.OCI_MANIFEST, mt.OCI_INDEX, mt.DOCKER_MANIFEST, mt.DOCKER_LIST])


@given(DESCRIPTORS | JSON)
@settings(deadline=None)
def test_arbitrary_descriptors_raise_nothing_else(value: object) -> None:
    try:
        descriptor = parse_descriptor(value, "layers[0]")
    except AsyncpushError:
        return
    assert descriptor.size >= 0
    assert descriptor.data is None or compute(descriptor.data) == descriptor.digest


@given(MANIFESTS | JSON, MEDIA_TYPES)
@settings(deadline=None)
def test_arbitrary_manifests_raise_nothing_else(value: object, media_type: str) -> None:
    try:
        manifest = parse_manifest(json.dumps(value).encode(), media_type)
    except AsyncpushError:
        return
    assert isinstance(manifest, ImageIndex) == mt.is_index(media_type)


@given(st.binary(), MEDIA_TYPES)
@example(b"[" * 100_000, mt.OCI_INDEX)
@example(b'{"a":' * 100_000, mt.OCI_INDEX)
@example(b'{"schemaVersion": ' + b"9" * 5000 + b"}", mt.OCI_INDEX)
@example(b"\xff\xfe{}", mt.OCI_INDEX)
@example(b"\xef\xbb\xbf{}", mt.OCI_INDEX)
@settings(deadline=None)
def test_arbitrary_bytes_are_no_manifest(raw: bytes, media_type: str) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(raw, media_type)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mediaType": None}, "mediaType is missing"),
        ({"mediaType": ""}, "mediaType is missing"),
        ({"size": -1}, "size is -1"),
        ({"size": True}, "size is True"),
        ({"size": 5.0}, "size is 5.0"),
        ({"size": "5"}, "size is '5'"),
        ({"urls": "https://example.com"}, "urls is no list"),
        ({"urls": [1]}, "urls is no list"),
        ({"annotations": {"a": 1}}, "annotations is no object of texts"),
        ({"platform": "linux/amd64"}, "platform is no object"),
        ({"platform": {"os": "linux"}}, "platform needs os and architecture"),
        (
            {"platform": {"os": "linux", "architecture": "arm", "variant": 7}},
            "platform.variant is no text",
        ),
        ({"artifactType": 1}, "artifactType is no text"),
        ({"data": 5}, "data is no base64 text"),
        ({"data": "aGVsbG8"}, "data is no base64 text"),
        ({"data": "aGVs bG8="}, "data is no base64 text"),
        ({"data": "ä"}, "data is no base64 text"),
    ],
)
def test_a_bad_field_is_named_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=rf"^layers\[7\]\.{message}"):
        parse_descriptor({**GOOD, **change}, "layers[7]")


@pytest.mark.parametrize("value", [None, True, 5, 5.5, "text", []])
def test_what_is_no_object_is_no_descriptor(value: object) -> None:
    with pytest.raises(ManifestError, match="config is no descriptor but"):
        parse_descriptor(value, "config")


def test_a_missing_digest_is_said_to_be_missing() -> None:
    with pytest.raises(ManifestError, match=r"config\.digest is missing"):
        parse_descriptor({"mediaType": "text/plain", "size": 5}, "config")
    with pytest.raises(UnsupportedDigestError):
        parse_descriptor({**GOOD, "digest": None}, "config")


def test_embedded_data_is_decoded_and_proven() -> None:
    assert parse_descriptor({**GOOD, "data": "aGVsbG8="}, "config").data == b"hello"
    empty = {"mediaType": "a/b", "digest": compute(b""), "size": 0, "data": ""}
    assert parse_descriptor(empty, "config").data == b""


@pytest.mark.parametrize("data", [b"hellO", b"hello!", b""])
def test_embedded_data_that_is_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(DigestMismatchError, match=r"^layers\[0\].data: content has"):
        parse_descriptor({**GOOD, "data": base64.b64encode(data).decode()}, "layers[0]")


@pytest.mark.parametrize(
    ("media_type", "urls", "foreign"),
    [
        (mt.DOCKER_FOREIGN_LAYER, ["https://example.com"], True),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", ["https://e.com"], True),
        (mt.DOCKER_FOREIGN_LAYER, [], False),
        (mt.OCI_LAYER_GZIP, ["https://example.com"], False),
    ],
)
def test_a_foreign_layer_needs_its_media_type_and_urls(
    media_type: str, urls: list[str], foreign: bool
) -> None:
    descriptor = parse_descriptor({**GOOD, "mediaType": media_type, "urls": urls}, "layers[0]")
    assert descriptor.is_foreign is foreign


def test_platforms_read_as_people_write_them() -> None:
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8", "os.version": "1"}
    assert str(parse_descriptor({**GOOD, "platform": platform}, "m").platform) == "linux/arm64/v8"
    platform["variant"] = ""
    assert parse_descriptor({**GOOD, "platform": platform}, "m").platform == Platform(
        "linux", "arm64"
    )


@pytest.mark.parametrize(
    ("document", "media_type", "message"),
    [
        ([], mt.OCI_MANIFEST, "it is JSON but no object"),
        ({}, mt.OCI_MANIFEST, "schemaVersion is None, not 2"),
        ({**MANIFEST, "schemaVersion": 1}, mt.OCI_MANIFEST, "schemaVersion is 1, not 2"),
        (MANIFEST, "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1 cannot"),
        (MANIFEST, "application/vnd.docker.distribution.manifest.v1+json", "schema 1 cannot"),
        (MANIFEST, "application/json", "application/json is no manifest's"),
        ({**MANIFEST, "mediaType": mt.DOCKER_MANIFEST}, mt.OCI_MANIFEST, "its descriptor says"),
        ({**MANIFEST, "mediaType": mt.OCI_MANIFEST}, mt.OCI_INDEX, "its descriptor says"),
        ({**MANIFEST, **INDEX}, mt.OCI_MANIFEST, "both manifests and layers"),
        ({**INDEX, "layers": []}, mt.OCI_INDEX, "both manifests and layers"),
        ({**INDEX, "config": CONFIG}, mt.OCI_INDEX, "both manifests and layers"),
        ({"schemaVersion": 2, "layers": []}, mt.OCI_MANIFEST, "config is missing"),
        ({"schemaVersion": 2, "config": CONFIG}, mt.OCI_MANIFEST, "layers is missing or no list"),
        ({**MANIFEST, "layers": {}}, mt.OCI_MANIFEST, "layers is missing or no list"),
        ({"schemaVersion": 2}, mt.OCI_INDEX, "manifests is missing or no list"),
        ({**MANIFEST, "artifactType": 1}, mt.OCI_MANIFEST, "artifactType is no text"),
        ({**MANIFEST, "annotations": []}, mt.OCI_MANIFEST, "annotations is no object"),
        ({**MANIFEST, "subject": "x"}, mt.OCI_MANIFEST, "subject is no descriptor"),
    ],
)
def test_a_manifest_that_breaks_its_specification_is_refused(
    document: object, media_type: str, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        parse_manifest(json.dumps(document).encode(), media_type)


@pytest.mark.parametrize(
    ("change", "artifact"),
    [
        ({}, False),
        ({"artifactType": ""}, False),
        ({"config": {**CONFIG, "mediaType": mt.DOCKER_CONFIG}}, False),
        ({"artifactType": "application/spdx+json"}, True),
        ({"config": {**CONFIG, "mediaType": "application/vnd.cncf.helm.config.v1+json"}}, True),
    ],
)
def test_an_artifact_is_told_by_its_config_or_its_artifact_type(
    change: dict[str, Any], artifact: bool
) -> None:
    manifest = parse_manifest(json.dumps({**MANIFEST, **change}).encode(), mt.OCI_MANIFEST)
    assert isinstance(manifest, ImageManifest)
    assert manifest.is_artifact is artifact
