"""The reading half of OCI distribution, and the download of layers by URL."""

from __future__ import annotations

import json
import re
from typing import Any

from aiohttp import web

from asyncpush.localregistry.call import Arrival, Call, Services
from asyncpush.localregistry.content.images import (
    Image,
    get_image,
    get_tag,
    list_referrers,
    list_tags,
    record_pull,
)
from asyncpush.localregistry.content.repositories import (
    get_repository,
    layer_sizes,
    list_repositories,
)
from asyncpush.localregistry.content.store import Database
from asyncpush.localregistry.distribution.answers import (
    digest_of,
    name_of,
    page_of,
    respond,
    respond_empty,
    respond_page,
)
from asyncpush.localregistry.errors import ApiError
from asyncpush.localregistry.identity import Registry
from asyncpush.localregistry.params import IMAGE_TAG
from asyncpush.oci.mediatypes import OCI_INDEX

_BLOB_TYPE = "application/octet-stream"


async def ping(_request: web.Request, _call: Call) -> web.StreamResponse:
    """Whether the API is there and the caller known."""
    return respond({})


async def catalog(request: web.Request, call: Call) -> web.StreamResponse:
    """The registry's repositories."""
    call.authorize("DescribeRepositories", "*")
    limit, last = page_of(request)

    def work(db: Database) -> list[str]:
        with db.transaction() as connection:
            found = list_repositories(connection, call.registry, last, limit + 1)
        return [repository.name for repository in found]

    names = await call.services.store.run(work)
    return respond_page(request, "repositories", names, limit, {})


async def tags(request: web.Request, call: Call) -> web.StreamResponse:
    """A repository's tags."""
    name = name_of(request)
    call.authorize("ListImages", name)
    limit, last = page_of(request)

    def work(db: Database) -> list[str]:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            return list_tags(connection, repository, last, limit + 1)

    found = await call.services.store.run(work)
    return respond_page(request, "tags", found, limit, {"name": name})


async def manifest(request: web.Request, call: Call) -> web.StreamResponse:
    """A manifest by tag or digest; for HEAD aiohttp leaves the body out."""
    name, reference = name_of(request), request.match_info["ref"]
    call.authorize("BatchGetImage", name)
    now = call.services.options.clock()

    def work(db: Database) -> Image | None:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            digest: str | None = reference
            if re.fullmatch(IMAGE_TAG, reference):
                digest = get_tag(connection, repository, reference)
            image = None if digest is None else get_image(connection, repository, digest)
            if image is not None and request.method == "GET":
                record_pull(connection, repository, image.digest, now)
            return image

    image = await call.services.store.run(work)
    if image is None:
        raise ApiError("MANIFEST_UNKNOWN", "Requested image not found", 404)
    headers = {"Content-Type": image.media_type, "Docker-Content-Digest": image.digest}
    return web.Response(body=image.body, headers=headers)


async def blob(request: web.Request, call: Call) -> web.StreamResponse:
    """A blob, or a range of it."""
    name, digest = name_of(request), digest_of(request.match_info["digest"])
    call.authorize("GetDownloadUrlForLayer", name)
    return await _send_layer(call.services, call.registry, name, digest)


async def head_blob(request: web.Request, call: Call) -> web.StreamResponse:
    """Whether the repository has a blob, and its size."""
    name, digest = name_of(request), digest_of(request.match_info["digest"])
    call.authorize("BatchCheckLayerAvailability", name)
    size = await _size_of(call.services, call.registry, name, digest)
    headers = {"Content-Length": str(size), "Content-Type": _BLOB_TYPE, "Accept-Ranges": "bytes"}
    return respond_empty(200, headers | {"Docker-Content-Digest": digest})


async def referrers(request: web.Request, call: Call) -> web.StreamResponse:
    """The manifests whose subject is a digest."""
    name, digest = name_of(request), digest_of(request.match_info["digest"])
    call.authorize("BatchGetImage", name)

    def work(db: Database) -> list[Image]:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            return list_referrers(connection, repository, digest)

    images = await call.services.store.run(work)
    headers = {"Content-Type": OCI_INDEX}
    wanted = request.query.get("artifactType")
    if wanted is not None:
        images = [image for image in images if image.artifact_type == wanted]
        headers["OCI-Filters-Applied"] = "artifactType"
    manifests = [_descriptor(image) for image in images]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return respond(index, headers=headers)


async def download(
    request: web.Request, services: Services, arrival: Arrival
) -> web.StreamResponse:
    """A layer by a URL of GetDownloadUrlForLayer."""
    info = request.match_info
    registry = Registry(info["account"], info["region"])
    name, digest = name_of(request), digest_of(info["digest"])
    expires, signature = (request.query.get(k, "") for k in ("expires", "signature"))
    arrival.record.account, arrival.record.region = registry
    arrival.record.repository = name
    if not services.tokens.allows_layer(registry, name, digest, expires, signature):
        raise ApiError("DENIED", "the URL is not signed, or has expired", 403)
    return await _send_layer(services, registry, name, digest)


async def _send_layer(
    services: Services, registry: Registry, name: str, digest: str
) -> web.StreamResponse:
    await _size_of(services, registry, name, digest)
    headers = {"Content-Type": _BLOB_TYPE, "Docker-Content-Digest": digest}
    return web.FileResponse(services.files.blob(digest), headers=headers)


async def _size_of(services: Services, registry: Registry, name: str, digest: str) -> int:
    def work(db: Database) -> int | None:
        with db.transaction() as connection:
            repository = get_repository(connection, registry, name)
            return layer_sizes(connection, repository, [digest]).get(digest)

    size = await services.store.run(work)
    if size is None:
        raise ApiError("BLOB_UNKNOWN", "blob unknown to registry", 404)
    return size


def _descriptor(image: Image) -> dict[str, Any]:
    optional = {
        "artifactType": image.artifact_type,
        "annotations": None if image.annotations is None else json.loads(image.annotations),
    }
    return {
        "mediaType": image.media_type,
        "digest": image.digest,
        "size": len(image.body),
        **{name: value for name, value in optional.items() if value is not None},
    }
