"""How ``/v2/`` answers: documents, headers, and the distribution codes of ECR's errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from asyncpush.localregistry.errors import ApiError
from asyncpush.localregistry.params import REPOSITORY_NAME, SHA256_DIGEST

_PAGE, _MOST = 100, 1000
_JSON = "application/json"
_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}
# Error codes of distribution-spec ("Error Codes") and the status that goes with them.
_CODES = {
    "RepositoryNotFoundException": ("NAME_UNKNOWN", 404),
    "AccessDeniedException": ("DENIED", 403),
    "UploadNotFoundException": ("BLOB_UPLOAD_UNKNOWN", 404),
    "InvalidLayerException": ("DIGEST_INVALID", 400),
    "LayerPartTooSmallException": ("SIZE_INVALID", 400),
    "EmptyUploadException": ("UNKNOWN", 500),
    "LimitExceededException": ("SIZE_INVALID", 413),
    "RequestEntityTooLargeException": ("SIZE_INVALID", 413),
    "InvalidParameterException": ("MANIFEST_INVALID", 400),
    "ImageDigestDoesNotMatchException": ("DIGEST_INVALID", 400),
    "LayersNotFoundException": ("MANIFEST_BLOB_UNKNOWN", 404),
    "ReferencedImagesNotFoundException": ("MANIFEST_BLOB_UNKNOWN", 404),
    "ImageTagAlreadyExistsException": ("TAG_INVALID", 400),
    "ThrottlingException": ("TOOMANYREQUESTS", 429),
    "ServerException": ("UNKNOWN", 500),
}
_RETRY_AFTER = "1"


class DistributionError(ApiError):
    """An error that only this API has, with headers of its own."""

    def __init__(
        self, code: str, message: str, status: int, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(code, message, status)
        self.headers = headers or {}


def respond(
    document: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """An answer that is a JSON document."""
    headers = {"Content-Type": _JSON, **_VERSION, **(headers or {})}
    return web.Response(body=json.dumps(document).encode(), status=status, headers=headers)


def respond_empty(status: int, headers: Mapping[str, str]) -> web.StreamResponse:
    """An answer that its headers say all of."""
    return web.Response(status=status, headers={**_VERSION, **headers})


def respond_page(
    request: web.Request, member: str, found: list[str], limit: int, extra: dict[str, Any]
) -> web.StreamResponse:
    """A page of names, with a link to the next one."""
    headers = {}
    page = found[:limit]
    if len(found) > limit and page:
        query = urlencode({"n": limit, "last": page[-1]})
        headers["Link"] = f'<{quote(request.path)}?{query}>; rel="next"'
    return respond({**extra, member: page}, headers=headers)


def fail(error: ApiError) -> web.StreamResponse:
    """The answer that an error of either API is."""
    code, status = _CODES.get(error.code, (error.code, error.status))
    headers = dict(error.headers) if isinstance(error, DistributionError) else {}
    if status == 429:
        headers["Retry-After"] = _RETRY_AFTER
    return respond({"errors": [{"code": code, "message": error.message}]}, status, headers)


def name_of(request: web.Request) -> str:
    """The repository's name in a request.

    :raises ApiError: NAME_INVALID.
    """
    name = request.match_info["name"]
    if not is_name(name):
        raise ApiError("NAME_INVALID", "invalid repository name", 400)
    return name


def is_name(text: str) -> bool:
    """Whether a repository could have this name."""
    return 2 <= len(text) <= 256 and re.fullmatch(REPOSITORY_NAME, text) is not None


def digest_of(text: str) -> str:
    """A digest in a request.

    :raises ApiError: DIGEST_INVALID.
    """
    if not re.fullmatch(SHA256_DIGEST, text):
        raise ApiError("DIGEST_INVALID", "no sha256 digest", 400)
    return text


def page_of(request: web.Request) -> tuple[int, str]:
    """How many names a request wants, and behind which one.

    :raises ApiError: PAGINATION_NUMBER_INVALID.
    """
    number = request.query.get("n", str(_PAGE))
    if not re.fullmatch(r"[0-9]{1,9}", number):
        raise ApiError("PAGINATION_NUMBER_INVALID", "n is no number", 400)
    return min(int(number), _MOST), request.query.get("last", "")
