"""Uploads of blobs over ``/v2/``: whole, in chunks or as a stream; and mounts in their stead."""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from asyncpush.localregistry.call import Call, find_session
from asyncpush.localregistry.content.store import Database
from asyncpush.localregistry.content.uploads import Session
from asyncpush.localregistry.distribution.answers import (
    DistributionError,
    digest_of,
    name_of,
    respond_empty,
)
from asyncpush.localregistry.distribution.push_target import find_target, location
from asyncpush.localregistry.errors import ApiError
from asyncpush.localregistry.faults import ConnectionDroppedError
from asyncpush.localregistry.requests import has_body, read_pieces
from asyncpush.localregistry.writing.finishing import (
    check_digest,
    check_not_empty,
    check_parts,
    finish_upload,
)
from asyncpush.localregistry.writing.mounting import MOUNTED
from asyncpush.localregistry.writing.mounting import mount as try_mount
from asyncpush.localregistry.writing.session_writer import SessionWriter, open_writer

# ECR's quota "Layer size".
_MAX_BLOB = 52_000 * 1024 * 1024
# Distribution-spec, "Pushing a blob in chunks".
_CONTENT_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


async def start(request: web.Request, call: Call) -> web.StreamResponse:
    """Open an upload session."""
    return _accepted(request, call, await _begin(call, name_of(request)))


async def mount(request: web.Request, call: Call) -> web.StreamResponse:
    """Mount a blob of another repository; what is refused gets an upload session."""
    name, digest = name_of(request), digest_of(request.query["mount"])
    source = request.query.get("from")
    call.authorize("InitiateLayerUpload", name)
    find = find_target(call)

    def work(db: Database) -> str:
        with db.transaction() as connection:
            target = find(connection, call.registry, name)
            return try_mount(connection, call, target, digest, source)

    counters = call.services.calls.counters
    call.record.mount = await call.services.store.run(work)
    if call.record.mount == MOUNTED:
        counters.mounts += 1
        return _created(request, call, digest)
    counters.mounts_refused += 1
    return _accepted(request, call, await _begin(call, name))


async def put_blob(request: web.Request, call: Call) -> web.StreamResponse:
    """Upload a blob in one request; one that breaks off leaves nothing, since it has no name."""
    name, digest = name_of(request), digest_of(request.query["digest"])
    call.authorize("UploadLayerPart", name)
    call.authorize("CompleteLayerUpload", name)
    session = await _begin(call, name)
    try:
        async with session.lock:
            await _receive_last(request, call, session, digest, None)
            await _finish(call, session, digest)
    except BaseException:
        await _forget(call, session)
        raise
    return _created(request, call, digest)


async def patch(request: web.Request, call: Call) -> web.StreamResponse:
    """Take the next chunk, or a stream of whatever length.

    What arrived of one that breaks off counts: the client goes on behind it.
    """
    session = await _find(request, call, "UploadLayerPart")
    async with session.lock:
        call.services.uploads.check_open(session)
        length = _next_length(request, call, session)
        first = not session.size
        async with open_writer(call, session) as writer:
            await _receive(request, call, writer, length, keep=True)
            await writer.acknowledge(call)
        if first:
            session.first_chunk = session.size
        options = call.services.options.distribution
        told = session.first_chunk if options.stale_range else session.size
        return _accepted(request, call, session, options.patch_status, told)


async def put(request: web.Request, call: Call) -> web.StreamResponse:
    """Complete an upload, perhaps with its last chunk."""
    digest = digest_of(request.query.get("digest", ""))
    session = await _find(request, call, "CompleteLayerUpload")
    async with session.lock:
        call.services.uploads.check_open(session)
        if has_body(request):
            call.authorize("UploadLayerPart", session.repository.name)
            length = _next_length(request, call, session)
            await _receive_last(request, call, session, digest, length)
        await _finish(call, session, digest)
    return _created(request, call, digest)


async def status(request: web.Request, call: Call) -> web.StreamResponse:
    """What arrived of an upload."""
    session = await _find(request, call, "UploadLayerPart")
    # A chunk that is just breaking off is counted first.
    async with session.lock:
        call.services.uploads.check_open(session)
        return respond_empty(204, _session_headers(request, call, session, session.size))


async def cancel(request: web.Request, call: Call) -> web.StreamResponse:
    """End an upload session."""
    session = await _find(request, call, "UploadLayerPart")
    uploads = call.services.uploads
    await call.services.store.run(lambda db: uploads.cancel(db, session))
    return respond_empty(204, {})


