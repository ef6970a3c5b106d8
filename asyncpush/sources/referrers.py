"""What repositories of registries name as referring to manifests: their API, and tags."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import anyio

from asyncpush.errors import AccessDeniedError, AsyncpushError, CredentialsError
from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import Content
from asyncpush.oci.referrers import Found, cosign_tags, names_referrers, referrers_tag
from asyncpush.plan.pages import PageGuard
from asyncpush.plan.reference import Repository
from asyncpush.sources.registry import RegistryContent, SourceRegistry

_Place = tuple[SourceRegistry, Repository]


class RegistryReferrers:
    """Asks about referrers for one plan, so that what a repository says is asked once."""

    def __init__(self) -> None:
        self._repositories: dict[_Place, _RepositoryReferrers] = {}

    async def of(self, wanted: Sequence[tuple[Content, Digest]]) -> list[Found]:
        """What is named as referring to manifests, in the order of these.

        :param wanted: content of registries, and digests in it.
        """
        contents: dict[_Place, RegistryContent] = {}
        asked: dict[_Place, dict[Digest, Found]] = {}
        order: list[tuple[_Place, Digest]] = []
        for content, digest in wanted:
            assert isinstance(content, RegistryContent)
            place = (content.source, content.place)
            contents.setdefault(place, content)
            asked.setdefault(place, {})[digest] = Found()
            order.append((place, digest))
        async with anyio.create_task_group() as tasks:
            for place, found in asked.items():
                known = self._repositories.setdefault(place, _RepositoryReferrers(*place))
                tasks.start_soon(known.ask, contents[place], found)
        return [asked[place][digest] for place, digest in order]


class _RepositoryReferrers:
    """One repository: whether it has the referrers API, and which tags name referrers."""

    def __init__(self, source: SourceRegistry, place: Repository) -> None:
        self._source = source
        self._place = place
        self._has_api: bool | None = None
        self._denied: AsyncpushError | None = None
        # The list of tags, as far as it was read: what can name a referrer.
        self._tags: set[str] = set()
        self._following: str | None = None
        self._listable = True
        self._complete = False
        self._guard = PageGuard(source.reading.place(place.name))

    async def ask(self, content: RegistryContent, found: dict[Digest, Found]) -> None:
        """Fill in what refers to digests; what cannot be read is among the problems of each."""
        # Each digest could be asked about by four HEADs instead.
        await self._list_tags(4 * len(found))

        async def one(digest: Digest) -> None:
            answer = found[digest]
            try:
                answer.referrers += await self._from_api(digest)
            except AsyncpushError as exc:
                answer.problems.append(exc.again().at(digest=digest))
            for tag in self._candidates(digest):
                await self._look_up(content, tag, digest, answer)

        await self._source.each(list(found), one)

    async def _from_api(self, digest: Digest) -> list[Descriptor]:
        """What the referrers API lists; nothing where there is none."""
        if self._denied is not None:
            raise self._denied
        if self._has_api is False:
            return []
        name, reading = self._place.name, self._source.reading
        guard = PageGuard(reading.place(name, digest))
        found: list[Descriptor] = []
        following: str | None = None
        while True:
            ask = partial(reading.referrers, name, digest, following)
            try:
                page = await self._source.call("ListReferrers", str(self._place), ask)
            except (AccessDeniedError, CredentialsError) as exc:
                self._denied = exc
                raise
            if page is None:
                # A registry that has the API answers also where nothing refers to a digest.
                self._has_api = bool(self._has_api)
                return found
            self._has_api = True
            found += page.referrers
            following = page.following
            guard.check(page.referrers, following)
            if following is None:
                return found

    async def _list_tags(self, most_pages: int) -> None:
        """Read on in the list of tags, unless that takes more calls than to do without it."""
        name, reading = self._place.name, self._source.reading
        while self._listable and not self._complete and most_pages > 0:
            most_pages -= 1
            ask = partial(reading.tags, name, self._following)
            try:
                page = await self._source.call("ListTags", str(self._place), ask)
                self._guard.check(page.names, page.following)
            except AsyncpushError:
                # Tags can be asked for one by one; what keeps that from working is reported.
                self._listable = False
                return
            self._tags.update(tag for tag in page.names if names_referrers(tag))
            self._following = page.following
            self._complete = page.following is None

    def _candidates(self, digest: Digest) -> list[str]:
        """The tags that name referrers of a digest, or may do so."""
        lists = referrers_tag(digest)
        if self._complete:
            return [tag for tag in (lists, *cosign_tags(digest)) if tag in self._tags]
        # A registry with the API has taken up such a list, or has none.
        return [*([] if self._has_api else [lists]), *cosign_tags(digest)]

    async def _look_up(
        self, content: RegistryContent, tag: str, digest: Digest, answer: Found
    ) -> None:
        try:
            descriptor = await content.look_up(tag)
        except AsyncpushError as exc:
            answer.problems.append(exc.at(digest=digest))
            return
        if descriptor is None:
            return
        if tag != referrers_tag(digest):
            answer.tagged.append(descriptor)
        elif descriptor.media_type == mediatypes.OCI_INDEX:
            answer.lists.append(descriptor)
