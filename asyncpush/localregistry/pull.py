"""The reading half of OCI distribution, under ``/v2/``, and the download of layers by URL."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from asyncpush.localregistry.call import Arrival, Call, Services
from asyncpush.localregistry.errors import ApiError
from asyncpush.localregistry.identity import Registry, registry_of_host
from asyncpush.localregistry.images import (
    Image,
    get_image,
    get_tag,
    list_referrers,
    list_tags,
)
from asyncpush.localregistry.keys import Key
from asyncpush.localregistry.params import IMAGE_TAG, REPOSITORY_NAME, SHA256_DIGEST
from asyncpush.localregistry.repositories import (
    Repository,
    get_repository,
    layer_sizes,
    list_repositories,
)
from asyncpush.localregistry.requests import answer
from asyncpush.localregistry.store import Database
from asyncpush.oci.mediatypes import OCI_INDEX

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Action = Callable[[web.Request, Call], Awaitable[web.StreamResponse]]

_PAGE, _MOST = 100, 1000
_JSON = "application/json"
# Error codes of distribution-spec ("Error Codes") and the status that goes with them.
_CODES = {
    "RepositoryNotFoundException": ("NAME_UNKNOWN", 404),
    "AccessDeniedException": ("DENIED", 403),
}


class PullApi:
    """Answers reading requests of OCI distribution 1.1."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[web.RouteDef]:
        """The routes of this API; what else there is under ``/v2/`` is not supported."""
        name = "/v2/{name:.+}"
        return [
            web.get("/v2/", self._handler("v2.Ping", self._ping)),
            web.get("/v2/_catalog", self._handler("v2.ListRepositories", self._catalog)),
            web.get(f"{name}/manifests/{{ref}}", self._handler("v2.GetManifest", self._manifest)),
            web.get(f"{name}/blobs/{{digest}}", self._handler("v2.GetBlob", self._blob)),
            web.get(f"{name}/tags/list", self._handler("v2.ListTags", self._tags)),
            web.get(
                f"{name}/referrers/{{digest}}", self._handler("v2.ListReferrers", self._referrers)
            ),
            web.get("/layers/{account}/{region}/{digest}/{name:.+}", self._download),
            web.route("*", "/v2/{rest:.*}", self._handler("v2.Unsupported", _unsupported)),
        ]

    def _handler(self, action: str, act: Action) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            async def work(arrival: Arrival) -> web.StreamResponse:
                call = self._authenticate(request, arrival)
                call.record.repository = request.match_info.get("name")
                await call.admit(dict(request.match_info))
                return await act(request, call)

            return await answer(self._services, request, action, work, _fail)

        return handle

    def _authenticate(self, request: web.Request, arrival: Arrival) -> Call:
        services = self._services
        header = request.headers.get("Authorization")
        if header is None and services.options.anonymous_pull:
            registry = registry_of_host(request.host) or services.options.anonymous_registry
            nobody = Key("ANONYMOUS_PULLER_", "none", account=registry.account)
            call = Call(services, arrival, nobody, None, registry)
        else:
            token = None if header is None else services.tokens.read_basic(header)
            known = None if token is None else services.keyring.get(token.access_key_id)
            if token is None or known is None:
                raise ApiError("UNAUTHORIZED", "authentication required", 401)
            arrival.record.access_key_id = token.access_key_id
            call = Call(services, arrival, *known, token.registry)
        call.address(call.registry, None)
        return call

    async def _ping(self, _request: web.Request, _call: Call) -> web.StreamResponse:
        return _respond({})

    async def _catalog(self, request: web.Request, call: Call) -> web.StreamResponse:
        call.authorize("DescribeRepositories", "*")
        limit, last = _page(request)

        def work(db: Database) -> list[str]:
            with db.transaction() as connection:
                found = list_repositories(connection, call.registry, last, limit + 1)
            return [repository.name for repository in found]

        names = await self._services.store.run(work)
        return _respond_page(request, "repositories", names, limit, {})

    async def _tags(self, request: web.Request, call: Call) -> web.StreamResponse:
        name = _name(request)
        call.authorize("ListImages", name)
        limit, last = _page(request)

        def work(db: Database) -> list[str]:
            with db.transaction() as connection:
                repository = get_repository(connection, call.registry, name)
                return list_tags(connection, repository, last, limit + 1)

        tags = await self._services.store.run(work)
        return _respond_page(request, "tags", tags, limit, {"name": name})

    async def _manifest(self, request: web.Request, call: Call) -> web.StreamResponse:
        name, reference = _name(request), request.match_info["ref"]
        call.authorize("BatchGetImage", name)

        def work(db: Database) -> Image | None:
            with db.transaction() as connection:
                repository = get_repository(connection, call.registry, name)
                digest: str | None = reference
                if re.fullmatch(IMAGE_TAG, reference):
                    digest = get_tag(connection, repository, reference)
                return None if digest is None else get_image(connection, repository, digest)

        image = await self._services.store.run(work)
        if image is None:
            raise ApiError("MANIFEST_UNKNOWN", "Requested image not found", 404)
        headers = {"Content-Type": image.media_type, "Docker-Content-Digest": image.digest}
        return web.Response(body=image.body, headers=headers)

    async def _blob(self, request: web.Request, call: Call) -> web.StreamResponse:
        name, digest = _name(request), _digest(request)
        call.authorize("GetDownloadUrlForLayer", name)
        return await self._send_layer(call.registry, name, digest)

    async def _referrers(self, request: web.Request, call: Call) -> web.StreamResponse:
        name, digest = _name(request), _digest(request)
        call.authorize("BatchGetImage", name)

        def work(db: Database) -> list[Image]:
            with db.transaction() as connection:
                repository = get_repository(connection, call.registry, name)
                return list_referrers(connection, repository, digest)

        images = await self._services.store.run(work)
        headers = {"Content-Type": OCI_INDEX}
        wanted = request.query.get("artifactType")
        if wanted is not None:
            images = [image for image in images if image.artifact_type == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        manifests = [_descriptor(image) for image in images]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
        return _respond(index, headers=headers)

    async def _download(self, request: web.Request) -> web.StreamResponse:
        async def work(arrival: Arrival) -> web.StreamResponse:
            info = request.match_info
            registry = Registry(info["account"], info["region"])
            name, digest = _name(request), _digest(request)
            expires, signature = (request.query.get(k, "") for k in ("expires", "signature"))
            arrival.record.account, arrival.record.region = registry
            arrival.record.repository = name
            tokens = self._services.tokens
            if not tokens.allows_layer(registry, name, digest, expires, signature):
                raise ApiError("DENIED", "the URL is not signed, or has expired", 403)
            return await self._send_layer(registry, name, digest)

        return await answer(self._services, request, "layers.Download", work, _fail)

    async def _send_layer(self, registry: Registry, name: str, digest: str) -> web.StreamResponse:
        def work(db: Database) -> bool:
            with db.transaction() as connection:
                repository: Repository = get_repository(connection, registry, name)
                return bool(layer_sizes(connection, repository, [digest]))

        if not await self._services.store.run(work):
            raise ApiError("BLOB_UNKNOWN", "blob unknown to registry", 404)
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
        }
        return web.FileResponse(self._services.files.blob(digest), headers=headers)


