"""The referrers tag scheme, for registries without the referrers API (distribution-spec 1.1)."""

from __future__ import annotations

import json
from typing import Any, Protocol

from asyncpush.errors import ManifestExistsError, ManifestsNotFoundError
from asyncpush.oci import digest as digests
from asyncpush.oci.digest import Digest
from asyncpush.oci.mediatypes import OCI_INDEX
from asyncpush.registries.base import TaggedManifest


class Manifests(Protocol):
    """What is needed of a transport."""

    async def get_manifest(self, repository: str, reference: str) -> TaggedManifest: ...

    async def put_manifest(
        self, repository: str, raw: bytes, media_type: str, digest: Digest, tag: str | None
    ) -> None: ...


async def add_referrer(
    manifests: Manifests,
    repository: str,
    subject: Digest,
    raw: bytes,
    media_type: str,
    digest: Digest,
) -> None:
    """Add a manifest to the index of its subject's referrers, unless it is there.

    Reads, changes and writes the index; whoever writes at the same moment may be lost, as the
    specification warns.
    """
    tag = f"{digests.algorithm(subject)}-{digests.encoded(subject)}"
    try:
        index = json.loads((await manifests.get_manifest(repository, tag)).raw)
    except ManifestsNotFoundError:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    if any(entry.get("digest") == digest for entry in index["manifests"]):
        return
    index["manifests"].append(_descriptor(raw, media_type, digest))
    written = json.dumps(index, separators=(",", ":")).encode()
    try:
        await manifests.put_manifest(repository, written, OCI_INDEX, digests.compute(written), tag)
    except ManifestExistsError:
        return


def _descriptor(raw: bytes, media_type: str, digest: Digest) -> dict[str, Any]:
    """The manifest's descriptor, with its artifact type and annotations as the API would tell."""
    document = json.loads(raw)
    config = document.get("config")
    kind = document.get("artifactType") or (config or {}).get("mediaType")
    descriptor: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": len(raw)}
    if kind:
        descriptor["artifactType"] = kind
    if document.get("annotations"):
        descriptor["annotations"] = document["annotations"]
    return descriptor
