"""Targets are connected to while sources are still being asked, so that the one hides the other."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

import anyio
import anyio.from_thread

from asyncpush.errors import AsyncpushError
from asyncpush.plan.items import Item
from asyncpush.plan.reference import AnyRegistry
from asyncpush.plan.sources import is_remote


@contextlib.asynccontextmanager
async def connecting_ahead(
    connect: Callable[[AnyRegistry], Awaitable[object]],
) -> AsyncIterator[Callable[[Iterable[Item]], Iterator[Item]]]:
    """Connect the registries that items go to, in the background, while the context lasts.

    What fails is left to those who need the registry; what has not ended by then is cancelled.

    :param connect: connects one registry; those who ask for it at the same moment share the work.
    :return: passes items through, on the thread that plans them.
    """
    seen: set[AnyRegistry] = set()

    async def one(registry: AnyRegistry) -> None:
        with contextlib.suppress(AsyncpushError):
            await connect(registry)

    def passing(items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            for registry in _registries(item):
                if registry not in seen:
                    seen.add(registry)
                    anyio.from_thread.run_sync(tasks.start_soon, one, registry)
            yield item

    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield passing
        except Exception as exc:  # noqa: BLE001 - raised below, outside of the task group
            failure = exc
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _registries(item: Item) -> Iterable[AnyRegistry]:
    """Where an item goes, unless it is read from this machine, which takes no time."""
    source, _ = item.opens
    if source and not is_remote(source):
        return ()
    try:
        return item.registries
    except AsyncpushError:
        return ()  # It fails when it is planned.
