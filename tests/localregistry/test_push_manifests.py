"""Manifests over the OCI distribution API: what they need, and what an immutable tag means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oci_driver import Oci, error_of, log_in, push_blob, push_small_image, put_manifest, serving
from registry_driver import (
    INDEX_TYPE,
    MANIFEST_TYPE,
    NAME,
    SMALL_PARTS,
    descriptor,
    manifest_text,
    push_image,
    sha256,
)

from asyncpush.localregistry import RunningRegistry
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES

pytestmark = pytest.mark.anyio


@pytest.fixture
async def oci(registry: RunningRegistry, ecr: Any) -> AsyncIterator[Oci]:
    """A session with a token."""
    async with await log_in(ecr, registry.url) as session:
        yield session


async def small_manifest(oci: Oci, seed: str = "1", **more: Any) -> str:
    """Text of a manifest whose blobs are there."""
    config = await push_blob(oci, NAME, f"config {seed}".encode())
    return manifest_text(config, [descriptor(await push_blob(oci, NAME, seed.encode()))], **more)


async def test_manifest_by_tag_is_there_for_both_apis_byte_for_byte(ecr: Any, oci: Oci) -> None:
    text = await small_manifest(oci)
    async with await put_manifest(oci, NAME, "v1", text, MANIFEST_TYPE) as response:
        assert response.status == 201
        assert response.headers["Location"] == f"/v2/{NAME}/manifests/{sha256(text)}"
        assert response.headers["Docker-Content-Digest"] == sha256(text)
        assert "OCI-Subject" not in response.headers
    (image,) = (await ecr.batch_get_image(repositoryName=NAME, imageIds=[{"imageTag": "v1"}]))[
        "images"
    ]
    assert image["imageManifest"] == text
    assert image["imageManifestMediaType"] == MANIFEST_TYPE
    for reference in ("v1", sha256(text)):
        async with oci.head(f"/v2/{NAME}/manifests/{reference}") as response:
            assert (response.status, await response.read()) == (200, b"")
            assert response.headers["Docker-Content-Digest"] == sha256(text)
            assert response.headers["Content-Length"] == str(len(text))
            assert response.headers["Content-Type"] == MANIFEST_TYPE


async def test_manifest_by_digest_has_no_tag_and_must_have_that_digest(ecr: Any, oci: Oci) -> None:
    text = await small_manifest(oci)
    async with await put_manifest(oci, NAME, sha256("x"), text, MANIFEST_TYPE) as response:
        assert await error_of(response) == (400, "DIGEST_INVALID")
    async with await put_manifest(oci, NAME, sha256(text), text, MANIFEST_TYPE) as response:
        assert response.status == 201
    found = await ecr.list_images(repositoryName=NAME)
    assert found["imageIds"] == [{"imageDigest": sha256(text)}]


async def test_putting_it_again_is_a_success(registry: RunningRegistry, ecr: Any, oci: Oci) -> None:
    await push_image(ecr, "1", "v1")
    for _ in range(2):
        await push_small_image(oci, NAME, "1", "v1")
    assert registry.calls.counters.errors == {}


async def test_blobs_and_children_must_be_there(oci: Oci) -> None:
    config = await push_blob(oci, NAME, b"config")
    text = manifest_text(config, [descriptor(sha256(b"absent"))])
    async with await put_manifest(oci, NAME, "v1", text, MANIFEST_TYPE) as response:
        assert await error_of(response) == (404, "MANIFEST_BLOB_UNKNOWN")
    index = '{"schemaVersion": 2, "manifests": [{"mediaType": "%s", "digest": "%s", "size": 1}]}'
    text = index % (MANIFEST_TYPE, sha256("absent"))
    async with await put_manifest(oci, NAME, "v1", text, INDEX_TYPE) as response:
        assert await error_of(response) == (404, "MANIFEST_BLOB_UNKNOWN")
    _, child = await push_small_image(oci, NAME, "1")
    text = index % (MANIFEST_TYPE, child)
    async with await put_manifest(oci, NAME, "v1", text, INDEX_TYPE) as response:
        assert response.status == 201


async def test_immutable_tag_stays_where_it_is(ecr: Any, oci: Oci) -> None:
    await ecr.put_image_tag_mutability(repositoryName=NAME, imageTagMutability="IMMUTABLE")
    _, image = await push_small_image(oci, NAME, "1", "v1")
    await push_small_image(oci, NAME, "1", "v1")
    text = await small_manifest(oci, "2")
    async with await put_manifest(oci, NAME, "v1", text, MANIFEST_TYPE) as response:
        assert "immutable" in await response.text()
        assert await error_of(response) == (400, "TAG_INVALID")
    assert (await ecr.list_images(repositoryName=NAME))["imageIds"] == [
        {"imageDigest": image, "imageTag": "v1"}
    ]


async def test_subject_is_told_and_its_referrers_listed(oci: Oci) -> None:
    _, image = await push_small_image(oci, NAME, "1", "v1")
    text = await small_manifest(oci, "2", subject=descriptor(image, MANIFEST_TYPE))
    async with await put_manifest(oci, NAME, sha256(text), text, MANIFEST_TYPE) as response:
        assert response.headers["OCI-Subject"] == image
    async with oci.get(f"/v2/{NAME}/referrers/{image}") as response:
        assert [m["digest"] for m in (await response.json())["manifests"]] == [sha256(text)]


@pytest.mark.parametrize(
    ("reference", "text", "media_type", "status", "code"),
    [
        ("v1", "{", MANIFEST_TYPE, 400, "MANIFEST_INVALID"),
        ("v1", "", MANIFEST_TYPE, 400, "MANIFEST_INVALID"),
        ("v1", "{}", "text/plain", 400, "MANIFEST_INVALID"),
        ("v1", " " * (MAX_MANIFEST_BYTES + 1), MANIFEST_TYPE, 413, "SIZE_INVALID"),
        (".v1", "{}", MANIFEST_TYPE, 400, "TAG_INVALID"),
        ("v" * 301, "{}", MANIFEST_TYPE, 400, "TAG_INVALID"),
        ("sha256:12", "{}", MANIFEST_TYPE, 400, "DIGEST_INVALID"),
    ],
)
async def test_what_is_no_manifest_is_refused(
    oci: Oci, reference: str, text: str, media_type: str, status: int, code: str
) -> None:
    async with await put_manifest(oci, NAME, reference, text, media_type) as response:
        assert await error_of(response) == (status, code)


async def test_without_a_content_type_the_manifest_says_what_it_is(oci: Oci) -> None:
    text = await small_manifest(oci)
    skip = {"skip_auto_headers": ["Content-Type"]}
    async with oci.put(f"/v2/{NAME}/manifests/v1", data=text.encode(), **skip) as response:  # type: ignore[arg-type]
        assert response.status == 201
    async with oci.head(f"/v2/{NAME}/manifests/v1") as response:
        assert response.headers["Content-Type"] == MANIFEST_TYPE


async def test_missing_repository_is_told(oci: Oci) -> None:
    text = await small_manifest(oci)
    async with await put_manifest(oci, "not/there", "v1", text, MANIFEST_TYPE) as response:
        assert await error_of(response) == (404, "NAME_UNKNOWN")


async def test_artifacts_can_be_refused_as_by_the_other_api(tmp_path: Path) -> None:
    options = replace(SMALL_PARTS, refuse_artifacts=True)
    async with serving(tmp_path, options=options) as (_, ecr, oci):
        await ecr.create_repository(repositoryName=NAME)
        text = await small_manifest(oci, artifactType="a/sbom")
        async with await put_manifest(oci, NAME, "v1", text, MANIFEST_TYPE) as response:
            assert await error_of(response) == (400, "MANIFEST_INVALID")