async def _unsupported(request: web.Request, _call: Call) -> web.StreamResponse:
    raise ApiError(
        "UNSUPPORTED",
        "the local registry reads through /v2/ and writes through ECR's own API",
        405 if request.method not in ("GET", "HEAD") else 404,
    )


def _name(request: web.Request) -> str:
    name = request.match_info["name"]
    if not 2 <= len(name) <= 256 or not re.fullmatch(REPOSITORY_NAME, name):
        raise ApiError("NAME_INVALID", "invalid repository name", 400)
    return name


def _digest(request: web.Request) -> str:
    digest = request.match_info["digest"]
    if not re.fullmatch(SHA256_DIGEST, digest):
        raise ApiError("DIGEST_INVALID", "no sha256 digest", 400)
    return digest


def _page(request: web.Request) -> tuple[int, str]:
    number = request.query.get("n", str(_PAGE))
    if not re.fullmatch(r"[0-9]{1,9}", number):
        raise ApiError("PAGINATION_NUMBER_INVALID", "n is no number", 400)
    return min(int(number), _MOST), request.query.get("last", "")


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


def _respond_page(
    request: web.Request, member: str, found: list[str], limit: int, extra: dict[str, Any]
) -> web.StreamResponse:
    headers = {}
    page = found[:limit]
    if len(found) > limit and page:
        query = urlencode({"n": limit, "last": page[-1]})
        headers["Link"] = f'<{quote(request.path)}?{query}>; rel="next"'
    return _respond({**extra, member: page}, headers=headers)


def _respond(
    document: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> web.StreamResponse:
    headers = {
        "Content-Type": _JSON,
        "Docker-Distribution-API-Version": "registry/2.0",
        **(headers or {}),
    }
    return web.Response(body=json.dumps(document).encode(), status=status, headers=headers)


def _fail(error: ApiError) -> web.StreamResponse:
    code, status = _CODES.get(error.code, (error.code, error.status))
    if code == "ServerException":
        code = "UNKNOWN"
    headers = (
        {"WWW-Authenticate": 'Basic realm="asyncpush local registry"'} if status == 401 else {}
    )
    document = {"errors": [{"code": code, "message": error.message}]}
    return _respond(document, status, headers)
