"""The reading calls of OCI distribution: each is one try, and every answer is checked."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    BlobMissingError,
    CredentialsError,
    DigestMismatchError,
    LimitError,
    ManifestError,
    RegistryError,
    SourceNotFoundError,
    ThrottledError,
    TransientError,
    UnsupportedDigestError,
)
from asyncpush.oci import digest as digests
from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import Descriptor, parse_descriptor
from asyncpush.oci.digest import Digest, parse_digest
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES, load_json
from asyncpush.plan.reference import is_tag
from asyncpush.registries.base import TaggedManifest
from asyncpush.registries.distribution.asking import LOST, Asker
from asyncpush.registries.distribution.body import PIECE
from asyncpush.registries.distribution.errors import error_of, lost
from asyncpush.registries.distribution.ratelimit import RateLimit

ACCEPT = ", ".join(sorted(mediatypes.MANIFESTS))
"""The manifests that can be read."""
_PAGE = 1000
# Registries without pages give all tags at once: 100,000 of them have 5 MB.
_MOST_PAGE_BYTES = 64 * 1024 * 1024
_NEXT = re.compile(r"<([^>]*)>\s*;[^,]*\brel=\"?next\"?", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")
# What is hashed and cut into ranges must come as it is stored.
_AS_STORED = {"Accept-Encoding": "identity"}
_DAMAGED = "the registry's copy is damaged; push the image there again, or leave it out"
_MANIFEST = {**_AS_STORED, "Accept": ACCEPT}


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """What HEAD says of a manifest; None for what it does not say.

    :param size: bytes.
    """

    digest: Digest | None
    media_type: str | None
    size: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list of names; ``following`` leads to the next one, None at the end."""

    names: tuple[str, ...]
    following: str | None


@dataclass(frozen=True, slots=True)
class ReferrersPage:
    """A page of what refers to a manifest; ``following`` leads to the next one."""

    referrers: tuple[Descriptor, ...]
    following: str | None


