"""PutImage: a manifest comes by ECR's own API."""

from __future__ import annotations

from typing import Any

from asyncpush.localregistry.call import Call
from asyncpush.localregistry.ecr.images import image_document
from asyncpush.localregistry.errors import constraint
from asyncpush.localregistry.params import IMAGE_TAG, SHA256_DIGEST, Params
from asyncpush.localregistry.writing.manifests import commit, read_candidate
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES


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
    candidate = read_candidate(
        body, media_type, claimed, refuse_artifacts=call.services.options.refuse_artifacts
    )
    repository, image = await commit(call, name, candidate, tag)
    image_id = {"imageDigest": image.digest} | ({} if tag is None else {"imageTag": tag})
    return {"image": image_document(repository, image, image_id)}
