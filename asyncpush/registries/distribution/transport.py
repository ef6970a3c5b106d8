"""The calls of a push over the OCI distribution specification 1.1."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
from yarl import URL

from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    ManifestExistsError,
    ManifestsNotFoundError,
    RegistryError,
    UploadNotFoundError,
    VerificationError,
)
from asyncpush.oci import digest as digests
from asyncpush.oci.digest import Digest
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES, parse_manifest
from asyncpush.oci.mediatypes import MANIFESTS
from asyncpush.plan.limits import MIB
from asyncpush.registries.base import (
    MountAnswer,
    Mounting,
    PartReceipt,
    RepositorySettings,
    TaggedManifest,
    UploadSession,
)
from asyncpush.registries.content import BlobReader
from asyncpush.registries.distribution.auth import Authorizer, FindLogin
from asyncpush.registries.distribution.body import PIECE, BlobBody
from asyncpush.registries.distribution.dockerconfig import find_login
from asyncpush.registries.distribution.errors import error_of, last_of, lost
from asyncpush.registries.distribution.referrers import add_referrer

CHUNK = 64 * MIB
"""Bytes of a chunk, unless the registry asks for more: a blob up to this size goes in one request,
a larger one can be taken up again in its middle."""
_STORED = Mounting(referenced=False)
_HEADS_AT_ONCE = 8
_MOST_REDIRECTS = 5
_ACCEPT = ", ".join(sorted(MANIFESTS))
# aiohttp's message of a connection that could not be made holds host and port, no secret.
_LOST = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a registry is reached.

    :param host: what people call it, for errors.
    :param url: scheme, host and port.
    """

    host: str
    url: URL


