"""What the answers of distribution registries mean, ECR's own words among them."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web

from asyncpush.errors import (
    BlobRejectedError,
    PartOutOfOrderError,
    RegistryError,
    TagConflictError,
    UploadNotFoundError,
)
from asyncpush.registries.distribution.errors import error_of

pytestmark = pytest.mark.anyio


async def error_for(
    status: int, code: str, message: str, call: str = "PATCH upload", **headers: str
) -> RegistryError:
    """The error that an answer becomes, which comes over a socket."""

    async def answer(_: web.Request) -> web.Response:
        document = {"errors": [{"code": code, "message": message}]}
        return web.json_response(document, status=status, headers=headers)

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{host}:{port}/") as response,
        ):
            return await error_of(response, call, repository="here/app")
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("message", "told", "last"),
    [
        ("out of order", "0-41", 41),
        ("out of order", "bytes=0-41", 41),
        ("out of order", "0-0", -1),
        ("out of order", "", None),
        ("First byte of the layer part is 0 instead of 11304960", "0-10485759", 11304959),
        ("First byte of the layer part is 5 instead of 0", "0-0", -1),
    ],
)
async def test_refused_chunk_tells_where_the_upload_is(
    message: str, told: str, last: int | None
) -> None:
    error = await error_for(416, "BLOB_UPLOAD_INVALID", message, Range=told)
    assert isinstance(error, PartOutOfOrderError)
    assert error.last_valid_byte == last


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (
            400,
            "DIGEST_INVALID",
            "provided digest did not match uploaded content",
            BlobRejectedError,
        ),
        (
            400,
            "BLOB_UPLOAD_INVALID",
            "None of the provided layer digests match the calculated layer digest",
            BlobRejectedError,
        ),
        (404, "BLOB_UPLOAD_INVALID", "blob upload invalid", UploadNotFoundError),
        (404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", UploadNotFoundError),
        (
            400,
            "TAG_INVALID",
            "The image tag 'v1' already exists and cannot be overwritten because the tag is"
            " immutable.",
            TagConflictError,
        ),
    ],
)
async def test_code_and_message_tell_the_kind(
    status: int, code: str, message: str, kind: type[RegistryError]
) -> None:
    error = await error_for(status, code, message)
    assert type(error) is kind
    assert message in str(error)
    assert "here/app" in str(error)
