"""Which blobs a repository has: asked in full batches, for all images together, each blob once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

import anyio
import anyio.lowlevel

from asyncpush.errors import AsyncpushError, TransientError
from asyncpush.oci.digest import Digest

BATCH = 100
"""Digests in one call (API reference, BatchCheckLayerAvailability: layerDigests has 1 to 100)."""


class Availability:
    """What is known of one repository's blobs.

    :param ask: asks the registry which of at most 100 blobs it has; retries are its business.
    """

    def __init__(self, ask: Callable[[Sequence[Digest]], Awaitable[set[Digest]]]) -> None:
        self._ask = ask
        self._known: dict[Digest, bool] = {}
        self._waiting: dict[Digest, None] = {}
        self._lock = anyio.Lock()
        self._failure: AsyncpushError | None = None

    async def has(self, digests: Iterable[Digest]) -> dict[Digest, bool]:
        """Whether the repository has each of these blobs, as far as anyone knows by now.

        While one call is on its way, the questions of all other images gather for the next.

        :raises RegistryError: the call failed. A failure that may pass is this caller's alone, and
            the others ask again; any other is everyone's, since all ask about one repository.
        """
        wanted = list(digests)
        self._waiting.update((d, None) for d in wanted if d not in self._known)
        while any(digest not in self._known for digest in wanted):
            async with self._lock:
                if self._failure is not None:
                    raise self._failure.with_traceback(None)
                # Images that start in the same moment get to add theirs first.
                await anyio.lowlevel.checkpoint()
                self._waiting.update((d, None) for d in wanted if d not in self._known)
                batch = [d for d, _ in zip(self._waiting, range(BATCH), strict=False)]
                if batch:
                    await self._ask_batch(batch)
        return {digest: self._known[digest] for digest in wanted}

    def known(self) -> set[Digest]:
        """The blobs that the repository is known to have."""
        return {digest for digest, there in self._known.items() if there}

    def lacks(self, digest: Digest) -> bool:
        """Whether it is known that the repository does not have a blob."""
        return self._known.get(digest) is False

    def learn(self, digest: Digest) -> None:
        """Note that the repository has a blob now."""
        self._known[digest] = True

    def forget(self, digests: Iterable[Digest]) -> None:
        """Let these blobs be asked about again."""
        for digest in digests:
            self._known.pop(digest, None)

    async def _ask_batch(self, batch: Sequence[Digest]) -> None:
        # A digest that the answer does not list, not even among its failures, counts as missing.
        try:
            found = await self._ask(batch)
        except TransientError:
            raise
        except AsyncpushError as exc:
            self._failure = exc
            raise
        for digest in batch:
            self._known[digest] = digest in found
            self._waiting.pop(digest, None)
