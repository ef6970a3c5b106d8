"""Where one repository's tags point: before a push moves them, now, and back again."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from asyncpush.engine.context import Context
from asyncpush.engine.events import Warned
from asyncpush.engine.journal import NoJournal
from asyncpush.engine.questions import BATCH, Questions
from asyncpush.engine.results import TagResult, TagStatus
from asyncpush.engine.work import Once
from asyncpush.errors import (
    AsyncpushError,
    ManifestExistsError,
    ThrottledError,
    TransientError,
)
from asyncpush.oci.digest import Digest, verify
from asyncpush.plan.reference import Repository

MANIFEST_COPIES = 5
"""How often a manifest on its way stands in memory: as bytes, as text, in the request's JSON,
escaped there."""

_QUESTION = "BatchGetImage"

K = TypeVar("K")
T = TypeVar("T")


@contextlib.contextmanager
def noting_doubt(doubt: set[K], key: K) -> Iterator[None]:
    """Add a key to a set if the call that is made inside may have acted although it failed."""
    try:
        yield
    except ThrottledError:
        raise
    except TransientError:
        doubt.add(key)
        raise


class Call(Protocol):
    """Makes one of a repository's calls at its pace, with retries."""

    async def __call__(self, name: str, call: Callable[[], Awaitable[T]], /) -> T: ...


async def where_tags_point(
    context: Context, repository: Repository, tags: Sequence[str]
) -> dict[str, Digest | None]:
    """What tags point to, None for those that do not exist; a push can do without.

    :return: nothing of the tags about which the registry says nothing.
    """
    found: dict[str, Digest | None] = {}
    for i in range(0, len(tags), BATCH):
        batch = tags[i : i + BATCH]
        ask = partial(context.transport.tagged, repository.name, batch)
        attempt = partial(context.attempt, _QUESTION, str(repository), ask)
        answer: dict[str, Digest] | None = await context.reading_tags.make(attempt)
        if answer is None:
            return found
        found.update((tag, answer.get(tag)) for tag in batch)
    return found


