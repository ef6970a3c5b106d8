"""Shapes of concurrent work that know nothing of registries: each-of-many, once-per-key, bytes."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterable
from typing import Any, Generic, TypeVar

import anyio

from asyncpush.errors import AsyncpushError, TransientError

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


async def for_each(items: Iterable[T], limit: int, work: Callable[[T], Awaitable[None]]) -> None:
    """Run work on each item, at most ``limit`` at a time, without a task for each item.

    After the first error no further item is begun; what runs already ends in its own way, since
    others may wait for it, and then the error is raised.

    :raises AsyncpushError: the first one that work raised.
    """
    errors: list[AsyncpushError] = []
    pending = iter(items)

    async def worker() -> None:
        for item in pending:
            try:
                await work(item)
            except AsyncpushError as exc:
                errors.append(exc)
            if errors:
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(limit):
            tasks.start_soon(worker)
    if errors:
        raise errors[0]


async def beside(
    work: Callable[[], Awaitable[T]], aside: Callable[[], Coroutine[Any, Any, None]]
) -> T:
    """Do work, and something else meanwhile, which must not fail; both have ended then.

    :raises Exception: what work raised; the other is cancelled then.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(aside)
        try:
            result = await work()
        except Exception as exc:  # noqa: BLE001 - raised below, outside of the task group
            failure = exc
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return result


class Once(Generic[K, T]):
    """Work done once for each key, however many ask for it at the same moment.

    A transient failure is the failure of the one who worked; the next who waits tries again, up to
    ``tries`` times in all. Any other failure is everyone's.
    """

    def __init__(self, tries: int = 3) -> None:
        self._tries = tries
        self._done: dict[K, T] = {}
        self._running: dict[K, anyio.Event] = {}
        self._failures: dict[K, int] = {}
        self._failed: dict[K, AsyncpushError] = {}

    def done(self, key: K) -> bool:
        """Whether the key's work has succeeded."""
        return key in self._done

    def result(self, key: K) -> T | None:
        """What the key's work gave; None if it has not succeeded."""
        return self._done.get(key)

    def forget(self, key: K) -> None:
        """Let the key's work be done again."""
        self._done.pop(key, None)

    def forgive(self) -> None:
        """Let all work that failed be tried again."""
        self._failures.clear()
        self._failed.clear()

    async def do(self, key: K, work: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The result of the key's work, and whether this very call did it."""
        while True:
            if key in self._done:
                return self._done[key], False
            if key in self._failed:
                raise self._failed[key].again()
            running = self._running.get(key)
            if running is None:
                return await self._work(key, work), True
            await running.wait()

    async def _work(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        ended = self._running[key] = anyio.Event()
        try:
            result = await work()
        except AsyncpushError as exc:
            self._failures[key] = self._failures.get(key, 0) + 1
            if not isinstance(exc, TransientError) or self._failures[key] >= self._tries:
                # Whoever gets it adds places to it, so that each needs an error of its own.
                self._failed[key] = exc.again()
            raise
        else:
            self._done[key] = result
            return result
        finally:
            # Also when cancelled: whoever waits takes the work over.
            del self._running[key]
            ended.set()


class ByteLimiter:
    """Bounds the sum of bytes that are held at the same time; first come, first served.

    :param total: bytes. A request for more than that waits until it can have all of them.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    @contextlib.asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold a number of bytes while the context lasts."""
        size = await self.reserve(size)
        try:
            yield
        finally:
            self.give(size)

    async def reserve(self, size: int) -> int:
        """Have ``size`` bytes, or all that there are if that is less.

        :return: the bytes to give back.
        """
        size = min(size, self.total)
        if not self._waiting and self._fits(size):
            self.used += size
            return size
        ticket = (size, anyio.Event())
        self._waiting.append(ticket)
        try:
            await ticket[1].wait()
        except BaseException:
            # Cancelled, maybe in the moment in which the bytes were granted.
            if ticket[1].is_set():
                self.give(size)
            else:
                self._waiting.remove(ticket)
                self._grant()
            raise
        return size

    def give(self, size: int) -> None:
        """Give bytes back."""
        self.used -= size
        self._grant()

    def _fits(self, size: int) -> bool:
        return self.used + size <= self.total

    def _grant(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, event = self._waiting.popleft()
            self.used += size
            event.set()
