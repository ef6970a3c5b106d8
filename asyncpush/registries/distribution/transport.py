"""The calls of a push over the OCI distribution specification 1.1."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import anyio
from yarl import URL

from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    BlobRejectedError,
    CredentialsError,
    ManifestExistsError,
    ManifestsNotFoundError,
    RegistryError,
    TagConflictError,
    ThrottledError,
    TransientError,
    UnexpectedAnswerError,
    UnsupportedDigestError,
    UploadBrokenError,
    UploadNotFoundError,
    VerificationError,
)
from asyncpush.oci import digest as digests
from asyncpush.oci.digest import Digest
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES
from asyncpush.oci.mediatypes import OCI_INDEX
from asyncpush.registries.base import (
    MountAnswer,
    Mounting,
    PartReceipt,
    RepositorySettings,
    TaggedManifest,
    UploadSession,
)
from asyncpush.registries.content import BlobReader
from asyncpush.registries.distribution.asking import LOST, Asker, Endpoint
from asyncpush.registries.distribution.auth import Actions, Authorizer
from asyncpush.registries.distribution.body import PIECE, BlobBody
from asyncpush.registries.distribution.errors import error_of, last_of, lost
from asyncpush.registries.distribution.logins import DockerLogins, Logins
from asyncpush.registries.distribution.ratelimit import RateLimit
from asyncpush.registries.distribution.reading import ACCEPT, Reading
from asyncpush.registries.distribution.referrers import Referrers, subject_of
from asyncpush.registries.distribution.strategies import (
    CHUNKS,
    ONE_PUT,
    api_host,
    part_size_of,
    strategy_of_host,
)
from asyncpush.registries.proxies import Proxies

_STORED = Mounting(referenced=False)
T = TypeVar("T")

AskTags = Callable[[str, Sequence[str]], Awaitable[dict[str, Digest]]]
"""What at most 100 tags of a repository point to."""


@dataclass(slots=True)
class _Sent:
    """What an upload session holds.

    :param size: bytes of the blob.
    :param confirm: whether the size of the blob is to be asked for when it is complete.
    :param closed: whether the registry has completed the upload.
    """

    size: int
    confirm: bool
    closed: bool = False


class DistributionTransport:
    """OCI distribution behind :class:`~asyncpush.registries.base.Transport`.

    An upload session's id is the address that the registry gave last: it changes with every part,
    and the journal has the last one.

    ``rate_limit`` is what the registry last said of its rate limit; None where it says nothing.
    """

    part_memory = 2 * PIECE
    writes_referrers = True
    streams = True

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        logins: Logins,
        mounting: Mounting,
        actions: Actions = "pull,push",
        *,
        at_once: int,
    ) -> None:
        self._at_once = at_once
        self.mounting: Mounting | None = mounting
        self.promoting: Mounting | None = mounting
        self._session = session
        self._endpoint = endpoint
        self._proxies = Proxies()
        self._authorizer = Authorizer(
            session, endpoint.host, endpoint.url, logins, self._proxies, actions
        )
        self._asker = Asker(
            session, endpoint, self._authorizer, self._proxies, source=actions == "pull"
        )
        self._ask, self._url = self._asker.ask, self._asker.url
        self._where, self._location = self._asker.where, self._asker.location
        self.reading = Reading(self._asker)
        self._referrers = Referrers(self)
        self._strategy = strategy_of_host(endpoint.host)
        self._sent: dict[str, _Sent] = {}
        self.ask_tags: AskTags | None = None
        """Another way to ask what tags point to, where there is a better one."""

    @property
    def rate_limit(self) -> RateLimit | None:
        """What the registry last said of its rate limit; None where it says nothing."""
        return self._asker.rate_limit

    async def authorize(self) -> None:
        """See :class:`~asyncpush.registries.base.Transport`.

        Asks the API's root, which tells how to authenticate; scopes come with the first call.
        """
        where = {"registry": self._endpoint.host}
        try:
            url = self._endpoint.url / "v2" / ""
            async with self._session.get(
                url, allow_redirects=False, **self._proxies.of(url)
            ) as answer:
                if answer.status == 401:
                    self._authorizer.challenged(None, answer.headers.getall("WWW-Authenticate", []))
                elif answer.status >= 500 or answer.status == 429:
                    raise await error_of(answer, "GET /v2/", **where)
        except (*LOST, ValueError) as exc:  # ValueError: a proxy's address that is none
            raise lost(exc, "GET /v2/", **where) from exc

    async def available(self, repository: str, wanted: Sequence[Digest]) -> set[Digest]:
        """See :class:`~asyncpush.registries.base.Transport`."""
        return set(await self.sizes(repository, wanted))

    async def sizes(self, repository: str, wanted: Sequence[Digest]) -> dict[Digest, int | None]:
        """See :class:`~asyncpush.registries.base.Transport`."""
        found: dict[Digest, int | None] = {}

        async def ask(digest: Digest) -> None:
            url = self._url(repository, "blobs", digest)
            async with self._ask("HEAD", url, "HEAD blob", repository) as answer:
                told = answer.headers.get("Docker-Content-Digest", digest)
                size = answer.content_length
                # Something that answers 200 to everything names neither.
                named = size is not None or "Docker-Content-Digest" in answer.headers
                if answer.status == 200 and told == digest and named:
                    found[digest] = size
                elif answer.status not in (200, 404):
                    raise await error_of(answer, "HEAD blob", **self._where(repository))

        await _each(wanted, ask, self._at_once)
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
        if session.whole:
            raise UploadNotFoundError(
                "the registry does not keep what an upload that broke off has sent",
                **self._where(repository),
            )
        url = self._own(session.id)
        async with self._ask("GET", url, "GET upload", repository) as answer:
            if answer.status != 204:
                raise await error_of(answer, "GET upload", **self._where(repository))
            last = last_of(answer)
        # "0-0" is also what some answer for an empty upload, and one byte is soon sent again.
        last = last or -1
        confirm = (self._strategy or CHUNKS).confirms(whole=False)
        self._sent[session.id] = _Sent(last + 1, confirm)
        return last

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
        strategy = self._strategy or (ONE_PUT if session.whole else CHUNKS)
        if length > strategy.most:
            length, final = strategy.most, None
        first, last = offset == 0, offset + length - 1
        closing = final is not None and strategy.closes(whole=first)
        url = self._own(session.id)
        headers = {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
        if not first or final is None:
            headers["Content-Range"] = f"{offset}-{last}"
        method, call, good = "PATCH", "PATCH upload", {202, 201, 204}
        if closing:
            method, call, good = "PUT", "PUT upload", {201}
            url = url.update_query(digest=str(final))
        bodies: list[BlobBody] = []

        def body() -> BlobBody:
            bodies.append(BlobBody(blob, offset, length))
            return bodies[-1]

        try:
            async with self._ask(method, url, call, repository, headers, body) as answer:
                if answer.status not in good:
                    raise await error_of(answer, call, **self._where(repository))
                following, told = session, None
                if not closing:
                    told = None if session.whole else last_of(answer)
                    following = UploadSession(str(self._location(answer)), session.part_size)
        except RegistryError as exc:
            failure = bodies[-1].failure if bodies else None
            if isinstance(failure, AsyncpushError):
                raise failure from None
            broke = session.whole and isinstance(exc, TransientError)
            # A registry that throttles has refused the request, and the session is good.
            if not broke or isinstance(exc, ThrottledError):
                raise
            raise UploadBrokenError.of(exc) from exc
        self._sent.pop(session.id, None)
        self._sent[following.id] = _Sent(last + 1, strategy.confirms(whole=first), closing)
        # ECR goes on telling the end of the first chunk (aws/containers-roadmap 2831).
        # Were less there than was sent, the next chunk would be refused with the offset.
        return PartReceipt(last if told is None or told < offset else told, following)

    async def complete_upload(
        self, repository: str, session: UploadSession, digest: Digest
    ) -> None:
        """See :class:`~asyncpush.registries.base.Transport`."""
        sent = self._sent.setdefault(session.id, _Sent(0, confirm=False))
        if not sent.closed:
            url = self._own(session.id).update_query(digest=digest)
            headers = {"Content-Length": "0"}
            async with self._ask("PUT", url, "PUT upload", repository, headers) as answer:
                if answer.status != 201:
                    raise await error_of(answer, "PUT upload", **self._where(repository))
            sent.closed = True
        if sent.confirm:
            await self._confirm(repository, digest, sent.size)
        del self._sent[session.id]

    async def _confirm(self, repository: str, digest: Digest, size: int) -> None:
        """Ask what was stored of a blob: some registries drop bytes without an error.

        :raises TransientError: the registry does not have the blob, or not yet.
        :raises BlobRejectedError: it has another size.
        """
        where: dict[str, Any] = {**self._where(repository), "call": "HEAD blob", "digest": digest}
        found = await self.sizes(repository, [digest])
        if digest not in found:
            raise TransientError(
                "the registry does not have the blob that it accepted",
                advice="push again",
                **where,
            )
        stored = found[digest]
        if stored not in (None, size):
            raise BlobRejectedError(
                f"the registry stored {stored} bytes of a blob of {size} bytes",
                advice="check the registry, and any proxy in front of it, for a size limit;"
                " then push again",
                **where,
            )

    async def put_manifest(
        self,
        repository: str,
        raw: bytes,
        media_type: str,
        digest: Digest,
        tag: str | None,
        *,
        absent: bool = False,
    ) -> None:
        """See :class:`~asyncpush.registries.base.Transport`."""
        existed = not absent and await self._has(repository, tag or digest, digest)
        manifest = TaggedManifest(digest, media_type, raw)
        processed = None
        if not existed:
            try:
                processed = await self.store_manifest(repository, manifest, tag)
            except TagConflictError:
                # An immutable tag that has come to point to this since it was asked about.
                if not absent or not await self._has(repository, tag or digest, digest):
                    raise
                existed = True
        subject = subject_of(raw, media_type)
        if subject is not None:
            await self._referrers.ensure(repository, subject, manifest, processed=processed)
        if existed:
            # Only now: a push that broke off may have left a referrer that is not listed.
            where: dict[str, Any] = {**self._where(repository), "digest": digest, "tag": tag}
            raise ManifestExistsError("the registry has this manifest", **where)

    async def store_manifest(
        self, repository: str, manifest: TaggedManifest, tag: str | None
    ) -> bool:
        """Store a manifest, whether it is there or not, by digest or under a tag.

        :return: whether the registry said that it processed the manifest's subject.
        """
        where: dict[str, Any] = {
            **self._where(repository),
            "digest": manifest.digest,
            "tag": tag,
        }
        url = self._url(repository, "manifests", tag or manifest.digest)
        headers = {"Content-Type": manifest.media_type}
        async with self._ask(
            "PUT", url, "PUT manifest", repository, headers, lambda: manifest.raw
        ) as answer:
            told = answer.headers.get("Docker-Content-Digest")
            # The specification's success is 201; others count if they name what was stored.
            if answer.status != 201 and not (answer.status in (200, 202) and told):
                raise await error_of(answer, "PUT manifest", **where)
            processed = "OCI-Subject" in answer.headers
        if told is not None and told != manifest.digest:
            raise UnexpectedAnswerError(
                f"the registry says that it stored the manifest as {told[:80]}", **where
            )
        return processed

    async def lists_referrers(self, repository: str, subject: Digest) -> bool | None:
        """Whether the registry has the referrers API; None if the list is not ours to read.

        Without it the answer is 404 (distribution-spec 1.1, "Listing Referrers"); other programs
        also meet other refusals, and pages that are no index.
        """
        url, call = self._url(repository, "referrers", subject), "GET referrers"
        async with self._ask("GET", url, call, repository, {"Accept": OCI_INDEX}) as answer:
            if answer.status == 200:
                return answer.content_type == OCI_INDEX
            error = await error_of(answer, call, **self._where(repository))
        if isinstance(error, TransientError) and answer.status != 501:
            raise error
        return None if isinstance(error, AccessDeniedError | CredentialsError) else False

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
        if self.ask_tags is not None:
            return await self.ask_tags(repository, tags)
        found: dict[str, Digest] = {}

        async def ask(tag: str) -> None:
            digest = await self._digest_of(repository, tag)
            if digest is not None:
                found[tag] = digest

        await _each(tags, ask, self._at_once)
        return found

    async def get_manifest(self, repository: str, reference: str) -> TaggedManifest:
        """See :class:`~asyncpush.registries.base.Transport`."""
        url = self._url(repository, "manifests", reference)
        where = {**self._where(repository), "digest": reference}
        async with self._ask("GET", url, "GET manifest", repository, {"Accept": ACCEPT}) as answer:
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
            "HEAD", url, "HEAD manifest", repository, {"Accept": ACCEPT}
        ) as answer:
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise await error_of(answer, "HEAD manifest", **self._where(repository))
            told = answer.headers.get("Docker-Content-Digest")
        if told is not None:
            with contextlib.suppress(UnsupportedDigestError):
                return digests.parse_digest(told)
        return (await self.get_manifest(repository, reference)).digest

    def _opened(self, answer: aiohttp.ClientResponse) -> UploadSession:
        """The upload session that an answer has opened."""
        size = part_size_of(self._endpoint.host, answer.headers)
        return UploadSession(str(self._location(answer)), size)

    def _own(self, address: str) -> URL:
        """A session's address; a journal's could name another host, which gets nothing of ours."""
        url = URL(address)
        if not url.absolute:
            raise UploadNotFoundError("the upload session is no address")
        return url


@contextlib.asynccontextmanager
async def open_transport(
    host: str,
    *,
    connections: int,
    user_agent: str,
    plain_http: bool,
    logins: Logins | None = None,
    url: str | None = None,
    mounting: Mounting = _STORED,
    tls: ssl.SSLContext | None = None,
    read_timeout: float = 60.0,
    actions: Actions = "pull,push",
) -> AsyncIterator[DistributionTransport]:
    """Open the transport to one registry.

    :param host: the registry, with its port if it has one.
    :param connections: the most connections to keep open to it.
    :param plain_http: whether it is asked without TLS.
    :param logins: finds credentials; None looks where docker and podman keep them.
    :param url: its address, where that is not the host's own.
    :param mounting: what it mounts; the specification knows no condition.
    :param tls: the authorities that are trusted, where they are not the machine's.
    :param read_timeout: seconds to wait for the next bytes of an answer.
    :param actions: what tokens are asked for.
    """

    scheme = "http" if plain_http else "https"
    address = URL(url or f"{scheme}://{api_host(host)}")
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=tls or True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=read_timeout),
        headers={"User-Agent": user_agent},
        auto_decompress=False,
    ) as session:
        # aiohttp would send a PUT again by itself when its connection breaks, and what the first
        # one has done would be lost: one layer retries, and it is ours (decision 4).
        session._retry_connection = False  # noqa: SLF001 - there is no public way
        endpoint = Endpoint(host=host, url=address)
        yield DistributionTransport(
            session, endpoint, logins or DockerLogins(host), mounting, actions, at_once=connections
        )


async def _each(items: Sequence[T], ask: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Ask about each item, as many at once as there may be connections.

    :raises AsyncpushError: the first failure, behind which no further item is asked about.
    """
    failures: list[AsyncpushError] = []
    pending = iter(items)

    async def worker() -> None:
        for item in pending:
            if failures:
                return
            try:
                await ask(item)
            except AsyncpushError as exc:
                failures.append(exc)

    async with anyio.create_task_group() as tasks:
        for _ in range(min(at_once, len(items))):
            tasks.start_soon(worker)
    if failures:
        raise failures[0]


async def pieces_of(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """An answer's body in pieces; one that ends too soon just ends, for its reader to tell."""
    try:
        async for piece in answer.content.iter_chunked(PIECE):
            yield piece
    except aiohttp.ClientPayloadError:
        return
