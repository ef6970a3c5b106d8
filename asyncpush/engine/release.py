"""All or nothing: everything by digest in all registries first, then the tags."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from asyncpush.engine.events import EventSink, ImageStaged, TagsMoving, Warned
from asyncpush.engine.outcome import ImagePush
from asyncpush.engine.results import ImageStatus, TagStatus
from asyncpush.errors import AccessDeniedError, AsyncpushError

ForEach = Callable[[Sequence[ImagePush], Callable[[ImagePush], Awaitable[None]]], Awaitable[None]]
"""Runs work on many images, bounded, each registry on its own."""


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

    async def run(self, *, possible: bool, rollback: bool) -> None:
        """Push all by digest and, if that worked everywhere, move all tags.

        :param possible: False if some image cannot be pushed at all, so that no tag may move.
        :param rollback: return the tags that moved if one of them cannot be moved.
        """
        await self._for_each(self._pushes, self._stage)
        staged = [push for push in self._pushes if push.error is None]
        # What the user lets pass when it is refused holds nothing up, also here.
        failed = any(push.status is ImageStatus.FAILED for push in self._pushes)
        if failed or not possible:
            for push in staged:
                push.status = ImageStatus.STAGED
                self._finish(push)
            return
        noted = rollback and await self._note(staged)
        self._emit(TagsMoving(sum(len(push.image.tags) for push in staged)))
        await self._for_each(staged, self._move)
        if noted and any(push.error is not None for push in staged):
            await self._for_each(staged, self._return)
        for push in staged:
            returned = any(t.status is TagStatus.RETURNED for t in push.tally.tags.values())
            if returned and push.error is None:
                push.status = ImageStatus.STAGED
            self._finish(push)

    async def _stage(self, push: ImagePush) -> None:
        await push.run(lambda repository: repository.stage(push.image, push.tally))
        if push.error is not None:
            self._finish(push)
        else:
            self._emit(ImageStaged(push.image.reference, str(push.image.repository)))

    async def _move(self, push: ImagePush) -> None:
        await push.run(lambda repository: repository.move_tags(push.image, push.tally))

    async def _note(self, pushes: Sequence[ImagePush]) -> bool:
        """Note where all tags point; False if that is not granted everywhere."""
        tags: dict[str, tuple[ImagePush, dict[str, None]]] = {}
        for push in pushes:
            _, wanted = tags.setdefault(str(push.image.repository), (push, {}))
            wanted.update(dict.fromkeys(push.image.tags))
        denied: list[AccessDeniedError] = []

        async def note(push: ImagePush) -> None:
            wanted = tags[str(push.image.repository)][1]
            try:
                await (await push.repository()).note_tags(list(wanted))
            except AccessDeniedError as exc:
                denied.append(exc)

        await self._for_each([push for push, _ in tags.values()], note)
        if denied:
            self._emit(Warned(f"tags that move cannot be returned: {denied[0]}"))
        return not denied

    async def _return(self, push: ImagePush) -> None:
        """Return an image's tags to what they pointed to, those that moved."""
        repository = await push.repository()
        for tag, result in push.tally.tags.items():
            if result.status not in (TagStatus.MOVED, TagStatus.MOVED_EARLIER):
                continue
            try:
                returned = await repository.return_tag(tag)
            except AsyncpushError as exc:
                self._emit(Warned(f"the tag {tag} was not returned: {exc}"))
                continue
            if returned:
                push.tally.tags[tag] = replace(result, status=TagStatus.RETURNED)
            else:
                where = push.image.repository
                self._emit(
                    Warned(f"the tag {tag} in {where} is new and stays; delete it if it must go")
                )
