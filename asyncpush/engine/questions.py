"""Questions to a registry in full batches, for all images together, each asked once."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

from asyncpush.errors import AsyncpushError, TransientError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

BATCH = 100
"""Digests or images in one call (API reference, BatchCheckLayerAvailability, layerDigests, and
BatchGetImage, imageIds: 1 to 100)."""


class Questions(Generic[K, V]):
    """What is known of things in one repository.

    :param ask: asks the registry about at most 100 of them and answers each; retries are its
        business.
    :param further: what will be asked about later, too; it fills up batches.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]],
        further: Iterable[K] = (),
    ) -> None:
        self._ask = ask
        self._further = further
        self._ahead: Iterator[K] = iter(further)
        self._known: dict[K, V] = {}
        self._waiting: dict[K, None] = {}
        self._lock = anyio.Lock()
        self._failure: AsyncpushError | None = None

    async def get(self, keys: Iterable[K]) -> dict[K, V]:
        """The answer for each key, as far as it was asked for by now.

        While one call is on its way, the questions of all other images gather for the next.

        :raises RegistryError: the call failed. A failure that may pass is this caller's alone, and
            the others ask again; any other is everyone's, since all ask about one repository.
        """
        wanted = list(keys)
        self._waiting.update((key, None) for key in wanted if key not in self._known)
        while any(key not in self._known for key in wanted):
            async with self._lock:
                if self._failure is not None:
                    raise self._failure.again()
                # Images that start in the same moment get to add theirs first.
                await anyio.lowlevel.checkpoint()
                self._waiting.update((key, None) for key in wanted if key not in self._known)
                batch = dict.fromkeys(itertools.islice(self._waiting, BATCH))
                if batch:
                    self._fill(batch)
                    await self._ask_batch(list(batch))
        return {key: self._known[key] for key in wanted}

    def known(self) -> Mapping[K, V]:
        """All answers so far."""
        return self._known

    def learn(self, key: K, value: V) -> None:
        """Note what has become of a key since."""
        self._known[key] = value

    def forget(self, keys: Iterable[K]) -> None:
        """Let these be asked about again."""
        for key in keys:
            self._known.pop(key, None)

    def ask_again(self) -> None:
        """Forget all answers: what was asked may have changed since."""
        self._known.clear()
        self._ahead = iter(self._further)

    def _fill(self, batch: dict[K, None]) -> None:
        while len(batch) < BATCH and (key := next(self._ahead, None)) is not None:
            if key not in self._known:
                batch[key] = None

    async def _ask_batch(self, batch: Sequence[K]) -> None:
        try:
            found = await self._ask(batch)
        except TransientError:
            raise
        except AsyncpushError as exc:
            self._failure = exc.again()
            raise
        for key in batch:
            self._known[key] = found[key]
            self._waiting.pop(key, None)
