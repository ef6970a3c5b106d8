"""The operations on layers, but for UploadLayerPart, whose body is read as it comes."""

from __future__ import annotations

import re
from typing import Any

from asyncpush.localregistry.call import Call, find_session
from asyncpush.localregistry.content.repositories import get_repository, layer_sizes
from asyncpush.localregistry.content.store import Database
from asyncpush.localregistry.content.uploads import Session
from asyncpush.localregistry.errors import ApiError, layers_not_found
from asyncpush.localregistry.params import SHA256_DIGEST, UPLOAD_ID, Params, check_text
from asyncpush.localregistry.writing.finishing import check_not_empty, check_parts, finish_upload


async def check_availability(call: Call, params: Params) -> dict[str, Any]:
    """BatchCheckLayerAvailability."""
    name = params.repository()
    digests = list(dict.fromkeys(params.required_items("layerDigests", str, 100)))
    for digest in digests:
        check_text("layerDigests", digest or " ", most=1000)
    call.authorize("BatchCheckLayerAvailability", name)
    valid = [d for d in digests if re.fullmatch(SHA256_DIGEST, d)]

    def work(db: Database) -> dict[str, int]:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            return layer_sizes(connection, repository, valid)

    sizes = await call.services.store.run(work)
    layers = [_availability(digest, sizes.get(digest)) for digest in valid]
    failures = [_failure(digest) for digest in digests if digest not in set(valid)]
    return {"layers": layers, "failures": failures}


async def initiate(call: Call, params: Params) -> dict[str, Any]:
    """InitiateLayerUpload."""
    name = params.repository()
    call.authorize("InitiateLayerUpload", name)
    services = call.services

    def work(db: Database) -> Session:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
        return services.uploads.begin(db, repository)

    session = await services.store.run(work)
    call.record.upload_id = session.id
    return {"uploadId": session.id, "partSize": services.options.part_size}


async def complete(call: Call, params: Params) -> dict[str, Any]:
    """CompleteLayerUpload: prove the layer's digest and make it a layer of the repository."""
    name = params.repository()
    upload_id = params.text("uploadId", UPLOAD_ID)
    digests = params.required_items("layerDigests", str, 100)
    for digest in digests:
        check_text("layerDigests", digest, SHA256_DIGEST)
    call.record.upload_id = upload_id
    call.authorize("CompleteLayerUpload", name)
    session = await find_session(call, name, upload_id)
    async with session.lock:
        call.services.uploads.check_open(session)
        check_not_empty(session)
        check_parts(session, call.services.options.min_part_size)
        found, added = await finish_upload(call, session, digests)
    if not added:
        raise ApiError(
            "LayerAlreadyExistsException",
            f"Layer with digest '{found}' already exists in the repository with name '{name}' in "
            f"the registry with id '{call.registry.account}'",
        )
    return {
        "registryId": call.registry.account,
        "repositoryName": name,
        "uploadId": session.id,
        "layerDigest": found,
    }


async def get_download_url(call: Call, params: Params) -> dict[str, Any]:
    """GetDownloadUrlForLayer."""
    name = params.repository()
    digest = params.text("layerDigest", SHA256_DIGEST)
    call.authorize("GetDownloadUrlForLayer", name)
    services = call.services

    def work(db: Database) -> None:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            if not layer_sizes(connection, repository, [digest]):
                raise layers_not_found([digest], name, call.registry.account)

    await services.store.run(work)
    expires = int(services.options.clock() + services.options.download_url_lifetime)
    path = services.tokens.layer_path(call.registry, name, digest, expires)
    return {"downloadUrl": f"{services.url()}{path}", "layerDigest": digest}


def _availability(digest: str, size: int | None) -> dict[str, Any]:
    if size is None:
        return {"layerDigest": digest, "layerAvailability": "UNAVAILABLE"}
    return {"layerDigest": digest, "layerAvailability": "AVAILABLE", "layerSize": size}


def _failure(digest: str) -> dict[str, str]:
    code = "InvalidLayerDigest" if digest else "MissingLayerDigest"
    reason = "Invalid layer digest in request" if digest else "Layer digest is missing in request"
    return {"layerDigest": digest, "failureCode": code, "failureReason": reason}
