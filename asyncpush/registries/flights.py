"""Work that is shared by all who want the same at the same moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio

from asyncpush.errors import AsyncpushError

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(slots=True, eq=False)
class _Flight(Generic[T]):
    ended: anyio.Event = field(default_factory=anyio.Event)
    results: list[T] = field(default_factory=list)
    error: AsyncpushError | None = None


class Flights(Generic[K, T]):
    """Does work for a key once for all who ask for it while it is being done; keeps nothing.

    A failure is raised to all of them, to each as an error of its own. Where the one who does the
    work is cancelled, the next one who waits does it.
    """

    def __init__(self) -> None:
        self._flying: dict[K, _Flight[T]] = {}

    async def do(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """The result of the key's work."""
        while (flight := self._flying.get(key)) is not None:
            await flight.ended.wait()
            if flight.results:
                return flight.results[0]
            if flight.error is not None:
                raise flight.error.again()
        flight = self._flying[key] = _Flight()
        try:
            result = await work()
        except AsyncpushError as exc:
            # A copy, since whoever catches this one may add places to it before others see it.
            flight.error = exc.again()
            flight.error.__cause__ = exc.__cause__
            raise
        else:
            flight.results.append(result)
            return result
        finally:
            del self._flying[key]
            flight.ended.set()
