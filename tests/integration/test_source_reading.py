"""The reading calls, each on its own, against docker-registry behind a gate that answers badly."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from gate import Answer, Gate, cut, gate_before
from support import HTPASSWD, docker_registry_at

from asyncpush.engine.options import PushOptions
from asyncpush.engine.remotes import open_remotes
from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    BlobMissingError,
    DigestMismatchError,
    RegistryError,
    TransientError,
)
from asyncpush.oci import mediatypes
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import Layout
from asyncpush.plan.reference import DistributionRegistry, Repository
from asyncpush.registries.distribution.dockerconfig import Login
from asyncpush.registries.distribution.ratelimit import RateLimit
from asyncpush.registries.distribution.reading import media_type_of
from asyncpush.registries.distribution.transport import open_transport
from asyncpush.sources.registry import RegistryOrigin

pytestmark = pytest.mark.anyio
REPOSITORY = "team/app"


class Given:
    """The same login for every repository."""

    def __init__(self, login: Login | None) -> None:
        self._login = login

    async def find(self, repository: str) -> Login | None:
        return self._login

    def forget(self, login: Login | None) -> None:
        pass


@pytest.fixture(scope="module")
def blob(sample: Path) -> tuple[Digest, bytes]:
    """A layer of the sample image, somewhat large."""
    path = max((sample / "blobs" / "sha256").iterdir(), key=lambda p: p.stat().st_size)
    return Digest(f"sha256:{path.name}"), path.read_bytes()


@asynccontextmanager
async def origin_behind(source: str, answer: Answer | None = None) -> AsyncIterator[RegistryOrigin]:
    async with (
        gate_before(source, answer) as gate,
        open_remotes(PushOptions(attempts=2, retry_base=0), lambda _event: None) as remotes,
    ):
        registry = DistributionRegistry(gate.address)
        yield RegistryOrigin(await remotes.connect(registry), Repository(registry, REPOSITORY))


async def read(origin: RegistryOrigin, digest: Digest, size: int, offset: int) -> bytes:
    async with origin.read(digest, size, offset) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_a_blob_is_read_from_any_offset(source: str, blob: tuple[Digest, bytes]) -> None:
    digest, data = blob
    size = len(data)
    async with origin_behind(source) as origin:
        for offset in (0, 1, 300_000, size - 1, size):
            assert await read(origin, digest, size, offset) == data[offset:]
        assert origin.name.endswith(f"/{REPOSITORY}")


async def test_a_registry_without_ranges_sends_all_of_it(
    source: str, blob: tuple[Digest, bytes]
) -> None:
    digest, data = blob

    async def whole(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        return web.Response(body=data) if "/blobs/" in request.path else None

    async with origin_behind(source, whole) as origin:
        for offset in (0, 1, 262_144, len(data) - 1):
            assert await read(origin, digest, len(data), offset) == data[offset:]


def _ranged(status: int, header: str | None, body: bytes) -> web.Response:
    headers = {} if header is None else {"Content-Range": header}
    return web.Response(status=status, body=body, headers=headers)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda d: _ranged(206, "bytes 0-9/10", d[:10]), RegistryError, "where byte 5 was asked"),
        (lambda d: _ranged(206, None, d[5:]), RegistryError, "no range where byte 5"),
        (
            lambda d: _ranged(206, f"bytes 5-9/{len(d) + 1}", d[5:10]),
            DigestMismatchError,
            "blob has",
        ),
        (lambda d: _ranged(206, "bytes 5-9/*", d[5:] + b"x"), DigestMismatchError, "more than"),
        (lambda d: _ranged(206, "bytes 5-9/*", d[5:10]), TransientError, "ended at byte 10 of"),
        (lambda d: web.Response(body=d + b"x"), DigestMismatchError, "blob has"),
        (lambda d: web.Response(status=416), DigestMismatchError, "no byte 5"),
        (lambda d: web.Response(status=404), BlobMissingError, "does not have this blob"),
        (lambda d: web.Response(status=403), AccessDeniedError, "docker login"),
        (lambda d: web.Response(status=500), TransientError, "run the same command again"),
    ],
)
async def test_what_a_blob_may_answer_is_one_error(
    source: str,
    blob: tuple[Digest, bytes],
    answer: Callable[[bytes], web.Response],
    kind: type[AsyncpushError],
    words: str,
) -> None:
    digest, data = blob

    async def reply(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        assert request.headers["Range"] == "bytes=5-"
        assert request.headers["Accept-Encoding"] == "identity"
        return answer(data)

    async with origin_behind(source, reply) as origin:
        with pytest.raises(kind, match=words) as caught:
            await read(origin, digest, len(data), 5)
        assert caught.value.where["source"] == f"{origin.name}@{digest}"


async def test_a_connection_that_is_cut_is_a_passing_failure_behind_the_bytes_that_came(
    source: str, blob: tuple[Digest, bytes]
) -> None:
    digest, data = blob

    async def reply(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        return await cut(request, len(data), 700_000)

    async with origin_behind(source, reply) as origin:
        got = 0

        async def read_all() -> None:
            nonlocal got
            async with origin.read(digest, len(data), 0) as pieces:
                async for piece in pieces:
                    got += len(piece)

        with pytest.raises(TransientError, match="connection"):
            await read_all()
        assert 0 < got <= 700_000


async def test_another_host_gets_the_range_and_no_credentials(
    tmp_path: Path, sample: Path, blob: tuple[Digest, bytes]
) -> None:
    digest, data = blob
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    config = f"auth: {{htpasswd: {{realm: here, path: '{tmp_path / 'htpasswd'}'}}}}\n"

    async def stored(_request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        return _ranged(206, f"bytes 9-{len(data) - 1}/{len(data)}", data[9:])

    with docker_registry_at(tmp_path, config) as upstream:
        async with gate_before("", stored) as storage:

            async def redirect(request: web.Request, gate: Gate) -> web.StreamResponse | None:
                first = await gate.fetch(request)
                if first.status == 401:
                    return first
                place = f"http://{storage.address}/b?signature=x"
                return web.Response(status=307, headers={"Location": place})

            async with (
                gate_before(upstream, redirect) as gate,
                open_transport(
                    gate.address,
                    connections=2,
                    user_agent="test",
                    plain_http=True,
                    logins=Given(Login("user", "secret")),
                    actions="pull",
                ) as transport,
                transport.reading.blob(REPOSITORY, digest, len(data), 9) as pieces,
            ):
                assert b"".join([piece async for piece in pieces]) == data[9:]
            assert any("Authorization" in headers for headers in gate.headers)
            (headers,) = storage.headers
            assert headers["Range"] == "bytes=9-"
            assert "Authorization" not in headers


async def test_only_pulling_is_asked_for() -> None:
    scopes: list[str] = []

    async def reply(request: web.Request, gate: Gate) -> web.StreamResponse | None:
        if request.path == "/token":
            scopes.extend(request.query.getall("scope"))
            return web.json_response({"token": "t"})
        if "Authorization" not in request.headers:
            challenge = f'Bearer realm="http://{gate.address}/token",service="x"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if request.path == "/v2/_catalog":
            return web.json_response({"repositories": ["a", "b/c"]})
        return web.json_response({"tags": ["v1"]})

    async with (
        gate_before("", reply) as gate,
        open_transport(
            gate.address,
            connections=2,
            user_agent="test",
            plain_http=True,
            logins=Given(None),
            actions="pull",
        ) as transport,
    ):
        assert (await transport.reading.tags("a/b")).names == ("v1",)
        assert (await transport.reading.catalog()).names == ("a", "b/c")
    assert scopes == ["repository:a/b:pull", "registry:catalog:*"]


async def test_a_catalog_comes_in_pages_or_is_refused(source: str) -> None:
    refused: list[web.Response] = []

    async def reply(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        if refused:
            return web.Response(status=refused[0].status)
        names = ["a", "b", "team/app"]
        begin = names.index(request.query["last"]) + 1 if "last" in request.query else 0
        headers = {}
        if begin + 1 < len(names):
            headers["Link"] = f'</v2/_catalog?last={names[begin]}&n=1>; rel="next"'
        return web.json_response({"repositories": names[begin : begin + 1]}, headers=headers)

    async with origin_behind(source, reply) as origin:
        reading = origin.source.reading
        found = []
        following: str | None = None
        for _ in range(3):
            page = await reading.catalog(following)
            found.append(page.names)
            following = page.following
        assert (found, following) == ([("a",), ("b",), ("team/app",)], None)
        for status in (401, 403, 404):
            refused[:] = [web.Response(status=status)]
            with pytest.raises(AccessDeniedError) as caught:
                await reading.catalog()
            assert "one by one" in caught.value.advice


async def test_what_refers_to_a_manifest_is_listed(source: str, sample: Path) -> None:
    (image,) = [e for e in Layout(sample).entries if e.ref_name == "service-01"]
    entry = {"mediaType": mediatypes.OCI_MANIFEST, "digest": "sha256:" + "2" * 64, "size": 7}
    answers = [
        web.json_response({"manifests": [entry]}, content_type=mediatypes.OCI_INDEX),
        web.json_response({"manifests": [{"digest": 1}]}, content_type=mediatypes.OCI_INDEX),
    ]

    async def reply(request: web.Request, gate: Gate) -> web.StreamResponse | None:
        return answers.pop(0) if gate.requests[1:] else None

    async with origin_behind(source, reply) as origin:
        ask = partial(origin.source.reading.referrers, REPOSITORY, image.digest)
        assert await ask() is None  # Debian's docker-registry does not know the API.
        page = await ask()
        assert page is not None
        assert [found.digest for found in page.referrers] == [entry["digest"]]
        with pytest.raises(AsyncpushError, match="mediaType"):
            await ask()


async def test_what_is_left_of_a_rate_limit_is_noted(source: str) -> None:
    async def reply(request: web.Request, gate: Gate) -> web.StreamResponse | None:
        answer = await gate.fetch(request)
        answer.headers["ratelimit-limit"] = "100;w=21600"
        answer.headers["ratelimit-remaining"] = "76;w=21600"
        return answer

    async with origin_behind(source, reply) as origin:
        reading = origin.source.reading
        assert reading.rate_limit is None
        assert await reading.head_manifest(REPOSITORY, "service-01") is not None
        assert reading.rate_limit == RateLimit(100, 76, 21600)


@pytest.mark.parametrize(
    ("raw", "told", "kind"),
    [
        (b"?", mediatypes.OCI_INDEX, mediatypes.OCI_INDEX),
        (b'{"mediaType": "x/y"}', None, "x/y"),
        (b'{"manifests": []}', "application/json", mediatypes.OCI_INDEX),
        (b'{"config": {}, "layers": []}', None, mediatypes.OCI_MANIFEST),
    ],
)
def test_a_manifest_says_what_it_is_where_its_registry_does_not(
    raw: bytes, told: str | None, kind: str
) -> None:
    assert media_type_of(raw, told) == kind
    assert media_type_of(b'{"schemaVersion": 1}', told if raw != b"?" else None).startswith(
        "application/vnd.docker.distribution.manifest.v1+"
    )


def test_the_sample_blob_is_large_enough(blob: tuple[Digest, bytes]) -> None:
    assert len(blob[1]) > 2**20
    assert hashlib.sha256(blob[1]).hexdigest() == blob[0].partition(":")[2]
