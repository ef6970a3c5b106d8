"""All that goes on in one repository: each blob, manifest and tag once, in the order of safety."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from asyncpush.engine.blobs import RepositoryBlobs
from asyncpush.engine.context import Context
from asyncpush.engine.events import ManifestCommitted, RepositoryCreated
from asyncpush.engine.journal import NoJournal
from asyncpush.engine.results import TagResult, TagStatus
from asyncpush.engine.tally import Tally
from asyncpush.engine.work import Once
from asyncpush.errors import (
    AsyncpushError,
    BlobsNotFoundError,
    ManifestExistsError,
    ManifestsNotFoundError,
    RefusedError,
    RegistryError,
    RepositoryNotFoundError,
)
from asyncpush.oci.digest import Digest
from asyncpush.plan.graph import PlannedImage, PlannedManifest, RepositoryPlan

# A manifest on its way stands in memory as bytes, as text, in the request's JSON, escaped there.
_MANIFEST_COPIES = 5
# Tags in one BatchGetImage (API reference: imageIds has 1 to 100).
_TAGS_AT_ONCE = 100

T = TypeVar("T")


class RepositoryPush:
    """The push into one repository, shared by all images that go there.

    :param create: whether it may be created if it is missing, where the options ask for that; if it
        may not, it is looked at as if it had been.
    """

    def __init__(
        self, plan: RepositoryPlan, context: Context, journal: NoJournal, *, create: bool = True
    ) -> None:
        self._may_create = create
        self._plan = plan
        self._journal = journal
        self._repository = plan.repository
        self._context = context
        self._transport = context.transport
        self._emit = context.emit
        self.blobs = RepositoryBlobs(plan, context, journal, self._ask)
        self._manifests: Once[tuple[Digest, str | None], bool] = Once()
        self._by_digest: set[Digest] = set()
        self._created: Once[str, None] = Once()
        # What tags pointed to before an atomic push moved them, as far as that was asked.
        self._previous: dict[str, Digest | None] = {}

    async def push(self, image: PlannedImage, tally: Tally) -> None:
        """Push one image: its blobs, then what it needs, then itself with its tags.

        :raises AsyncpushError: the first failure; what was done by then stays done.
        """
        await self.blobs.ensure(list(self._plan.blobs_of(image)), tally)
        for digest in image.manifests:
            if digest != image.root or not image.tags:
                await self._commit_once(digest, None, tally)
        await self.move_tags(image, tally)

    async def stage(self, image: PlannedImage, tally: Tally) -> None:
        """Push one image by digest; its tags stay where they are.

        :raises AsyncpushError: the first failure; what was done by then stays done.
        """
        await self.blobs.ensure(list(self._plan.blobs_of(image)), tally)
        for digest in image.manifests:
            await self._commit_once(digest, None, tally)

    async def move_tags(self, image: PlannedImage, tally: Tally) -> None:
        """Let an image's tags point to it; all that it needs is there.

        :raises AsyncpushError: a tag cannot be moved; those before it have been.
        """
        for tag in image.tags:
            await self._commit_once(image.root, tag, tally)

    async def note_tags(self, tags: Sequence[str]) -> None:
        """Ask and note what tags point to, so that they can be returned there.

        :raises AccessDeniedError: ecr:BatchGetImage is not granted.
        """
        for i in range(0, len(tags), _TAGS_AT_ONCE):
            batch = tags[i : i + _TAGS_AT_ONCE]
            ask = partial(self._transport.tagged, self._repository.name, batch)
            found = await self._call("BatchGetImage", ask)
            noted = await self._journal.note_previous(
                self._repository, {tag: found.get(tag) for tag in batch}
            )
            for tag, digest in noted.items():
                self._previous[tag] = None if digest is None else Digest(digest)

    async def return_tag(self, tag: str) -> bool:
        """Let a tag point again to what it pointed to before.

        :return: False if it did not exist: a tag cannot be taken away with the calls of a push.
        """
        before = self._previous.get(tag)
        if before is None:
            return False
        get = partial(self._transport.get_manifest, self._repository.name, before)
        old = await self._call("BatchGetImage", get)
        put = partial(
            self._transport.put_manifest,
            self._repository.name,
            old.raw,
            old.media_type,
            old.digest,
            tag,
        )
        # Already existing means that it points there.
        with contextlib.suppress(ManifestExistsError):
            await self._call("PutImage", put)
        self._manifests.forget_where(lambda key: key[1] == tag)
        await self._journal.note_manifest(self._repository, before, tag)
        return True

    async def ask(self) -> None:
        """Ask which blobs the repository has, for all of its images together.

        :raises AsyncpushError: it does not tell.
        """
        await self.blobs.there(self._plan.blobs)

    async def available(self, image: PlannedImage) -> dict[Digest, bool]:
        """Whether the repository has each of an image's blobs."""
        return await self.blobs.there(self._plan.blobs_of(image))

    async def _commit_once(self, digest: Digest, tag: str | None, tally: Tally) -> None:
        """Commit a manifest unless this run, or an earlier one of the job, has done so."""
        # A blob that was missing belies what the journal has of the manifests that name it.
        known = not tally.brought_blobs
        if known and await self._journal.is_committed(self._repository, digest, tag):
            self._references(self._plan.manifests[digest])
            if tag is not None:
                tally.tags[tag] = self._tag_result(tag, TagStatus.MOVED_EARLIER)
            return
        existed = await self._ensure_manifest(self._plan.manifests[digest], tag, tally)
        if tag is not None:
            status = TagStatus.UNCHANGED if existed else TagStatus.MOVED
            tally.tags[tag] = self._tag_result(tag, status)

    def _tag_result(self, tag: str, status: TagStatus) -> TagResult:
        return TagResult(tag, status, self._previous.get(tag))

    async def _ensure_manifest(
        self, manifest: PlannedManifest, tag: str | None, tally: Tally
    ) -> bool:
        """Commit a manifest once; whether it was there before."""
        if tag is None and manifest.digest in self._by_digest:
            return True
        existed, _ = await self._manifests.do(
            (manifest.digest, tag), partial(self._commit, manifest, tag, tally)
        )
        return existed

    async def _commit(self, manifest: PlannedManifest, tag: str | None, tally: Tally) -> bool:
        begin = time.monotonic()
        try:
            existed = await self._put_or_mend(manifest, tag, tally)
        except AsyncpushError as exc:
            file = getattr(manifest.source, "path", None)
            raise exc.at(digest=manifest.digest, tag=tag, file=file) from exc.__cause__
        self._by_digest.add(manifest.digest)
        self._references(manifest)
        await self._journal.note_manifest(self._repository, manifest.digest, tag)
        tally.manifests_sent += not existed
        seconds = time.monotonic() - begin
        self._emit(ManifestCommitted(str(self._repository), manifest.digest, tag, existed, seconds))
        return existed

    def _references(self, manifest: PlannedManifest) -> None:
        if self.blobs.mounts is not None:
            self.blobs.mounts.committed(self._repository, manifest.blobs)

    async def _put_or_mend(self, manifest: PlannedManifest, tag: str | None, tally: Tally) -> bool:
        """Commit a manifest; what the registry has lost meanwhile is sent once more.

        :return: whether it was there before.
        """
        try:
            return await self._put(manifest, tag)
        except BlobsNotFoundError:
            self.blobs.mend(manifest.blobs)
            await self.blobs.ensure(manifest.blobs, tally)
        except ManifestsNotFoundError:
            for digest in self._plan.needs_of(manifest):
                self._by_digest.discard(digest)
                self._manifests.forget((digest, None))
                await self._ensure_manifest(self._plan.manifests[digest], None, tally)
        return await self._put(manifest, tag)

    async def _put(self, manifest: PlannedManifest, tag: str | None) -> bool:
        async with self._context.limits.memory.hold(manifest.size * _MANIFEST_COPIES):
            raw = await self._context.reads.manifest(manifest.source, manifest.digest)
            put = partial(
                self._transport.put_manifest,
                self._repository.name,
                raw,
                manifest.media_type,
                manifest.digest,
                tag,
            )
            try:
                await self._call("PutImage", put)
            except ManifestExistsError:
                return True
            except RefusedError as exc:
                if manifest.is_artifact:
                    raise
                raise RegistryError(exc.message, **exc.where) from exc
            return False

    async def _ask(self, digests: Sequence[Digest]) -> set[Digest]:
        name, where = "BatchCheckLayerAvailability", str(self._repository)
        ask = partial(self._transport.available, self._repository.name, digests)
        if self._may_create or self._context.options.create is None:
            return await self._call(name, ask)
        try:
            return await self._context.call(name, where, ask)
        except RepositoryNotFoundError:
            return set()

    async def _call(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        where = str(self._repository)
        try:
            return await self._context.call(name, where, call)
        except RepositoryNotFoundError:
            if self._context.options.create is None:
                raise
        await self._created.do(where, self._create)
        return await self._context.call(name, where, call)

    async def _create(self) -> None:
        settings = self._context.options.create
        assert settings is not None
        where = str(self._repository)
        create = partial(self._transport.create_repository, self._repository.name, settings)
        await self._context.call("CreateRepository", where, create)
        self._emit(RepositoryCreated(where))
