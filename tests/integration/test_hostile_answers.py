"""Whatever answers in ECR's place gives a success as the service model has it, or a typed error."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from releases import releasing, roots, write_release
from support import ACCOUNT, HOST, KEY_ID, REGION, SECRET

from asyncpush import AwsOptions, ImageStatus, Pusher, PushItem, PushOptions, RegistrySettings
from asyncpush.errors import AsyncpushError, TransientError, UnexpectedAnswerError
from asyncpush.oci.digest import compute
from asyncpush.oci.layout import BlobData
from asyncpush.plan.reference import Registry
from asyncpush.registries.content import open_blob
from asyncpush.registries.ecr.http import MOST_ANSWER_BYTES
from asyncpush.registries.ecr.session import open_client
from asyncpush.registries.ecr.transport import EcrTransport

pytestmark = pytest.mark.anyio

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DIGEST, OTHER = compute(b"content"), compute(b"other")
MANIFEST = b'{"schemaVersion":2}'
DEEP = b"[" * 100_000
BODIES: list[bytes] = [
    b"",
    b"<html>welcome</html>",
    b"{}",
    b"[]",
    b"null",
    b'"text"',
    b"17",
    b"\xff\xfe\x00",
    DEEP,
    b'{"uploadId": 5, "partSize": "x", "lastByteReceived": [], "layers": 3, "images": {}}',
    b'{"uploadId": "", "partSize": 0, "lastByteReceived": -7, "layerDigest": "x"}',
    b'{"uploadId": "a", "partSize": -1, "lastByteReceived": 1e400, "layers": [null]}',
    b'{"layers": [{"layerAvailability": "AVAILABLE"}], "images": [{}], "image": {}}',
    b'{"layers": [{"layerAvailability": "AVAILABLE", "layerDigest": "sha256:zz"}]}',
    b'{"layers": [[1]], "images": [7], "image": {"imageId": []}}',
    b'{"images": [{"imageId": {"imageTag": "v1"}}, {"imageId": {"imageTag": 5}}]}',
    b'{"authorizationData": [{"authorizationToken": 5, "expiresAt": "never"}]}',
    b'{"authorizationData": [{"authorizationToken": "\xc3\xa9", "expiresAt": 1e300}]}',
    json.dumps({"layerDigest": OTHER, "lastByteReceived": 99}).encode(),
    json.dumps({"image": {"imageId": {"imageDigest": OTHER, "imageTag": "v1"}}}).encode(),
    json.dumps({"image": {"imageId": {"imageDigest": DIGEST, "imageTag": "v2"}}}).encode(),
    json.dumps({"image": {"imageId": {"imageDigest": DIGEST}}}).encode(),
]
ERRORS: list[bytes] = [
    b'{"__type": 5, "message": []}',
    b'{"__type": "InvalidLayerPartException", "lastValidByteReceived": "x"}',
    b'{"__type": "ThrottlingException", "message": null}',
    b'{"message": {"deep": []}}',
    b"[" * 50_000,
]


async def send_part(it: EcrTransport) -> object:
    async with open_blob(BlobData(b"x" * 10)) as blob:
        return await it.upload_part("app", _SESSION, blob, 0, 10, None)


# What each call must not believe; availability without layers says that nothing is there, and no
# image that there is none.
CALLS: dict[str, Callable[[EcrTransport], Awaitable[object]]] = {
    "authorize": lambda it: it.authorize(),
    "start": lambda it: it.start_upload("app"),
    "part": send_part,
    "complete": lambda it: it.complete_upload("app", _SESSION, DIGEST),
    "put": lambda it: it.put_manifest("app", MANIFEST, "application/json", DIGEST, "v1"),
    "put-by-digest": lambda it: it.put_manifest("app", MANIFEST, "application/json", DIGEST, None),
}
QUESTIONS: dict[str, Callable[[EcrTransport], Awaitable[object]]] = {
    "sizes": lambda it: it.sizes("app", [DIGEST]),
    "tagged": lambda it: it.tagged("app", ["v1"]),
    "manifest": lambda it: it.get_manifest("app", DIGEST),
    "resume": lambda it: it.last_received("app", _SESSION),
}


class _Session:
    id = "00000000-0000-0000-0000-000000000000"
    part_size = 100


_SESSION: Any = _Session()


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    """A peer that answers as it likes; its address."""
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asked(handler: Handler) -> AsyncIterator[EcrTransport]:
    async with answering(handler) as url:
        aws = AwsOptions(
            access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=url, read_timeout=5
        )
        registry = Registry(ACCOUNT, REGION)
        async with open_client(registry, aws, 2, "test") as client:
            yield EcrTransport(client, registry, anyio.CapacityLimiter(1))


async def test_a_success_that_does_not_say_what_was_done_is_no_success() -> None:
    body = b""

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, content_type="application/x-amz-json-1.1")

    async with asked(handler) as transport:
        for body in BODIES:
            for name, call in CALLS.items():
                if name == "put-by-digest" and b"imageDigest" in body and DIGEST.encode() in body:
                    await call(transport)
                    continue
                with pytest.raises(TransientError) as caught:
                    await call(transport)
                assert isinstance(caught.value, UnexpectedAnswerError), (name, body[:80])
                assert caught.value.where["call"], (name, body[:80])
            for name, call in QUESTIONS.items():
                found = None
                with contextlib.suppress(AsyncpushError):
                    found = await call(transport)
                assert not found, (name, body[:80])


async def test_an_error_is_typed_whatever_is_in_it() -> None:
    answers = [(status, body) for status in (400, 500) for body in (*ERRORS, *BODIES)]
    now: list[tuple[int, bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        status, body = now[-1]
        return web.Response(status=status, body=body, content_type="application/x-amz-json-1.1")

    async with asked(handler) as transport:
        for answer in answers:
            now.append(answer)
            for call in (*CALLS.values(), *QUESTIONS.values()):
                with pytest.raises(AsyncpushError):
                    await call(transport)


async def test_an_endless_answer_ends_at_a_bound() -> None:
    sent = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        await request.read()
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(bytes(2**20))
            sent += 2**20

    async with asked(handler) as transport:
        tracemalloc.start()
        with anyio.fail_after(60), pytest.raises(TransientError, match="larger than 32 MiB"):
            await transport.sizes("app", [DIGEST])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert sent < 3 * MOST_ANSWER_BYTES
    assert peak < 3 * MOST_ANSWER_BYTES


@pytest.mark.parametrize("body", [b"{}", b"<html>", DEEP], ids=["empty", "html", "deep"])
async def test_a_registry_that_answers_nonsense_fails_its_own_image_and_no_other(
    tmp_path: Path, body: bytes
) -> None:
    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, content_type="application/x-amz-json-1.1")

    release = write_release(tmp_path, "new", {"app": [f"v{i}" for i in range(40)]})
    bad = Registry("444455556666", REGION)
    async with releasing(tmp_path, ["app"]) as it, answering(handler) as url:
        keys: dict[str, Any] = {"access_key_id": KEY_ID, "secret_access_key": SECRET}
        options = PushOptions(
            aws=AwsOptions(**keys, endpoint_url=it.server.url),
            registries={bad: RegistrySettings(aws=AwsOptions(**keys, endpoint_url=url))},
            quotas={"PutImage": 1000},
            attempts=2,
            retry_base=0.001,
        )
        items = [
            PushItem(release["app"], f"{HOST}/app"),
            PushItem(f"{release['app']}:v0", f"{bad.host}/app"),
        ]
        async with Pusher(options) as pusher:
            report = await pusher.push(items)
        assert await it.tags(["app"]) == roots(release)
        assert report.complete
        assert report.count(ImageStatus.PUSHED) == 40
        (failed,) = report.failed
        assert isinstance(failed.error, UnexpectedAnswerError)
        assert failed.reference.startswith(bad.host)