class Reading:
    """Reads one registry. Repositories are named without their registry.

    :raises SourceNotFoundError: every call: the repository, or what is read of it, is not there.
    :raises TransientError: every call: it failed in a way that may pass.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self.host = asker.endpoint.host

    @property
    def rate_limit(self) -> RateLimit | None:
        """What the registry last said of its rate limit; None where it says nothing."""
        return self._asker.rate_limit

    def place(self, repository: str, reference: str = "") -> str:
        """What people call a repository of this registry, or a manifest or blob in it.

        :param reference: a tag or a digest.
        """
        mark = "@" if ":" in reference else ":"
        return f"docker://{self.host}/{repository}{f'{mark}{reference}' if reference else ''}"

    async def head_manifest(self, repository: str, reference: str) -> ManifestHead | None:
        """Ask what a tag or digest is, without fetching it; None if it is not there."""
        url = self._asker.url(repository, "manifests", reference)
        place = self.place(repository, reference)
        async with self._asker.ask("HEAD", url, "HEAD manifest", repository, _MANIFEST) as answer:
            if answer.status == 404:
                return None
            if answer.status in (405, 501):
                return ManifestHead(None, None, None)  # Not every registry knows the method.
            if answer.status != 200:
                raise await self._error(answer, "HEAD manifest", place)
            digest = _told_digest(answer, place)
            _check_reference(reference, digest, place)
            return ManifestHead(digest, _media_type(answer), answer.content_length)

    async def get_manifest(self, repository: str, reference: str) -> TaggedManifest:
        """Fetch a manifest by tag or digest; its digest is proven where one is known.

        :raises DigestMismatchError: it is not what the digest says.
        :raises LimitError: it is larger than any registry takes.
        :raises ManifestError: nothing says what it is, or it is of Docker's schema 1.
        """
        url = self._asker.url(repository, "manifests", reference)
        place = self.place(repository, reference)
        async with self._asker.ask("GET", url, "GET manifest", repository, _MANIFEST) as answer:
            if answer.status != 200:
                raise await self._error(answer, "GET manifest", place)
            raw = await _whole(answer, MAX_MANIFEST_BYTES, "the manifest", place)
            digest = _told_digest(answer, place)
            told = _media_type(answer)
        kind = media_type_of(raw, told, place)
        # A schema 1 manifest's digest leaves out part of it.
        refuse_schema_1(kind, place)
        _check_reference(reference, digest, place)
        digest = parse_digest(reference) if ":" in reference else digest or digests.compute(raw)
        try:
            digests.verify(raw, digest)
        except DigestMismatchError as exc:
            raise DigestMismatchError(
                exc.message,
                advice=_DAMAGED,
                **{**exc.where, "source": place, "call": "GET manifest"},
            ) from None
        return TaggedManifest(digest, kind, raw)

    async def tags(self, repository: str, following: str | None = None) -> Page:
        """A page of a repository's tags.

        :param following: of the page before it; None for the first.
        """
        url = self._asker.url(repository, "tags", "list").with_query(n=str(_PAGE))
        page = await self._page(url, "GET tags", repository, "tags", following)
        for name in page.names:
            if not is_tag(name):
                raise RegistryError(
                    f"the registry lists {name[:300]!r}, which is no tag",
                    source=self.place(repository),
                    call="GET tags",
                )
        return page

    async def catalog(self, following: str | None = None) -> Page:
        """A page of the registry's repositories.

        :raises AccessDeniedError: it does not list them to this user.
        """
        url = self._asker.url("", "_catalog").with_query(n=str(_PAGE))
        try:
            return await self._page(url, "GET catalog", "", "repositories", following)
        except (SourceNotFoundError, AccessDeniedError, CredentialsError) as exc:
            raise AccessDeniedError(
                f"the registry does not list its repositories: {exc.message}",
                advice="name the repositories one by one instead of by a pattern",
                **exc.where,
            ) from exc

    async def referrers(
        self, repository: str, digest: Digest, following: str | None = None
    ) -> ReferrersPage | None:
        """A page of what refers to a manifest; None where there is no such API."""
        url = self._asker.url(repository, "referrers", digest)
        place = self.place(repository, digest)
        call = "GET referrers"
        async with self._asker.ask(
            "GET", self._following(url, following), call, repository, _AS_STORED
        ) as answer:
            if answer.status in (400, 404, 405, 501):
                return None
            if answer.status != 200:
                raise await self._error(answer, call, place)
            if _media_type(answer) != mediatypes.OCI_INDEX:
                return None
            document = _document(
                await _whole(answer, _MOST_PAGE_BYTES, "the list", place), call, place
            )
            entries = document.get("manifests")
            if not isinstance(entries, list):
                raise RegistryError("the answer has no list of manifests", source=place, call=call)
            try:
                found = tuple(parse_descriptor(e, f"manifests[{i}]") for i, e in enumerate(entries))
            except AsyncpushError as exc:
                raise exc.at(source=place, call=call) from None
            return ReferrersPage(found, self._next(answer))

    @contextlib.asynccontextmanager
    async def blob(
        self, repository: str, digest: Digest, size: int, offset: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of a blob from an offset on, in pieces, over one connection.

        :param size: bytes of the whole blob.
        :raises BlobMissingError: the repository does not have it.
        :raises DigestMismatchError: the registry's blob has another size.
        """
        place = self.place(repository, digest)
        if offset >= size > 0:
            yield _nothing()
            return
        headers = dict(_AS_STORED)
        if offset > 0:
            headers["Range"] = f"bytes={offset}-"
        url = self._asker.url(repository, "blobs", digest)
        async with self._asker.ask("GET", url, "GET blob", repository, headers) as answer:
            if answer.status == 404:
                raise BlobMissingError(
                    "the source repository does not have this blob",
                    advice="push the image to the source again, or leave it out",
                    source=place,
                    call="GET blob",
                )
            if answer.status == 416:
                raise _other_size(f"the registry has no byte {offset} of the blob", size, place)
            if answer.status not in (200, 206):
                raise await self._error(answer, "GET blob", place)
            begin = _check_range(answer, size, offset, place)
            yield _pieces(answer, begin, offset, size, place)

    async def _page(
        self, url: URL, call: str, repository: str, key: str, following: str | None
    ) -> Page:
        place = self.place(repository) if repository else f"docker://{self.host}"
        async with self._asker.ask(
            "GET", self._following(url, following), call, repository, _AS_STORED
        ) as answer:
            if answer.status != 200:
                raise await self._error(answer, call, place)
            raw = await _whole(answer, _MOST_PAGE_BYTES, "the list", place)
            names = _document(raw, call, place).get(key)
            if names is None:
                names = []  # docker's registry lists an empty repository as null.
            if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
                raise RegistryError(f"the answer has no list of {key}", source=place, call=call)
            return Page(tuple(names), self._next(answer))

    def _following(self, url: URL, following: str | None) -> URL:
        if following is None:
            return url
        # Always at the registry that is asked: one behind a proxy may name an inner address.
        return self._asker.endpoint.url.join(URL(following, encoded=True))

    def _next(self, answer: aiohttp.ClientResponse) -> str | None:
        for header in answer.headers.getall("Link", []):
            if found := _NEXT.search(header):
                try:
                    # Without its host: the path is joined to the registry's own address.
                    return answer.url.join(URL(found[1], encoded=True)).raw_path_qs
                except ValueError as exc:
                    raise RegistryError(
                        "the list's next page has no address", registry=self.host
                    ) from exc
        return None

    async def _error(self, answer: aiohttp.ClientResponse, call: str, place: str) -> AsyncpushError:
        """The error that an answer is to somebody who reads."""
        error = await error_of(answer, call, source=place)
        if answer.status == 404:
            return SourceNotFoundError(
                f"the source does not have it: {error.message}",
                advice="check the source's name",
                **error.where,
            )
        if isinstance(error, CredentialsError | AccessDeniedError):
            error.advice = (
                f"check the source's name, or sign in with docker login {self.host}: registries"
                " answer so for what is private and for what is not there"
            )
        elif isinstance(error, ThrottledError):
            error.advice = "the source throttles; run the same command again later"
        elif isinstance(error, TransientError):
            error.advice = "the source failed; run the same command again later"
        elif answer.status < 500:
            return RegistryError(error.message, advice="check the source", **error.where)
        return error