class DistributionTransport:
    """OCI distribution behind :class:`~asyncpush.registries.base.Transport`.

    An upload session's id is the address that the registry gave last: it changes with every part,
    and the journal has the last one.
    """

    part_memory = 2 * PIECE

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        find_login: FindLogin,
        mounting: Mounting,
    ) -> None:
        self.mounting: Mounting | None = mounting
        self._session = session
        self._endpoint = endpoint
        self._authorizer = Authorizer(session, endpoint.host, find_login)
        self._completed: dict[str, None] = {}
        self._tags = anyio.Lock()

    async def authorize(self) -> None:
        """See :class:`~asyncpush.registries.base.Transport`.

        Asks the API's root, which tells how to authenticate; scopes come with the first call.
        """
        where = {"registry": self._endpoint.host}
        try:
            async with self._session.get(
                self._endpoint.url / "v2" / "", allow_redirects=False
            ) as answer:
                if answer.status == 401:
                    self._authorizer.challenged(None, answer.headers.getall("WWW-Authenticate", []))
                elif answer.status >= 500 or answer.status == 429:
                    raise await error_of(answer, "GET /v2/", **where)
        except (*_LOST, ValueError) as exc:  # ValueError: a proxy's address that is none
            raise lost(exc, "GET /v2/", **where) from exc

    async def available(self, repository: str, wanted: Sequence[Digest]) -> set[Digest]:
        """See :class:`~asyncpush.registries.base.Transport`."""
        return set(await self.sizes(repository, wanted))

    async def sizes(self, repository: str, wanted: Sequence[Digest]) -> dict[Digest, int | None]:
        """See :class:`~asyncpush.registries.base.Transport`."""
        found: dict[Digest, int | None] = {}
        failures: list[AsyncpushError] = []
        pending = iter(wanted)

        async def worker() -> None:
            for digest in pending:
                if failures:
                    return
                try:
                    url = self._url(repository, "blobs", digest)
                    async with self._ask("HEAD", url, "HEAD blob", repository) as answer:
                        if answer.status == 200:
                            found[digest] = answer.content_length
                        elif answer.status != 404:
                            raise await error_of(answer, "HEAD blob", **self._where(repository))
                except AsyncpushError as exc:
                    failures.append(exc)

        async with anyio.create_task_group() as tasks:
            for _ in range(min(_HEADS_AT_ONCE, len(wanted))):
                tasks.start_soon(worker)
        if failures:
            raise failures[0]
        return found

    async def start_upload(self, repository: str) -> UploadSession:
        """See :class:`~asyncpush.registries.base.Transport`."""
        url = self._url(repository, "blobs", "uploads", "")
        async with self._ask("POST", url, "POST upload", repository) as answer:
            if answer.status != 202:
                raise await error_of(answer, "POST upload", **self._where(repository))
            return self._opened(answer)

    async def mount(self, repository: str, digest: Digest, source: str) -> MountAnswer:
        """See :class:`~asyncpush.registries.base.Transport`."""
        url = self._url(repository, "blobs", "uploads", "")
        url = url.with_query({"mount": digest, "from": source})
        call = "POST mount"
        async with self._ask("POST", url, call, repository, source=source) as answer:
            if answer.status == 201:
                return MountAnswer(mounted=True)
            if answer.status != 202:
                raise await error_of(answer, call, **self._where(repository), digest=digest)
            return MountAnswer(mounted=False, session=self._opened(answer))

    async def last_received(self, repository: str, session: UploadSession) -> int:
        """See :class:`~asyncpush.registries.base.Transport`."""
        url = self._own(session.id)
        async with self._ask("GET", url, "GET upload", repository) as answer:
            if answer.status != 204:
                raise await error_of(answer, "GET upload", **self._where(repository))
            last = last_of(answer)
            # "0-0" is also what some answer for an empty upload, and one byte is soon sent again.
            return -1 if last is None or last == 0 else last

    def reads_twice(self, session: UploadSession) -> bool:  # noqa: ARG002 - none of this API
        """See :class:`~asyncpush.registries.base.Transport`."""
        return False

    async def upload_part(
        self,
        repository: str,
        session: UploadSession,
        blob: BlobReader,
        offset: int,
        length: int,
        final: Digest | None,
    ) -> PartReceipt:
        """See :class:`~asyncpush.registries.base.Transport`."""
        url = self._own(session.id)
        headers = {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
        if offset > 0 or final is None:
            headers["Content-Range"] = f"{offset}-{offset + length - 1}"
        method, call, good = "PATCH", "PATCH upload", {202, 201, 204}
        if final is not None:
            method, call, good = "PUT", "PUT upload", {201}
            url = url.update_query(digest=final)
        bodies: list[BlobBody] = []

        def body() -> BlobBody:
            bodies.append(BlobBody(blob, offset, length))
            return bodies[-1]

        try:
            async with self._ask(method, url, call, repository, headers, body) as answer:
                if answer.status not in good:
                    raise await error_of(answer, call, **self._where(repository))
                last = offset + length - 1
                if final is not None:
                    self._completed[session.id] = None
                    return PartReceipt(last, session)
                told = last_of(answer)
                following = UploadSession(str(self._location(answer)), session.part_size)
                # ECR goes on telling the end of the first chunk (aws/containers-roadmap 2831).
                # Were less there than was sent, the next chunk would be refused with the offset.
                return PartReceipt(last if told is None or told < offset else told, following)
        except RegistryError:
            failure = bodies[-1].failure if bodies else None
            if isinstance(failure, AsyncpushError):
                raise failure from None
            raise

    async def complete_upload(
        self, repository: str, session: UploadSession, digest: Digest
    ) -> None:
        """See :class:`~asyncpush.registries.base.Transport`."""
        if session.id in self._completed:
            # The last part carried the digest.
            del self._completed[session.id]
            return
        url = self._own(session.id).update_query(digest=digest)
        headers = {"Content-Length": "0"}
        async with self._ask("PUT", url, "PUT upload", repository, headers) as answer:
            if answer.status != 201:
                raise await error_of(answer, "PUT upload", **self._where(repository))

    async def put_manifest(
        self, repository: str, raw: bytes, media_type: str, digest: Digest, tag: str | None
    ) -> None:
        """See :class:`~asyncpush.registries.base.Transport`."""
        where: dict[str, Any] = {**self._where(repository), "digest": digest, "tag": tag}
        if await self._has(repository, tag or digest, digest):
            raise ManifestExistsError("the registry has this manifest", **where)
        url = self._url(repository, "manifests", tag or digest)
        headers = {"Content-Type": media_type}
        async with self._ask(
            "PUT", url, "PUT manifest", repository, headers, lambda: raw
        ) as answer:
            if answer.status not in (200, 201, 202):
                raise await error_of(answer, "PUT manifest", **where)
            told = answer.headers.get("Docker-Content-Digest")
            processed = answer.headers.get("OCI-Subject")
        if told is not None and told != digest:
            raise RegistryError(f"the registry stored the manifest as {told}", **where)
        subject = parse_manifest(raw, media_type).subject
        if subject is not None and processed is None:
            # A registry without the referrers API: the specification's fallback is an index.
            async with self._tags:
                await add_referrer(self, repository, subject.digest, raw, media_type, digest)

    async def create_repository(
        self,
        repository: str,
        settings: RepositorySettings,  # noqa: ARG002 - nothing can be done with them here
    ) -> None:
        """See :class:`~asyncpush.registries.base.Transport`."""
        raise RegistryError(
            "this API has no call that creates repositories",
            advice="most registries create them with the first push; otherwise create it there",
            **self._where(repository),
        )

    async def tagged(self, repository: str, tags: Sequence[str]) -> dict[str, Digest]:
        """See :class:`~asyncpush.registries.base.Transport`."""
        found = {tag: await self._digest_of(repository, tag) for tag in tags}
        return {tag: digest for tag, digest in found.items() if digest is not None}

    async def get_manifest(self, repository: str, reference: str) -> TaggedManifest:
        """See :class:`~asyncpush.registries.base.Transport`."""
        url = self._url(repository, "manifests", reference)
        where = {**self._where(repository), "digest": reference}
        async with self._ask("GET", url, "GET manifest", repository, {"Accept": _ACCEPT}) as answer:
            if answer.status == 404:
                raise ManifestsNotFoundError("the repository does not have this manifest", **where)
            if answer.status != 200:
                raise await error_of(answer, "GET manifest", **where)
            raw = await answer.content.read(MAX_MANIFEST_BYTES + 1)
            while len(raw) <= MAX_MANIFEST_BYTES and not answer.content.at_eof():
                raw += await answer.content.read(MAX_MANIFEST_BYTES + 1 - len(raw))
            kind = answer.content_type
        return TaggedManifest(digests.compute(raw), kind, raw)

    @contextlib.asynccontextmanager
    async def read_blob(
        self, repository: str, digest: Digest
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """See :class:`~asyncpush.registries.base.Transport`."""
        url = self._url(repository, "blobs", digest)
        where: dict[str, Any] = {**self._where(repository), "digest": digest}
        async with self._ask("GET", url, "GET blob", repository) as answer:
            if answer.status == 404:
                raise VerificationError("the repository does not have this blob", **where)
            if answer.status != 200:
                raise await error_of(answer, "GET blob", **where)
            yield pieces_of(answer)

    async def _has(self, repository: str, reference: str, digest: Digest) -> bool:
        """Whether a reference leads to a manifest, as far as the caller may know: in ECR that takes
        BatchGetImage, which pushing does not."""
        try:
            return await self._digest_of(repository, reference) == digest
        except AccessDeniedError:
            return False

    async def _digest_of(self, repository: str, reference: str) -> Digest | None:
        url = self._url(repository, "manifests", reference)
        async with self._ask(
            "HEAD", url, "HEAD manifest", repository, {"Accept": _ACCEPT}
        ) as answer:
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise await error_of(answer, "HEAD manifest", **self._where(repository))
            told = answer.headers.get("Docker-Content-Digest")
        if told is not None:
            return Digest(told)
        return (await self.get_manifest(repository, reference)).digest

    @contextlib.asynccontextmanager
    async def _ask(
        self,
        method: str,
        url: URL,
        call: str,
        repository: str,
        headers: Mapping[str, str] = {},
        body: Callable[[], Any] | None = None,
        source: str | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a request, authorized, redirected where that is asked; at most two tries of a 401.

        :param body: makes the body, once for each time that it is sent.
        :param source: a further repository that is read from.
        """
        tried = False
        redirects = 0
        while True:
            own = _same_place(url, self._endpoint.url)
            token = await self._authorizer.header(repository, source) if own else None
            sent = {**headers, **({"Authorization": token} if token else {})}
            try:
                async with self._session.request(
                    method, url, headers=sent, data=body() if body else None, allow_redirects=False
                ) as answer:
                    challenges = answer.headers.getall("WWW-Authenticate", [])
                    if answer.status == 401 and own and not tried:
                        tried = True
                        if self._authorizer.challenged(token, challenges):
                            continue
                    if answer.status in (301, 302, 307, 308) and redirects < _MOST_REDIRECTS:
                        redirects += 1
                        # Another host gets no credentials of this one.
                        url = self._location(answer)
                        continue
                    yield answer
                    return
            except _LOST as exc:
                raise lost(exc, call, **self._where(repository)) from exc

    def _location(self, answer: aiohttp.ClientResponse) -> URL:
        """Where an answer points: relative or absolute."""
        location = answer.headers.get("Location")
        if not location:
            raise RegistryError(
                "the registry's answer lacks its Location", registry=self._endpoint.host
            )
        try:
            return answer.url.join(URL(location))
        except ValueError as exc:
            # It is not quoted: a storage's address has a signature in it.
            raise RegistryError(
                "the registry's answer has a Location that is no address",
                registry=self._endpoint.host,
            ) from exc

    def _opened(self, answer: aiohttp.ClientResponse) -> UploadSession:
        """The upload session that an answer has opened."""
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        size = max(CHUNK, int(least)) if least.isdigit() else CHUNK
        return UploadSession(str(self._location(answer)), size)

    def _own(self, address: str) -> URL:
        """A session's address; a journal's could name another host, which gets nothing of ours."""
        url = URL(address)
        if not url.absolute:
            raise UploadNotFoundError("the upload session is no address")
        return url

    def _url(self, repository: str, *parts: str) -> URL:
        path = "/".join(("v2", repository, *parts))
        return self._endpoint.url.with_path(f"/{path}")

    def _where(self, repository: str) -> dict[str, str]:
        return {"repository": f"{self._endpoint.host}/{repository}"}


@contextlib.asynccontextmanager
async def open_transport(
    host: str,
    *,
    connections: int,
    user_agent: str,
    plain_http: bool,
    find: FindLogin | None = None,
    url: str | None = None,
    mounting: Mounting = _STORED,
    tls: ssl.SSLContext | None = None,
    read_timeout: float = 60.0,
) -> AsyncIterator[DistributionTransport]:
    """Open the transport to one registry.

    :param host: the registry, with its port if it has one.
    :param connections: the most connections to keep open to it.
    :param plain_http: whether it is asked without TLS.
    :param find: finds credentials; None looks where docker and podman keep them.
    :param url: its address, where that is not the host's own.
    :param mounting: what it mounts; the specification knows no condition.
    :param tls: the authorities that are trusted, where they are not the machine's.
    :param read_timeout: seconds to wait for the next bytes of an answer.
    """

    async def from_files(repository: str) -> Any:
        return await anyio.to_thread.run_sync(find_login, host, repository, dict(os.environ))

    address = URL(url) if url else URL(f"{'http' if plain_http else 'https'}://{host}")
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=tls or True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=read_timeout),
        headers={"User-Agent": user_agent},
        auto_decompress=False,
        trust_env=True,
    ) as session:
        endpoint = Endpoint(host=host, url=address)
        yield DistributionTransport(session, endpoint, find or from_files, mounting)


async def pieces_of(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """An answer's body in pieces; one that ends too soon just ends, for its reader to tell."""
    try:
        async for piece in answer.content.iter_chunked(PIECE):
            yield piece
    except aiohttp.ClientPayloadError:
        return


def _same_place(url: URL, other: URL) -> bool:
    return (url.scheme, url.host, url.port) == (other.scheme, other.host, other.port)
