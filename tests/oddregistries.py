"""Registries that differ from the specification as real ones do, over real sockets.

Each serves under the real registry's name, as an HTTP proxy: ``HTTP_PROXY`` leads there, and the
code under test chooses by the host that it finds in production.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, **headers: str) -> None:
        super().__init__(code)
        self.status, self.code, self.headers = status, code, headers


@dataclass
class Request:
    """A request of an upload, as it arrived."""

    method: str
    session: str
    content_range: str | None
    length: int
    host: str
    authorized: bool


@dataclass
class Session:
    """What arrived of an upload: its digest and size, not its bytes."""

    repository: str
    size: int = 0
    hasher: Any = field(default_factory=hashlib.sha256)

    def write(self, piece: bytes) -> None:
        self.hasher.update(piece)
        self.size += len(piece)


class OddRegistry:
    """A registry that takes whatever comes, appends it, and proves the digest.

    :param headers: further headers of its answers.
    """

    proves = True

    def __init__(self, **headers: str) -> None:
        self.headers = headers
        self.requests: list[Request] = []
        self.heads: list[str] = []
        self.sessions: dict[str, Session] = {}
        self.blobs: dict[str, int] = {}
        self.tags: dict[str, str] = {}
        self.address = ""
        self._manifests: dict[str, tuple[str, bytes]] = {}
        self._opened = 0

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        """Serve; its address."""
        app = web.Application(client_max_size=2**40)
        app.router.add_get("/v2/", self._ping)
        name = "/v2/{name:.+}"
        app.router.add_post(name + "/blobs/uploads/", self._start)
        app.router.add_route("*", name + "/blobs/uploads/{id}", self._upload)
        app.router.add_head(name + "/blobs/{digest}", self._head_blob)
        app.router.add_route("*", name + "/manifests/{reference}", self._manifest)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.address = "{}:{}".format(*runner.addresses[0][:2])
            yield self.address
        finally:
            await runner.cleanup()

    def uploads(self) -> dict[str, list[Request]]:
        """The requests that carried a blob or closed its upload, by session."""
        found: dict[str, list[Request]] = {}
        for request in self.requests:
            if request.method != "POST":
                found.setdefault(request.session, []).append(request)
        return found

    # What the kinds below differ in.

    def location(self, request: web.Request, session: str) -> str:
        return f"/v2/{request.match_info['name']}/blobs/uploads/{session}"

    def check(self, request: web.Request) -> None:
        """Refuse a request before its body is read."""

    async def receive(self, request: web.Request, session: Session) -> None:
        async for piece in request.content.iter_any():
            session.write(piece)

    def stored(self, session: Session) -> int:
        """Bytes that are kept of an upload that is complete."""
        return session.size

    # The calls.

    async def _ping(self, request: web.Request) -> web.Response:
        return web.Response(headers={**VERSION, **self.headers})

    async def _start(self, request: web.Request) -> web.Response:
        return await self._answer(request, self._do_start)

    async def _upload(self, request: web.Request) -> web.Response:
        return await self._answer(request, self._do_upload)

    async def _answer(self, request: web.Request, work: Any) -> web.Response:
        try:
            return await work(request)
        except RefusedError as exc:
            body = json.dumps({"errors": [{"code": exc.code, "message": exc.code.lower()}]})
            headers = {**self.headers, **exc.headers}
            return web.Response(status=exc.status, text=body, headers=headers)

    async def _do_start(self, request: web.Request) -> web.Response:
        self._opened += 1
        name = f"s{self._opened}"
        self._note(request, name)
        self.check(request)
        self.sessions[name] = Session(request.match_info["name"])
        headers = {**VERSION, **self.headers, "Location": self.location(request, name)}
        return web.Response(status=202, headers=headers)

    async def _do_upload(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        self._note(request, name)
        session = self.sessions.get(name)
        if session is None:
            raise RefusedError(404, "BLOB_UPLOAD_UNKNOWN")
        self.check(request)
        await self.receive(request, session)
        if request.method == "PATCH":
            headers = {**self.headers, "Range": f"0-{max(session.size - 1, 0)}"}
            headers["Location"] = self.location(request, name)
            return web.Response(status=202, headers={**VERSION, **headers})
        digest = request.query["digest"]
        del self.sessions[name]
        if self.proves and digest != f"sha256:{session.hasher.hexdigest()}":
            raise RefusedError(400, "DIGEST_INVALID")
        self.blobs[digest] = self.stored(session)
        return web.Response(status=201, headers={**VERSION, **self.headers, "Location": "/"})

    async def _head_blob(self, request: web.Request) -> web.Response:
        digest = request.match_info["digest"]
        self.heads.append(digest)
        if digest not in self.blobs:
            return web.Response(status=404)
        return web.Response(headers={"Content-Length": str(self.blobs[digest])})

    async def _manifest(self, request: web.Request) -> web.Response:
        reference = request.match_info["reference"]
        if request.method == "PUT":
            raw = await request.read()
            digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
            self._manifests[digest] = (request.content_type, raw)
            self.tags[reference] = digest
            headers = {"Docker-Content-Digest": digest, "OCI-Subject": "processed"}
            return web.Response(status=201, headers=headers)
        digest = self.tags.get(reference, reference)
        if digest not in self._manifests:
            return web.Response(status=404)
        kind, raw = self._manifests[digest]
        headers = {"Docker-Content-Digest": digest, **self.headers}
        return web.Response(body=raw, content_type=kind, headers=headers)

    def _note(self, request: web.Request, session: str) -> None:
        self.requests.append(
            Request(
                request.method,
                session,
                request.headers.get("Content-Range"),
                request.content_length or 0,
                request.host,
                "Authorization" in request.headers,
            )
        )


class Ghcr(OddRegistry):
    """Each PATCH overwrites the last; a Content-Range limits it to 4 MiB; nothing is proven."""

    proves = False

    def check(self, request: web.Request) -> None:
        if "Content-Range" in request.headers and (request.content_length or 0) > 4 * 2**20:
            raise RefusedError(416, "REQUESTED_RANGE_NOT_SATISFIABLE")

    async def receive(self, request: web.Request, session: Session) -> None:
        if request.method == "PATCH":
            session.size, session.hasher = 0, hashlib.sha256()
        await super().receive(request, session)


class Google(OddRegistry):
    """No PATCH, although its answers name the API's version as all do."""

    def check(self, request: web.Request) -> None:
        if request.method == "PATCH":
            raise RefusedError(405, "UNSUPPORTED")