class RepositoryTags:
    """The tags of one repository, as far as a push has to do with them.

    What a tag points to is a question of its own. PutImage does not answer it: "exists" may be what
    the call itself has done, when its first answer was lost. Nor does a journal: others write tags,
    too.

    :param tags: all tags that the push gives.
    :param call: makes the calls.
    :param elsewhere: those that were found, when the push was planned, to point elsewhere or to
        nothing, with what they pointed to. Were one of them moved since, it is moved again, which
        changes nothing.
    """

    def __init__(
        self,
        repository: Repository,
        tags: Mapping[str, Digest],
        context: Context,
        journal: NoJournal,
        call: Call,
        elsewhere: Mapping[str, Digest | None],
    ) -> None:
        self._repository = repository
        self._context = context
        self._transport = context.transport
        self._journal = journal
        self._call = call
        self._questions: Questions[str, Digest | None] = Questions(self._try_to_ask, tags)
        for tag, digest in elsewhere.items():
            self._questions.learn(tag, digest)
        self._previous: dict[str, Digest | None] = {}
        self._after: Mapping[str, Digest | None] | None = None
        # Tags whose return may have acted although its answer was lost.
        self._in_doubt: set[str] = set()
        self._returned: Once[str, TagStatus] = Once()

    async def all_point_to(self, tags: Sequence[str], digest: Digest) -> bool:
        """Whether it is proven that tags point to a digest; each is asked about once.

        A push can do without this question, so it fails nothing.

        :return: False also where the registry does not answer, or may not be asked, which costs one
            call for all of its repositories.
        """
        found = await self._context.reading_tags.make(partial(self._questions.get, tags))
        if found is None:
            return False
        return all(found[tag] == digest for tag in tags)

    def points_elsewhere(self, tag: str, digest: Digest) -> bool:
        """Whether a tag is known not to point to a digest."""
        known = self._questions.known()
        return tag in known and known[tag] != digest

    def ask_again(self) -> None:
        """Forget what tags point to: others may have moved them since."""
        self._questions.ask_again()

    def moved(self, tag: str, digest: Digest) -> None:
        """Note what a tag points to now."""
        self._questions.learn(tag, digest)

    async def note(self, roots: Mapping[str, Digest]) -> None:
        """Ask and note what tags point to before they move, so that they can be returned there.

        :param roots: what each tag is to point to.
        :raises RegistryError: the registry does not answer, or may not be asked.
        """
        found = await self._ask_all(roots)
        self._previous.update(await self._journal.note_previous(self._repository, found, roots))

    def result(self, tag: str, root: Digest, *, existed: bool, earlier: bool) -> TagResult:
        """What became of a tag that points to its image now.

        :param existed: whether it did so before this run moved it, as far as the registry's answers
            tell.
        :param earlier: whether an earlier run of the job has moved it.
        """
        if tag in self._previous and self._previous[tag] == root:
            status = TagStatus.UNCHANGED
        elif not existed:
            status = TagStatus.MOVED
        elif earlier or tag in self._previous:
            status = TagStatus.MOVED_EARLIER
        else:
            status = TagStatus.UNCHANGED
        return self.so(tag, status)

    def lost(self, tag: str, root: Digest) -> TagResult:
        """What became of a tag when the last answer to the call that moves it was lost."""
        unchanged = tag in self._previous and self._previous[tag] == root
        return self.so(tag, TagStatus.UNCHANGED if unchanged else TagStatus.UNKNOWN)

    def so(self, tag: str, status: TagStatus) -> TagResult:
        """A tag's result, with what it pointed to before where that is known."""
        return TagResult(tag, status, self._previous.get(tag))

    async def look(self, tags: Iterable[str]) -> None:
        """Ask what tags point to after some have moved and one could not.

        :raises RegistryError: the registry does not answer.
        """
        self._after = await self._ask_all(tags)

    async def give_back(self, tag: str, root: Digest, known: TagStatus | None) -> TagStatus:
        """Let a tag point again to what it pointed to when :meth:`note` asked, if it has moved.

        :param root: what it was to point to.
        :param known: what the calls that moved it were answered; it counts where :meth:`look` could
            not find out.
        """
        work = partial(self._give_back, tag, root, known)
        status, _ = await self._returned.do(tag, work)
        return status

    async def _give_back(self, tag: str, root: Digest, known: TagStatus | None) -> TagStatus:
        before = self._previous[tag]
        moved = TagStatus.MOVED
        if self._after is not None:
            now = self._after[tag]
            if now != root:
                if now != before:
                    self._warn(f"the tag {tag} in {self._repository} was moved by somebody else")
                await self._forget(tag)
                return TagStatus.NOT_MOVED
        elif known is None:
            return TagStatus.NOT_MOVED
        else:
            # Where it may have moved, putting it back does no harm if it has not.
            moved = known
        if before == root:
            return TagStatus.UNCHANGED
        if before is None:
            self._warn(
                f"the tag {tag} in {self._repository} is new and stays; delete it if it must go"
            )
            return moved
        try:
            await self._put_back(tag, before)
        except AsyncpushError as exc:
            self._warn(f"the tag {tag} was not returned: {exc}")
            return TagStatus.UNKNOWN if tag in self._in_doubt else moved
        await self._forget(tag)
        return TagStatus.RETURNED

    async def _forget(self, tag: str) -> None:
        """The job has not moved a tag any more; the next run finds it as others do."""
        try:
            await self._journal.forget_tag(self._repository, tag)
        except AsyncpushError as exc:
            self._warn(
                f"the tag {tag} in {self._repository} is as it was, which is not noted: {exc}"
            )

    async def _put_back(self, tag: str, before: Digest) -> None:
        name = self._repository.name
        get = partial(self._transport.get_manifest, name, before)
        old = await self._call(_QUESTION, get)
        verify(old.raw, before)

        async def put() -> None:
            async with self._context.limits.memory.hold(len(old.raw) * MANIFEST_COPIES):
                with noting_doubt(self._in_doubt, tag):
                    await self._transport.put_manifest(name, old.raw, old.media_type, before, tag)

        try:
            await self._call("PutImage", put)
        except ManifestExistsError:
            return  # It points there.

    async def _ask_all(self, tags: Iterable[str]) -> dict[str, Digest | None]:
        """Ask now, whatever was answered before."""
        wanted = list(tags)
        found: dict[str, Digest | None] = {}
        for i in range(0, len(wanted), BATCH):
            found.update(await self._ask(wanted[i : i + BATCH]))
        return found

    async def _ask(self, tags: Sequence[str]) -> dict[str, Digest | None]:
        ask = partial(self._transport.tagged, self._repository.name, tags)
        found = await self._call(_QUESTION, ask)
        return {tag: found.get(tag) for tag in tags}

    async def _try_to_ask(self, tags: Sequence[str]) -> dict[str, Digest | None]:
        ask = partial(self._transport.tagged, self._repository.name, tags)
        found = await self._context.attempt(_QUESTION, str(self._repository), ask)
        return {tag: found.get(tag) for tag in tags}

    def _warn(self, text: str) -> None:
        self._context.emit(Warned(text))
