"""PutImage: a manifest is read, checked against what the repository holds, and kept as sent."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from asyncpush.errors import AsyncpushError
from asyncpush.localregistry.call import Call
from asyncpush.localregistry.errors import ApiError, constraint, invalid_parameter
from asyncpush.localregistry.images import Image, get_image, put_image
from asyncpush.localregistry.operations_images import image_document
from asyncpush.localregistry.operations_layers import layers_not_found
from asyncpush.localregistry.params import IMAGE_TAG, SHA256_DIGEST, Params
from asyncpush.localregistry.repositories import Repository, get_repository, layer_sizes
from asyncpush.localregistry.store import Database
from asyncpush.oci import mediatypes
from asyncpush.oci.digest import compute
from asyncpush.oci.manifest import (
    MAX_MANIFEST_BYTES,
    ImageManifest,
    Manifest,
    load_json,
    parse_manifest,
)


async def put(call: Call, params: Params) -> dict[str, Any]:
    """PutImage."""
    name = params.repository()
    body = params.text("imageManifest").encode()
    if len(body) > MAX_MANIFEST_BYTES:
        raise constraint(
            "imageManifest", f"must have length less than or equal to {MAX_MANIFEST_BYTES}"
        )
    media_type = params.optional_text("imageManifestMediaType")
    tag = params.optional_text("imageTag", IMAGE_TAG)
    claimed = params.optional_text("imageDigest", SHA256_DIGEST)
    call.authorize("PutImage", name)
    digest = str(compute(body))
    if claimed not in (None, digest):
        raise ApiError(
            "ImageDigestDoesNotMatchException",
            f"The image digest '{claimed}' does not match the digest '{digest}' that was "
            "calculated for the image manifest.",
        )
    manifest = _read_manifest(body, media_type)
    if call.services.options.refuse_artifacts:
        _refuse_artifact(manifest)
    now = call.services.options.clock()

    def work(db: Database) -> dict[str, Any]:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            if isinstance(manifest, ImageManifest):
                size = _check_layers(connection, repository, manifest)
            else:
                size = _check_children(connection, repository, manifest)
            image = _to_image(body, digest, manifest, size, now)
            put_image(connection, repository, image, tag)
        image_id = {"imageDigest": digest} | ({} if tag is None else {"imageTag": tag})
        return {"image": image_document(repository, image, image_id)}

    return await call.services.store.run(work)


def _read_manifest(body: bytes, media_type: str | None) -> Manifest:
    try:
        if media_type is None:
            media_type = _declared_media_type(body)
        manifest = parse_manifest(body, media_type)
    except AsyncpushError as exc:
        raise invalid_parameter(
            f"Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON "
            f"syntax or manifest: {exc.message}'"
        ) from exc
    for digest in _digests(manifest):
        if not digest.startswith("sha256:"):
            raise constraint("ImageManifest", f"digest '{digest}' is no sha256 digest")
    return manifest


def _declared_media_type(body: bytes) -> str:
    document = load_json(body)
    declared = document.get("mediaType")
    if isinstance(declared, str):
        return declared
    # OCI documents may leave their media type out (image-spec, manifest.md).
    return mediatypes.OCI_INDEX if "manifests" in document else mediatypes.OCI_MANIFEST


def _digests(manifest: Manifest) -> list[str]:
    if isinstance(manifest, ImageManifest):
        descriptors = [manifest.config, *manifest.layers]
    else:
        descriptors = [*manifest.manifests]
    if manifest.subject is not None:
        descriptors.append(manifest.subject)
    return [str(descriptor.digest) for descriptor in descriptors]


def _refuse_artifact(manifest: Manifest) -> None:
    if manifest.is_artifact or manifest.subject is not None:
        raise invalid_parameter(
            "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON "
            "syntax'"
        )


def _check_layers(db: sqlite3.Connection, repository: Repository, manifest: ImageManifest) -> int:
    needed = [d for d in (manifest.config, *manifest.layers) if not d.is_foreign]
    digests = list(dict.fromkeys(str(descriptor.digest) for descriptor in needed))
    sizes = layer_sizes(db, repository, digests)
    lacking = [digest for digest in digests if digest not in sizes]
    if lacking:
        raise layers_not_found(lacking, repository.name, repository.registry.account)
    return sum(sizes.values())


def _check_children(db: sqlite3.Connection, repository: Repository, manifest: Manifest) -> int:
    size = 0
    lacking = []
    for digest in _children(manifest):
        child = get_image(db, repository, digest)
        if child is None:
            lacking.append(digest)
        else:
            size += child.image_size
    if lacking:
        raise ApiError(
            "ReferencedImagesNotFoundException",
            f"Images with digests '[{', '.join(lacking)}]' required for pushing image into "
            f"repository with name '{repository.name}' in the registry with id "
            f"'{repository.registry.account}' do not exist",
        )
    return size


def _children(manifest: Manifest) -> tuple[str, ...]:
    if isinstance(manifest, ImageManifest):
        return ()
    return tuple(dict.fromkeys(str(child.digest) for child in manifest.manifests))


def _to_image(body: bytes, digest: str, manifest: Manifest, image_size: int, now: float) -> Image:
    artifact_type = manifest.artifact_type
    # Distribution-spec, "Listing Referrers": without artifactType it is the config's media type.
    if artifact_type is None and isinstance(manifest, ImageManifest):
        artifact_type = manifest.config.media_type
    return Image(
        digest=digest,
        media_type=manifest.media_type,
        body=body,
        artifact_type=artifact_type,
        subject=None if manifest.subject is None else str(manifest.subject.digest),
        annotations=None if manifest.annotations is None else json.dumps(manifest.annotations),
        image_size=image_size,
        pushed=now,
        children=_children(manifest),
    )
