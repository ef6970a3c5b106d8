"""OCI distribution 1.1 under ``/v2/``: which call a request is, and what it goes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from asyncpush.localregistry.call import Arrival, Call, Services
from asyncpush.localregistry.distribution import pull, push_blobs, push_manifests
from asyncpush.localregistry.distribution.access import Access, Gate
from asyncpush.localregistry.distribution.answers import fail
from asyncpush.localregistry.errors import ApiError
from asyncpush.localregistry.faults import ConnectionDroppedError
from asyncpush.localregistry.requests import answer, has_body

_NO_HEAD = {"allow_head": False}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a request is.

    :param action: its name in the call log.
    :param rates: the actions of ECR's own API whose rates it counts against.
    """

    action: str
    act: Callable[[web.Request, Call], Awaitable[web.StreamResponse]]
    access: Access | None
    rates: tuple[str, ...] = ()


_PING = _Kind("v2.Ping", pull.ping, None)
_CATALOG = _Kind("v2.ListRepositories", pull.catalog, "catalog", ("DescribeRepositories",))
_TAGS = _Kind("v2.ListTags", pull.tags, "pull", ("ListImages",))
_REFERRERS = _Kind("v2.ListReferrers", pull.referrers, "pull", ("BatchGetImage",))
_GET_MANIFEST = _Kind("v2.GetManifest", pull.manifest, "pull", ("BatchGetImage",))
_HEAD_MANIFEST = _Kind("v2.HeadManifest", pull.manifest, "pull", ("BatchGetImage",))
_GET_BLOB = _Kind("v2.GetBlob", pull.blob, "pull", ("GetDownloadUrlForLayer",))
_HEAD_BLOB = _Kind("v2.HeadBlob", pull.head_blob, "pull", ("BatchCheckLayerAvailability",))
_PUT_MANIFEST = _Kind("v2.PutManifest", push_manifests.put, "push", ("PutImage",))
_START = _Kind("v2.StartUpload", push_blobs.start, "push", ("InitiateLayerUpload",))
_MOUNT = _Kind("v2.MountBlob", push_blobs.mount, "push", ("InitiateLayerUpload",))
_PUT_BLOB = _Kind(
    "v2.PutBlob",
    push_blobs.put_blob,
    "push",
    ("InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload"),
)
_PATCH = _Kind("v2.PatchUpload", push_blobs.patch, "push", ("UploadLayerPart",))
_FINISH = _Kind("v2.PutUpload", push_blobs.put, "push", ("CompleteLayerUpload",))
_FINISH_WITH_BODY = _Kind(
    "v2.PutUpload", push_blobs.put, "push", ("UploadLayerPart", "CompleteLayerUpload")
)
_STATUS = _Kind("v2.GetUpload", push_blobs.status, "push", ("UploadLayerPart",))
_CANCEL = _Kind("v2.DeleteUpload", push_blobs.cancel, "push")


class DistributionApi:
    """Answers requests under ``/v2/``."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._gate = Gate(services)

    def routes(self) -> list[web.RouteDef]:
        """The routes of this API; what else there is under ``/v2/`` is not supported."""
        kinds: dict[str, dict[str, _Kind]] = {
            "/v2/": {"GET": _PING, "HEAD": _PING},
            "/v2/_catalog": {"GET": _CATALOG},
            "/v2/{name:.+}/tags/list": {"GET": _TAGS},
            "/v2/{name:.+}/referrers/{digest}": {"GET": _REFERRERS},
            "/v2/{name:.+}/manifests/{ref}": {
                "GET": _GET_MANIFEST,
                "HEAD": _HEAD_MANIFEST,
                "PUT": _PUT_MANIFEST,
            },
            "/v2/{name:.+}/blobs/uploads/{id}": {
                "GET": _STATUS,
                "PATCH": _PATCH,
                "PUT": _FINISH,
                "DELETE": _CANCEL,
            },
            "/v2/{name:.+}/blobs/uploads/": {"POST": _START},
            "/v2/{name:.+}/blobs/{digest}": {"GET": _GET_BLOB, "HEAD": _HEAD_BLOB},
        }
        routes = [
            # Left to itself aiohttp adds a HEAD of its own to every GET.
            web.route(method, path, self._handler(kind), **_NO_HEAD if method == "GET" else {})
            for path, methods in kinds.items()
            for method, kind in methods.items()
        ]
        unsupported = self._handler(_Kind("v2.Unsupported", _unsupported, None))
        download = web.get("/layers/{account}/{region}/{digest}/{name:.+}", self._download)
        return [*routes, download, web.route("*", "/v2/{rest:.*}", unsupported)]

    def _handler(self, listed: _Kind) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            kind = _precisely(listed, request)

            async def work(arrival: Arrival) -> web.StreamResponse:
                call = self._gate.open(request, arrival, kind.access)
                call.record.repository = request.match_info.get("name")
                try:
                    await call.admit({**request.query, **request.match_info}, kind.rates)
                    return await kind.act(request, call)
                except ApiError as exc:
                    if kind.access == "push" and self._is_to_be_cut(exc):
                        raise ConnectionDroppedError from exc
                    raise

            return await answer(self._services, request, kind.action, work, fail)

        return handle

    async def _download(self, request: web.Request) -> web.StreamResponse:
        async def work(arrival: Arrival) -> web.StreamResponse:
            return await pull.download(request, self._services, arrival)

        return await answer(self._services, request, "layers.Download", work, fail)

    def _is_to_be_cut(self, error: ApiError) -> bool:
        missing = error.code == "RepositoryNotFoundException"
        return missing and self._services.options.distribution.missing_repository == "cut"


def _precisely(kind: _Kind, request: web.Request) -> _Kind:
    """The kind of a request where path and method do not tell it alone."""
    if kind is _START and "mount" in request.query:
        return _MOUNT
    if kind is _START and "digest" in request.query:
        return _PUT_BLOB
    return _FINISH_WITH_BODY if kind is _FINISH and has_body(request) else kind


async def _unsupported(request: web.Request, _call: Call) -> web.StreamResponse:
    raise ApiError(
        "UNSUPPORTED",
        f"the local registry has nothing for {request.method} here",
        404 if request.method in ("GET", "HEAD") else 405,
    )
