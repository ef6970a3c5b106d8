"""PUT of a manifest over ``/v2/``, by tag or by digest."""

from __future__ import annotations

import re

from aiohttp import web

from asyncpush.localregistry.call import Call
from asyncpush.localregistry.distribution.answers import digest_of, name_of, respond_empty
from asyncpush.localregistry.distribution.push_target import find_target, location
from asyncpush.localregistry.errors import ApiError
from asyncpush.localregistry.params import IMAGE_TAG
from asyncpush.localregistry.requests import read_pieces
from asyncpush.localregistry.writing.manifests import commit, read_candidate
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES


async def put(request: web.Request, call: Call) -> web.StreamResponse:
    """Keep a manifest; one that is there already is as good as a new one."""
    name, reference = name_of(request), request.match_info["ref"]
    tag, claimed = _read_reference(reference)
    call.authorize("PutImage", name)
    options = call.services.options
    body = b"".join(
        [piece async for piece in read_pieces(request, options.body_timeout, MAX_MANIFEST_BYTES)]
    )
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip() or None
    candidate = read_candidate(body, media_type, claimed, refuse_artifacts=options.refuse_artifacts)
    try:
        await commit(call, name, candidate, tag, find_target(call))
    except ApiError as exc:
        if exc.code != "ImageAlreadyExistsException":
            raise
    headers = {
        "Location": location(request, call, "manifests", candidate.digest),
        "Docker-Content-Digest": candidate.digest,
    }
    if candidate.subject is not None:
        headers["OCI-Subject"] = candidate.subject
    return respond_empty(201, headers)


def _read_reference(reference: str) -> tuple[str | None, str | None]:
    """Tag and digest of a reference, of which it is one."""
    if ":" in reference:
        return None, digest_of(reference)
    if not re.fullmatch(IMAGE_TAG, reference):
        raise ApiError("TAG_INVALID", "the tag does not keep to a tag's grammar", 400)
    return reference, None