def media_type_of(raw: bytes, told: str | None, place: str = "") -> str:
    """What a manifest is: as its registry says, or else the document itself.

    :param told: the answer's Content-Type.
    :raises ManifestError: neither says it.
    """
    if told is not None and (told in mediatypes.MANIFESTS or told in mediatypes.SCHEMA_1):
        return told
    try:
        document = load_json(raw)
    except ManifestError as exc:
        raise exc.at(source=place, call="GET manifest") from None
    declared = document.get("mediaType")
    if isinstance(declared, str) and declared:
        return declared
    if document.get("schemaVersion") == 1:
        return next(iter(mediatypes.SCHEMA_1))
    # OCI manifests need not name their media type (image-spec, manifest.md).
    if "manifests" in document and "config" not in document:
        return mediatypes.OCI_INDEX
    if "config" in document and "manifests" not in document:
        return mediatypes.OCI_MANIFEST
    raise ManifestError(
        f"neither the registry ({told or 'no Content-Type'}) nor the document says what it is",
        advice="push the image to the source again with a current client",
        source=place,
        call="GET manifest",
    )


def refuse_schema_1(media_type: str | None, place: str) -> None:
    """Refuse what cannot be copied as it is.

    :raises ManifestError: it is a Docker image manifest of schema 1.
    """
    if media_type in mediatypes.SCHEMA_1:
        raise ManifestError(
            "Docker image manifest schema 1 cannot be copied: it has no digest that a registry"
            " proves",
            advice="convert it: docker pull and docker push it once with a current client",
            source=place,
        )


def _check_reference(reference: str, told: Digest | None, place: str) -> None:
    if told is not None and ":" in reference and told != reference:
        raise DigestMismatchError(
            f"the registry answers with the manifest {told}", advice=_DAMAGED, source=place
        )


def _told_digest(answer: aiohttp.ClientResponse, place: str) -> Digest | None:
    told = answer.headers.get("Docker-Content-Digest")
    if not told:
        return None
    try:
        return parse_digest(told)
    except UnsupportedDigestError as exc:
        raise exc.at(source=place) from None


def _media_type(answer: aiohttp.ClientResponse) -> str | None:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip() or None


async def _whole(answer: aiohttp.ClientResponse, limit: int, what: str, place: str) -> bytes:
    """An answer's body, unless it is larger than it may be."""
    pieces: list[bytes] = []
    left = limit + 1
    while left > 0 and (piece := await answer.content.read(left)):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise LimitError(f"{what} has more than {limit} bytes", source=place)
    return b"".join(pieces)


def _document(raw: bytes, call: str, place: str) -> Mapping[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RegistryError(
            "the answer is no JSON object: this may be no registry's API", source=place, call=call
        )
    return document


def _check_range(answer: aiohttp.ClientResponse, size: int, offset: int, place: str) -> int:
    """The offset at which an answer's body begins."""
    if answer.status == 200:
        length = answer.content_length
        if length is not None and length != size:
            raise _other_size(f"the registry's blob has {length} bytes", size, place)
        return 0  # A registry without ranges: what comes before the offset is skipped.
    text = answer.headers.get("Content-Range", "")
    found = _CONTENT_RANGE.fullmatch(text)
    if found is None or int(found[1]) != offset:
        raise RegistryError(
            f"the registry answers with {text or 'no range'} where byte {offset} was asked for",
            source=place,
            call="GET blob",
        )
    if found[3] not in ("*", str(size)):
        raise _other_size(f"the registry's blob has {found[3]} bytes", size, place)
    return offset


async def _pieces(
    answer: aiohttp.ClientResponse, begin: int, offset: int, size: int, place: str
) -> AsyncIterator[bytes]:
    """A body's bytes from ``offset`` on; it begins at ``begin`` and must end at ``size``."""
    at = begin
    try:
        async for piece in answer.content.iter_chunked(PIECE):
            at += len(piece)
            if at > size:
                raise _other_size("the registry sends more than the blob's bytes", size, place)
            if at > offset:
                yield piece[max(0, len(piece) - (at - offset)) :]
    except LOST as exc:
        raise lost(exc, "GET blob", source=place) from exc
    if at < size:
        raise TransientError(
            f"the connection ended at byte {at} of {size}", source=place, call="GET blob"
        )


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def _other_size(message: str, size: int, place: str) -> DigestMismatchError:
    return DigestMismatchError(
        f"{message}, its descriptor says {size}",
        advice="the blob or its manifest is damaged; push the image to the source again",
        source=place,
        call="GET blob",
    )
