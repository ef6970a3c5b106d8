"""A manifest on its way in, by either API: read, checked against its repository, kept as sent."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from asyncpush.errors import AsyncpushError
from asyncpush.localregistry.call import Call
from asyncpush.localregistry.content.images import Image, get_image, put_image
from asyncpush.localregistry.content.registries import get_replication, replicates_to
from asyncpush.localregistry.content.repositories import Repository, get_repository, layer_sizes
from asyncpush.localregistry.content.store import Database
from asyncpush.localregistry.errors import (
    ApiError,
    constraint,
    invalid_parameter,
    layers_not_found,
)
from asyncpush.localregistry.identity import Registry
from asyncpush.localregistry.replication.replications import add_replication
from asyncpush.oci import mediatypes
from asyncpush.oci.digest import compute
from asyncpush.oci.manifest import ImageManifest, Manifest, load_json, parse_manifest

FindRepository = Callable[[sqlite3.Connection, Registry, str], Repository]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A manifest as it was sent, before its repository is asked."""

    digest: str
    body: bytes
    manifest: Manifest

    @property
    def subject(self) -> str | None:
        """The digest of what it refers to."""
        subject = self.manifest.subject
        return None if subject is None else str(subject.digest)


def read_candidate(
    body: bytes, media_type: str | None, claimed: str | None, *, refuse_artifacts: bool
) -> Candidate:
    """Read a manifest.

    :param media_type: ``None`` for the one that the manifest declares.
    :param claimed: the digest that it is said to have, if any.
    :raises ApiError: ImageDigestDoesNotMatchException, InvalidParameterException.
    """
    digest = str(compute(body))
    if claimed not in (None, digest):
        raise ApiError(
            "ImageDigestDoesNotMatchException",
            f"The image digest '{claimed}' does not match the digest '{digest}' that was "
            "calculated for the image manifest.",
        )
    manifest = _read_manifest(body, media_type)
    if refuse_artifacts:
        _refuse_artifact(manifest)
    return Candidate(digest, body, manifest)


async def commit(
    call: Call,
    name: str,
    candidate: Candidate,
    tag: str | None,
    find: FindRepository = get_repository,
) -> tuple[Repository, Image]:
    """Keep a manifest, a tag for it, or both.

    :param find: gives the repository of that name.
    :raises ApiError: the repository, layers or images that it names are missing; nothing would
        be new; an immutable tag points elsewhere.
    """
    now = call.services.options.clock()

    def work(db: Database) -> tuple[Repository, Image, list[Registry]]:
        with db.transaction() as connection:
            repository = find(connection, call.registry, name)
            if isinstance(candidate.manifest, ImageManifest):
                size = _check_layers(connection, repository, candidate.manifest)
            else:
                size = _check_children(connection, repository, candidate.manifest)
            image = _to_image(candidate, size, now)
            put_image(connection, repository, image, tag)
            destinations = replicates_to(get_replication(connection, call.registry), name)
            for destination in destinations:
                add_replication(connection, repository, image.digest, tag, destination, now)
        return repository, image, destinations

    repository, image, destinations = await call.services.store.run(work)
    if destinations:
        call.services.replicator.wake()
    return repository, image


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
    digests = _blobs(manifest)
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


def _blobs(manifest: Manifest) -> tuple[str, ...]:
    if not isinstance(manifest, ImageManifest):
        return ()
    needed = [d for d in (manifest.config, *manifest.layers) if not d.is_foreign]
    return tuple(dict.fromkeys(str(descriptor.digest) for descriptor in needed))


def _children(manifest: Manifest) -> tuple[str, ...]:
    if isinstance(manifest, ImageManifest):
        return ()
    return tuple(dict.fromkeys(str(child.digest) for child in manifest.manifests))


def _to_image(candidate: Candidate, image_size: int, now: float) -> Image:
    manifest = candidate.manifest
    artifact_type = manifest.artifact_type
    # Distribution-spec, "Listing Referrers": without artifactType it is the config's media type.
    if artifact_type is None and isinstance(manifest, ImageManifest):
        artifact_type = manifest.config.media_type
    return Image(
        digest=candidate.digest,
        media_type=manifest.media_type,
        body=candidate.body,
        artifact_type=artifact_type,
        subject=candidate.subject,
        annotations=None if manifest.annotations is None else json.dumps(manifest.annotations),
        image_size=image_size,
        pushed=now,
        children=_children(manifest),
        blobs=_blobs(manifest),
    )
