"""All or nothing: everything by digest in all registries first, then the tags."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from asyncpush.engine.events import EventSink, ImageStaged, TagsMoving, Warned
from asyncpush.engine.outcome import ImagePush
from asyncpush.engine.results import ImageStatus, TagStatus
from asyncpush.errors import AccessDeniedError, AsyncpushError
from asyncpush.oci.digest import Digest

ForEach = Callable[[Sequence[ImagePush], Callable[[ImagePush], Awaitable[None]]], Awaitable[None]]
"""Runs work on many images, bounded, each registry on its own."""

# A tag that does not point to its image when the release is over, as far as is known.
_ELSEWHERE = (TagStatus.RETURNED, TagStatus.NOT_MOVED, TagStatus.UNKNOWN)


class Release:
    """One atomic push.

    :param pushes: all images of it.
    :param for_each: runs the work of a phase.
    :param finish: told of every image that has ended.
    """

    def __init__(
        self,
        pushes: Sequence[ImagePush],
        for_each: ForEach,
        finish: Callable[[ImagePush], None],
        emit: EventSink,
    ) -> None:
        self._pushes = pushes
        self._for_each = for_each
        self._finish = finish
        self._emit = emit
        # Whether a tag that does not move ends the release, and whether one has done so.
        self._returnable = False
        self._stopped = False

    async def run(self, *, possible: bool, rollback: bool) -> None:
        """Push all by digest and, if that worked everywhere, move all tags.

        :param possible: False if some image cannot be pushed at all, so that no tag may move.
        :param rollback: return the tags that moved if one of them cannot be moved.
        """
        await self._for_each(self._pushes, self._stage)
        staged = [push for push in self._pushes if push.error is None]
        # What the user lets pass when it is refused holds nothing up, also here.
        possible = possible and not any(p.status is ImageStatus.FAILED for p in self._pushes)
        if possible and rollback:
            possible = await self._note(staged)
        if not possible:
            for push in staged:
                if push.error is None:
                    push.status = ImageStatus.STAGED
                self._finish(push)
            return
        self._emit(TagsMoving(sum(len(push.image.tags) for push in staged)))
        await self._each_repository(staged, _ask_again)
        await self._for_each(staged, self._move)
        if self._stopped:
            await self._roll_back(staged)
        for push in staged:
            elsewhere = any(tag.status in _ELSEWHERE for tag in push.tags())
            if elsewhere and push.error is None:
                push.status = ImageStatus.STAGED
            self._finish(push)

    async def _stage(self, push: ImagePush) -> None:
        await push.run(lambda repository: repository.stage(push.image, push.tally))
        if push.error is not None:
            self._finish(push)
        else:
            self._emit(ImageStaged(push.image.reference, str(push.image.repository)))

    async def _move(self, push: ImagePush) -> None:
        if self._stopped:
            return
        await push.run(
            lambda repository: repository.move_tags(push.image, push.tally, lambda: self._stopped)
        )
        if self._returnable and push.status is ImageStatus.FAILED:
            # All that moves from now on would only be returned.
            self._stopped = True

    async def _note(self, pushes: Sequence[ImagePush]) -> bool:
        """Note where all tags point, so that they can be returned there.

        Where that is not granted, the release goes on without; where it cannot be found out, the
        images of that repository have failed.

        :return: whether tags may move.
        """
        denied: list[AccessDeniedError] = []
        failed = False

        async def note(some: Sequence[ImagePush]) -> None:
            nonlocal failed
            roots = _roots(some)
            try:
                await (await some[0].repository()).note_tags(roots)
            except AccessDeniedError as exc:
                denied.append(exc)
            except AsyncpushError as exc:
                failed = True
                for push in some:
                    push.fail(exc.again())

        await self._each_repository(pushes, note)
        if denied:
            self._emit(Warned(f"tags that move cannot be returned: {denied[0]}"))
        self._returnable = not denied
        return not failed

    async def _roll_back(self, pushes: Sequence[ImagePush]) -> None:
        """Return all tags that have moved, by what they point to now."""

        async def look(some: Sequence[ImagePush]) -> None:
            try:
                await (await some[0].repository()).look_at_tags(list(_roots(some)))
            except AsyncpushError as exc:
                where = some[0].image.repository
                self._emit(
                    Warned(
                        f"what the tags of {where} point to cannot be asked, so that those which"
                        f" may have moved are returned: {exc}"
                    )
                )

        async def give_back(push: ImagePush) -> None:
            try:
                await (await push.repository()).return_tags(push.image, push.tally)
            except AsyncpushError as exc:
                self._emit(Warned(f"the tags of {push.image.reference} were not returned: {exc}"))

        await self._each_repository(pushes, look)
        await self._for_each(pushes, give_back)

    async def _each_repository(
        self,
        pushes: Sequence[ImagePush],
        work: Callable[[Sequence[ImagePush]], Awaitable[None]],
    ) -> None:
        """Do work on all images of each repository together."""
        groups: dict[str, list[ImagePush]] = {}
        for push in pushes:
            groups.setdefault(str(push.image.repository), []).append(push)

        async def one(push: ImagePush) -> None:
            await work(groups[str(push.image.repository)])

        await self._for_each([some[0] for some in groups.values()], one)


async def _ask_again(pushes: Sequence[ImagePush]) -> None:
    """What tags pointed to in the first phase may be long ago."""
    (await pushes[0].repository()).ask_again()


def _roots(pushes: Sequence[ImagePush]) -> dict[str, Digest]:
    """What each tag of these images is to point to."""
    return {tag: push.image.root for push in pushes for tag in push.image.tags}
