"""All that goes on in one repository: each blob, manifest and tag once, in the order of safety."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from asyncpush.engine.blobs import RepositoryBlobs
from asyncpush.engine.context import Context
from asyncpush.engine.events import ManifestCommitted, RepositoryCreated
from asyncpush.engine.journal import NoJournal
from asyncpush.engine.retry import NotNeededError
from asyncpush.engine.tags import MANIFEST_COPIES, RepositoryTags, noting_doubt
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
from asyncpush.plan.reference import Registry

T = TypeVar("T")


def _never() -> bool:
    return False


class RepositoryPush:
    """The push into one repository, shared by all images that go there.

    :param pointing: what tags were found to point to when the push was planned, None for nothing.
    :param create: whether it may be created if it is missing, where the options ask for that; if it
        may not, it is looked at as if it had been.
    """

    def __init__(
        self,
        plan: RepositoryPlan,
        context: Context,
        journal: NoJournal,
        pointing: Mapping[str, Digest | None] = {},
        *,
        create: bool = True,
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
        # Commits that have acted in this run, or may have: the answer was lost.
        self._acted: set[tuple[Digest, str | None]] = set()
        # Those that point to their images already are asked about again: others may move them.
        elsewhere = {
            tag: pointing[tag]
            for tag, root in plan.tags.items()
            if tag in pointing and pointing[tag] != root
        }
        self._tags = RepositoryTags(
            self._repository, plan.tags, context, journal, self._call, elsewhere
        )

    async def push(self, image: PlannedImage, tally: Tally) -> None:
        """Push one image: its blobs, then what it needs, then itself with its tags.

        :raises AsyncpushError: the first failure; what was done by then stays done.
        """
        if await self._is_there(image, tally):
            return
        await self.blobs.ensure(list(self._plan.blobs_of(image)), tally)
        for digest in image.manifests:
            if digest != image.root or not image.tags:
                await self._commit_untagged(image, digest, tally)
        await self.move_tags(image, tally)

    async def stage(self, image: PlannedImage, tally: Tally) -> None:
        """Push one image by digest; its tags stay where they are.

        :raises AsyncpushError: the first failure; what was done by then stays done.
        """
        if await self._is_there(image, tally):
            return
        await self.blobs.ensure(list(self._plan.blobs_of(image)), tally)
        for digest in image.manifests:
            await self._commit_untagged(image, digest, tally)

    async def move_tags(
        self, image: PlannedImage, tally: Tally, stopped: Callable[[], bool] = _never
    ) -> None:
        """Let an image's tags point to it; all that it needs is there.

        :param stopped: whether no further tag is to move; the tally says which have.
        :raises AsyncpushError: a tag cannot be moved; those before it have been.
        """
        for tag in image.tags:
            try:
                await self._commit_tag(image.root, tag, tally, stopped)
            except NotNeededError:
                return

    def ask_again(self) -> None:
        """Let tags be asked about again before they move: others may have moved them since."""
        self._tags.ask_again()

    async def note_tags(self, roots: Mapping[str, Digest]) -> None:
        """Ask and note what tags point to, so that they can be returned there.

        :param roots: what each tag is to point to.
        :raises RegistryError: the registry does not answer, or ecr:BatchGetImage is not granted.
        """
        await self._tags.note(roots)

    async def look_at_tags(self, tags: Sequence[str]) -> None:
        """Ask what tags point to after some have moved and one could not.

        :raises RegistryError: the registry does not answer.
        """
        await self._tags.look(tags)

    async def return_tags(self, image: PlannedImage, tally: Tally) -> None:
        """Let an image's tags point again to what they pointed to before, those that have moved."""
        for tag in image.tags:
            known = tally.tags.get(tag)
            status = await self._tags.give_back(tag, image.root, known.status if known else None)
            self._manifests.forget((image.root, tag))
            tally.tags[tag] = self._tags.so(tag, status)

    async def ask(self) -> None:
        """Ask which blobs the repository has, for all of its images together.

        :raises AsyncpushError: it does not tell.
        """
        if await self._is_all_there():
            self.blobs.learn(self._plan.blobs)
        else:
            await self.blobs.there(self._plan.blobs)

    async def _is_all_there(self) -> bool:
        """Whether the repository has all of its images, which says of their blobs that they are."""
        if self._context.options.include_foreign:
            return False
        for image in self._plan.images:
            if not await self.is_unchanged(image):
                return False
        return bool(self._plan.images)

    async def is_unchanged(self, image: PlannedImage) -> bool:
        """Whether the repository has an image with all of its tags, as far as it may be asked."""
        return bool(image.tags) and await self._is_proven(image.tags, image.manifests)

    async def available(self, image: PlannedImage) -> dict[Digest, bool]:
        """Whether the repository has each of an image's blobs."""
        return await self.blobs.there(self._plan.blobs_of(image))

    async def _is_there(self, image: PlannedImage, tally: Tally) -> bool:
        """Whether all of an image's tags point to it, so that there is nothing to do.

        A registry that holds a manifest holds what it names, but for foreign layers, and maybe the
        list of what refers to a subject.
        """
        foreign = self._context.options.include_foreign
        proves = not foreign and not self._may_lack_a_list(image.manifests)
        tally.askable = bool(image.tags) and proves
        if foreign or not await self.is_unchanged(image):
            return False
        await self.blobs.note_existing(self._plan.blobs_of(image), tally)
        for digest in image.manifests:
            self._by_digest.add(digest)
            self._references(self._plan.manifests[digest])
        for tag in image.tags:
            await self._note_tag(image.root, tag, tally, existed=True)
        return True

    async def _is_proven(self, tags: Sequence[str], manifests: Sequence[Digest]) -> bool:
        """Whether tags point to the last of some manifests, and that says enough of all."""
        if self._may_lack_a_list(manifests):
            return False
        return await self._tags.all_point_to(tags, manifests[-1])

    def _may_lack_a_list(self, manifests: Sequence[Digest]) -> bool:
        """Whether the list of a subject's referrers, which is ours to write, may be unwritten."""
        subjects = (self._plan.manifests[digest].subject for digest in manifests)
        return self._transport.writes_referrers and any(subjects)

    async def _commit_untagged(self, image: PlannedImage, digest: Digest, tally: Tally) -> None:
        """Commit one of an image's manifests by digest, unless an earlier run of the job has.

        A manifest may have been removed since. Where it is needed by another one, or gets a tag,
        the registry finds out when that is committed; otherwise it is committed again to find out.
        """
        # A blob that was missing belies what the journal has of the manifests that name it.
        believed = (digest != image.root or bool(image.tags)) and not tally.brought_blobs
        if believed and await self._journal.is_committed(self._repository, digest, None):
            self._references(self._plan.manifests[digest])
        else:
            await self._ensure_manifest(self._plan.manifests[digest], None, tally)

    async def _commit_tag(
        self, root: Digest, tag: str, tally: Tally, stopped: Callable[[], bool]
    ) -> None:
        """Let a tag point to an image, unless it is proven that it does.

        :raises NotNeededError: it was stopped before it asked for that.
        """
        if stopped():
            raise NotNeededError
        # A journal is not asked for this: others may have moved the tag since.
        there = not tally.brought_blobs and await self._is_proven([tag], [root])
        if there:
            self._references(self._plan.manifests[root])
        else:
            try:
                there = await self._ensure_manifest(self._plan.manifests[root], tag, tally, stopped)
            except (AsyncpushError, NotNeededError):
                if (root, tag) in self._acted:
                    tally.tags[tag] = self._tags.lost(tag, root)
                raise
            self._tags.moved(tag, root)
        await self._note_tag(root, tag, tally, existed=there)

    async def _note_tag(self, root: Digest, tag: str, tally: Tally, *, existed: bool) -> None:
        existed = existed and (root, tag) not in self._acted
        earlier = existed and await self._journal.is_committed(self._repository, root, tag)
        tally.tags[tag] = self._tags.result(tag, root, existed=existed, earlier=earlier)

    async def _ensure_manifest(
        self,
        manifest: PlannedManifest,
        tag: str | None,
        tally: Tally,
        stopped: Callable[[], bool] = _never,
    ) -> bool:
        """Commit a manifest once; whether it was there before.

        :raises NotNeededError: it was stopped before it was sent.
        """
        if tag is None and manifest.digest in self._by_digest:
            return True
        existed, here = await self._manifests.do(
            (manifest.digest, tag), partial(self._commit, manifest, tag, tally, stopped)
        )
        if existed and here and self._cannot_ask():
            tally.tags_put += tag is not None and manifest.subject is None
            tally.manifests_put += tag is None
        return existed

    def _cannot_ask(self) -> bool:
        """Whether an action of ECR's is not granted by which tags could be asked about."""
        ecr = isinstance(self._repository.registry, Registry)
        return ecr and self._context.reading_tags.denied

    async def _commit(
        self,
        manifest: PlannedManifest,
        tag: str | None,
        tally: Tally,
        stopped: Callable[[], bool],
    ) -> bool:
        begin = time.monotonic()
        try:
            existed = await self._put_or_mend(manifest, tag, tally, stopped)
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

    async def _put_or_mend(
        self,
        manifest: PlannedManifest,
        tag: str | None,
        tally: Tally,
        stopped: Callable[[], bool],
    ) -> bool:
        """Commit a manifest; what the registry has lost meanwhile is sent once more.

        :return: whether it was there before.
        """
        try:
            return await self._put(manifest, tag, stopped)
        except BlobsNotFoundError:
            self.blobs.mend(manifest.blobs)
            await self.blobs.ensure(manifest.blobs, tally)
        except ManifestsNotFoundError:
            for digest in self._plan.needs_of(manifest):
                self._by_digest.discard(digest)
                self._manifests.forget((digest, None))
                await self._ensure_manifest(self._plan.manifests[digest], None, tally)
        return await self._put(manifest, tag, stopped)

    async def _put(
        self, manifest: PlannedManifest, tag: str | None, stopped: Callable[[], bool]
    ) -> bool:
        """Send a manifest; whether it was there before any try of this run could have acted."""
        key = (manifest.digest, tag)
        absent = self._is_absent(manifest, tag)

        async def put() -> None:
            # Inside of the retry, as parts do: a wait between two tries holds no memory.
            async with self._context.limits.memory.hold(manifest.size * MANIFEST_COPIES):
                raw = await self._context.reads.manifest(manifest.source, manifest.digest)
                if stopped():
                    raise NotNeededError
                with noting_doubt(self._acted, key):
                    await self._transport.put_manifest(
                        self._repository.name,
                        raw,
                        manifest.media_type,
                        manifest.digest,
                        tag,
                        absent=absent and key not in self._acted,
                    )

        try:
            await self._call("PutImage", put)
        except ManifestExistsError:
            return key not in self._acted
        except RefusedError as exc:
            if manifest.is_artifact:
                raise
            raise RegistryError(exc.message, **exc.where) from exc
        self._acted.add(key)
        return False

    def _is_absent(self, manifest: PlannedManifest, tag: str | None) -> bool:
        """Whether the repository is known not to have a manifest, or not under its tag.

        A registry that has a manifest has the blobs that it names; if not, to send it once more is
        what mends it.
        """
        if tag is not None:
            return self._tags.points_elsewhere(tag, manifest.digest)
        return any(self.blobs.brought(digest) for digest in manifest.blobs)

    async def _ask(self, digests: Sequence[Digest]) -> set[Digest]:
        name, where = "BatchCheckLayerAvailability", str(self._repository)
        ask = partial(self._transport.sizes, self._repository.name, digests)
        try:
            if self._may_create or self._context.options.create is None:
                found = await self._call(name, ask)
            else:
                found = await self._context.call(name, where, ask)
        except RepositoryNotFoundError:
            if self._may_create or self._context.options.create is None:
                raise
            return set()
        # A blob of another size was cut short by the registry: it counts as missing.
        blobs = self._plan.blobs
        return {digest for digest, size in found.items() if size in (None, blobs[digest].size)}

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