class Azure(OddRegistry):
    """No body above 20 MB; chunks in order."""

    most = 20_000_000

    def check(self, request: web.Request) -> None:
        if (request.content_length or 0) > self.most:
            raise RefusedError(413, "SIZE_INVALID", Connection="close")
        told = request.headers.get("Content-Range")
        if told is not None:
            session = self.sessions[request.match_info["id"]]
            if told.split("-", 1)[0] != str(session.size):
                raise RefusedError(416, "RANGE_INVALID", Range=f"0-{max(session.size - 1, 0)}")
        elif request.method == "PATCH":
            raise RefusedError(400, "BLOB_UPLOAD_INVALID")


class DockerHub(OddRegistry):
    """Uploads go to another host, which redirects once more; one PUT; a password for the API.

    A GET of a manifest counts as a pull, of which 100 are allowed in six hours.
    """

    storage = "uploads.docker.example"
    password = True

    def __init__(self) -> None:
        super().__init__()
        self.headers = {"ratelimit-limit": "100;w=21600"}
        self._left(76)

    def hold(self, kind: str, raw: bytes, tag: str) -> None:
        """Hold a manifest without its blobs."""
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self._manifests[digest] = (kind, raw)
        self.tags[tag] = digest

    def _left(self, remaining: int) -> None:
        self.remaining = remaining
        self.headers["ratelimit-remaining"] = f"{remaining};w=21600"

    async def _manifest(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            self._left(self.remaining - 1)
        return await super()._manifest(request)

    async def _ping(self, request: web.Request) -> web.Response:
        if not self.password:
            return await super()._ping(request)
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="hub"'})

    def location(self, request: web.Request, session: str) -> str:
        return f"http://{self.storage}{super().location(request, session)}?signature=secret"

    def check(self, request: web.Request) -> None:
        expected = "Basic " + base64.b64encode(b"user:secret").decode()
        given = request.headers.get("Authorization")
        if request.method == "POST" and given != expected:
            raise RefusedError(401, "UNAUTHORIZED", **{"WWW-Authenticate": 'Basic realm="hub"'})
        if request.method == "PATCH":
            raise RefusedError(405, "UNSUPPORTED")
        if request.method == "PUT":
            if request.host != self.storage or request.query.get("signature") != "secret":
                raise RefusedError(403, "DENIED")
            if "moved" not in request.query:
                target = str(request.url.update_query(moved="1"))
                raise RefusedError(307, "MOVED", Location=target)


class Truncating(OddRegistry):
    """Keeps the first half of what it accepts, and reports success."""

    proves = False

    def stored(self, session: Session) -> int:
        return session.size // 2 if session.size > 1000 else session.size


class Breaking(OddRegistry):
    """Cuts the connection in the middle of a blob, as often as it is told to.

    A session goes on holding what arrived, so a second request to it spoils the blob.
    """

    def __init__(self, cuts: int, *, after: bool = False, **headers: str) -> None:
        super().__init__(**headers)
        self.cuts, self._after = cuts, after

    async def receive(self, request: web.Request, session: Session) -> None:
        large = (request.content_length or 0) > 1_000_000
        if not large or not self.cuts:
            await super().receive(request, session)
            return
        self.cuts -= 1
        if self._after:
            await super().receive(request, session)
            self.blobs[request.query["digest"]] = session.size
        else:
            session.write(await request.content.readany())
        assert request.transport is not None
        request.transport.abort()
        raise ConnectionResetError


@contextlib.contextmanager
def by_proxy(address: str) -> Iterator[None]:
    """Lead all that is asked without TLS to a registry of this machine, by whatever name."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        patch.setenv("HTTP_PROXY", f"http://{address}")
        yield
