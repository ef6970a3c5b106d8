"""Which blobs a repository has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from asyncpush.engine.questions import Questions
from asyncpush.oci.digest import Digest


class Availability:
    """What is known of one repository's blobs.

    :param ask: asks the registry which of at most 100 blobs it has; retries are its business.
    """

    def __init__(self, ask: Callable[[Sequence[Digest]], Awaitable[set[Digest]]]) -> None:
        async def answers(batch: Sequence[Digest]) -> dict[Digest, bool]:
            found = await ask(batch)
            # One that the answer does not list, not even among its failures, counts as missing.
            return {digest: digest in found for digest in batch}

        self._questions = Questions(answers)

    async def has(self, digests: Iterable[Digest]) -> dict[Digest, bool]:
        """Whether the repository has each of these blobs, as far as anyone knows by now.

        :raises RegistryError: see :meth:`~asyncpush.engine.questions.Questions.get`.
        """
        return await self._questions.get(digests)

    def known(self) -> set[Digest]:
        """The blobs that the repository is known to have."""
        return {digest for digest, there in self._questions.known().items() if there}

    def lacks(self, digest: Digest) -> bool:
        """Whether it is known that the repository does not have a blob."""
        return self._questions.known().get(digest) is False

    def learn(self, digest: Digest) -> None:
        """Note that the repository has a blob now."""
        self._questions.learn(digest, value=True)

    def forget(self, digests: Iterable[Digest]) -> None:
        """Let these blobs be asked about again."""
        self._questions.forget(digests)
