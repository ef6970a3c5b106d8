"""The blobs of one repository: which it has, and how those that it lacks get there, each once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace
from enum import Enum
from functools import partial

from asyncpush.engine.availability import Availability
from asyncpush.engine.context import Context
from asyncpush.engine.events import BlobExists, LayerComplete, LayerFailed, Warned
from asyncpush.engine.journal import NoJournal
from asyncpush.engine.mountcalls import NOT_MOUNTED
from asyncpush.engine.mounting import Mounts
from asyncpush.engine.promotion import Promotion
from asyncpush.engine.tally import Tally
from asyncpush.engine.upload import BlobUpload
from asyncpush.engine.work import Once, for_each
from asyncpush.errors import AsyncpushError, ContentError, DigestMismatchError
from asyncpush.oci.digest import Digest
from asyncpush.oci.remote import RemoteBlob
from asyncpush.plan.graph import PlannedBlob, RepositoryPlan
from asyncpush.registries.base import MountAnswer, UploadSession


class _Way(Enum):
    """How a blob got into the repository."""

    EXISTED = "existed"
    SENT = "sent"
    MOUNTED = "mounted"


class RepositoryBlobs:
    """The blobs of one repository, shared by all images that go there.

    :param ask: asks the registry which of at most 100 blobs the repository has.
    """

    def __init__(
        self,
        plan: RepositoryPlan,
        context: Context,
        journal: NoJournal,
        ask: Callable[[Sequence[Digest]], Awaitable[set[Digest]]],
    ) -> None:
        self._blobs = plan.blobs
        self._others = plan.others
        self._repository = plan.repository
        self._context = context
        self._journal = journal
        self._availability = Availability(ask)
        self._done: Once[Digest, _Way] = Once()
        self._lost: set[Digest] = set()
        self._promotion = Promotion(plan, context)
        self.mounts: Mounts | None = None
        """Where blobs can be mounted from; None where nothing is shared."""

    async def there(self, digests: Iterable[Digest]) -> dict[Digest, bool]:
        """Whether the repository has each of these blobs."""
        return await self._availability.has(digests)

    def known(self) -> set[Digest]:
        """The blobs that the repository is known to have."""
        return self._availability.known()

    def brought(self, digest: Digest) -> bool:
        """Whether the repository lacked a blob, and has it from this push."""
        return self._done.result(digest) in (_Way.SENT, _Way.MOUNTED)

    def lacking(self, digests: Iterable[Digest]) -> dict[Digest, int]:
        """Those of these blobs that the repository is known to lack, with their bytes."""
        return {d: self._blobs[d].size for d in digests if self._availability.lacks(d)}

    def mend(self, digests: Collection[Digest]) -> None:
        """Let these blobs be asked about again, and be uploaded if they are gone."""
        self._lost.update(digests)
        self._availability.forget(digests)
        for digest in digests:
            self._done.forget(digest)

    async def ensure(self, digests: Sequence[Digest], tally: Tally) -> None:
        """Bring what the repository lacks of these blobs.

        What is to come from another repository has its turn when all else is there: by then it may
        be ready to be mounted.

        :raises AsyncpushError: the first failure.
        """
        # Largest first, so that none of the largest begins when all others have ended.
        digests = sorted(digests, key=lambda digest: -self._blobs[digest].size)
        there = await self.there(digests)
        self._context.reads.alive(self._repository.registry.host)
        own: list[Digest] = []
        following: list[Digest] = []
        for digest in digests:
            if there[digest]:
                await self._note_existing(digest, tally)
            elif self._follows(self._blobs[digest]):
                following.append(digest)
            else:
                own.append(digest)
        for some in (own, following):
            work = partial(self._ensure, together=some, tally=tally)
            await for_each(some, min(len(some), self._context.options.layers), work)

    async def note_existing(self, digests: Iterable[Digest], tally: Tally) -> None:
        """Note blobs that are known to be there without a question about them."""
        digests = list(digests)
        self.learn(digests)
        for digest in digests:
            await self._note_existing(digest, tally)

    def learn(self, digests: Iterable[Digest]) -> None:
        """Note that the repository has blobs, which was not asked."""
        for digest in digests:
            self._availability.learn(digest)

    async def _note_existing(self, digest: Digest, tally: Tally) -> None:
        tally.blobs_existing += 1
        if not self._done.done(digest):
            await self._done.do(digest, partial(self._find, self._blobs[digest]))

    async def _find(self, blob: PlannedBlob) -> _Way:
        self._context.emit(BlobExists(str(self._repository), blob.digest, blob.size))
        self._has(blob)
        return _Way.EXISTED

    async def _ensure(self, digest: Digest, together: Collection[Digest], tally: Tally) -> None:
        work = partial(self._bring, self._blobs[digest], together, tally)
        way, here = await self._done.do(digest, work)
        if here and way is _Way.SENT:
            tally.blobs_sent += 1
        elif here and way is _Way.MOUNTED:
            tally.blobs_mounted += 1
            tally.bytes_mounted += self._blobs[digest].size
        else:
            tally.blobs_existing += 1

    async def _bring(self, blob: PlannedBlob, together: Collection[Digest], tally: Tally) -> _Way:
        """Mount a blob or upload it."""
        answer = await self._mount(blob, together)
        if answer.mounted:
            await self._journal.end_upload(self._repository, blob.digest)
        else:
            await self._upload(blob, answer.session, tally)
        self._availability.learn(blob.digest)
        self._has(blob)
        return _Way.MOUNTED if answer.mounted else _Way.SENT

    async def _mount(self, blob: PlannedBlob, together: Collection[Digest]) -> MountAnswer:
        # A mount that left nothing behind is not worth another one.
        if blob.digest in self._lost:
            return NOT_MOUNTED
        answer = await self._promotion.get(blob)
        if self.mounts is None:
            return answer or NOT_MOUNTED
        if answer is None:
            return await self.mounts.get(self._repository, blob.digest, together)
        if not answer.mounted:
            self.mounts.uploads(self._repository, blob.digest)
        return answer

    def _follows(self, blob: PlannedBlob) -> bool:
        """Whether a blob is to come from a repository that gets it before."""
        if self.mounts is None or self._promotion.source(blob) is not None:
            return False
        return self.mounts.follows(self._repository, blob.digest)

    def _has(self, blob: PlannedBlob) -> None:
        self._forgo(blob)
        if self.mounts is not None:
            self.mounts.stored(self._repository, [blob.digest])

    def _forgo(self, blob: PlannedBlob) -> None:
        """Let other registries that read this blob wait for this one no longer."""
        if isinstance(blob.source, RemoteBlob):
            self._context.reads.forgo(blob.source, self._repository.registry.host)

    async def _upload(self, blob: PlannedBlob, opened: UploadSession | None, tally: Tally) -> None:
        """Upload a blob; from its next source, where one does not give it."""
        others = iter(self._others.get(blob.digest, ()))
        while True:
            try:
                await self._upload_from(blob, opened, tally)
            except AsyncpushError as exc:
                # What is wrong with the target is no better with another source.
                if not isinstance(exc, ContentError) and "source" not in exc.where:
                    raise
                other = next(others, None)
                if other is None:
                    raise
                self._context.emit(Warned(f"{exc}; reading it from {other.origin.name} instead"))
                blob, opened = replace(blob, source=other), None
            else:
                return

    async def _upload_from(
        self, blob: PlannedBlob, opened: UploadSession | None, tally: Tally
    ) -> None:
        upload = BlobUpload(self._context, self._journal, self._repository, blob, opened)
        try:
            await upload.run()
        except AsyncpushError as exc:
            self._forgo(blob)
            if isinstance(exc, DigestMismatchError):
                # What the session holds is worth nothing; a later run must not go on with it.
                await self._journal.end_upload(self._repository, blob.digest)
            exc.at(digest=blob.digest, file=getattr(blob.source, "path", None))
            where = str(self._repository)
            self._context.emit(LayerFailed(where, blob.digest, blob.size, upload.sent, exc))
            raise
        finally:
            tally.bytes_sent += upload.sent
        complete = LayerComplete(str(self._repository), blob.digest, blob.size, upload.sent)
        self._context.emit(complete)