async def _begin(call: Call, name: str) -> Session:
    call.authorize("InitiateLayerUpload", name)
    find = find_target(call)

    def work(db: Database) -> Session:
        with db.transaction() as connection:
            repository = find(connection, call.registry, name)
        return call.services.uploads.begin(db, repository)

    session = await call.services.store.run(work)
    call.record.upload_id = session.id
    return session


async def _find(request: web.Request, call: Call, action: str) -> Session:
    name, upload_id = name_of(request), request.match_info["id"]
    call.record.upload_id = upload_id
    call.authorize(action, name)
    return await find_session(call, name, upload_id)


def _next_length(request: web.Request, call: Call, session: Session) -> int | None:
    """Bytes that a chunk is to have, ``None`` if nobody said so.

    :raises ApiError: it does not begin where the upload ends, or its length is another.
    """
    header = request.headers.get("Content-Range")
    if header is None:
        return request.content_length
    found = _CONTENT_RANGE.fullmatch(header)
    first, last = (int(found[1]), int(found[2])) if found else (-1, -1)
    if first != session.size or last < first:
        raise DistributionError(
            "BLOB_UPLOAD_INVALID",
            f"First byte of the layer part is {first} instead of {session.size}",
            416,
            _session_headers(request, call, session, session.size),
        )
    length = last - first + 1
    if request.content_length not in (None, length):
        raise ApiError("SIZE_INVALID", "Content-Range and Content-Length differ", 400)
    return length


async def _receive(
    request: web.Request,
    call: Call,
    writer: SessionWriter,
    length: int | None,
    *,
    keep: bool,
) -> None:
    """Write a body into a session's file.

    :param length: bytes that it is to have, if that is known.
    :param keep: whether what arrived counts when it breaks off.
    """
    most = _MAX_BLOB - writer.session.size if length is None else length
    idle = call.services.options.body_timeout
    is_cut = call.arrival.fault is not None and call.arrival.fault.drop == "during"
    try:
        async for piece in read_pieces(request, idle, most):
            call.record.layer_bytes += len(piece)
            writer.write(piece)
            if is_cut and writer.received >= (length or 0) // 2:
                raise ConnectionDroppedError
    except (ConnectionDroppedError, asyncio.CancelledError):
        if keep and writer.received:
            await writer.acknowledge(call, broken=True)
        raise
    if length is not None and writer.received != length:
        raise ApiError("SIZE_INVALID", f"{length} bytes were announced", 400)


async def _receive_last(
    request: web.Request, call: Call, session: Session, digest: str, length: int | None
) -> None:
    """Take the chunk that completes a blob, if that it does.

    Without a Content-Range nothing tells where it belongs, so what breaks off counts only with it.
    """
    async with open_writer(call, session) as writer:
        keep = "Content-Range" in request.headers
        await _receive(request, call, writer, length, keep=keep)
        check_digest(session, f"sha256:{writer.hasher.hexdigest()}", [digest])
        if writer.received:
            await writer.acknowledge(call)


async def _finish(call: Call, session: Session, digest: str) -> None:
    options = call.services.options
    if not options.distribution.empty_blobs:
        check_not_empty(session)
    if options.distribution.min_chunks:
        check_parts(session, options.min_part_size)
    await finish_upload(call, session, [digest])


async def _forget(call: Call, session: Session) -> None:
    uploads = call.services.uploads

    def work(db: Database) -> None:
        if not session.ended:
            uploads.cancel(db, session)

    await call.services.store.run(work)


def _accepted(
    request: web.Request, call: Call, session: Session, status: int = 202, told: int = 0
) -> web.StreamResponse:
    options = call.services.options
    headers = _session_headers(request, call, session, told or session.size)
    if options.distribution.min_chunks:
        headers["OCI-Chunk-Min-Length"] = str(options.min_part_size)
    return respond_empty(status, headers)


def _created(request: web.Request, call: Call, digest: str) -> web.StreamResponse:
    headers = {"Location": location(request, call, "blobs", digest)}
    return respond_empty(201, headers | {"Docker-Content-Digest": digest})


def _session_headers(
    request: web.Request, call: Call, session: Session, size: int
) -> dict[str, str]:
    """Where an upload goes on, and the range of bytes that are there.

    Of an empty one the range is ``0-0``, as docker's registry has it: a range cannot be empty.
    """
    return {
        "Location": location(request, call, "blobs", "uploads", session.id),
        "Range": f"0-{max(size - 1, 0)}",
        "Docker-Upload-UUID": session.id,
    }
