"""What a registry has refused to mount: remembered, so that it is not asked for again."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from asyncpush.plan.reference import AnyRegistry, Repository

# A refusal may be about one pair of repositories (other encryption, no permission on the source).
# So many without a success are about the target, or about the registry.
_ENOUGH = 3


def _nothing() -> None:
    pass


class Refusals:
    """The memory of one registry's answers to mounts that it could have granted.

    Repositories that have mounted from one another are kin: where one of them is refused as a
    source, all of them are.
    """

    def __init__(self) -> None:
        self.off = False
        """Whether this registry mounts nothing, as far as can be told."""
        self.when_off: Callable[[], None] = _nothing
        """Called when that is settled."""
        self.trials: dict[Repository | AnyRegistry, anyio.Event] = {}
        """Mounts on their way whose answers tell whether it is worth asking for others."""
        self._kin: dict[Repository, Repository] = {}
        self._refused: dict[Repository, set[Repository]] = {}
        self._in_a_row = 0
        self._troubles = 0

    def is_proven(self, target: Repository) -> bool:
        """Whether a repository has mounted something, so that its mounts need no trial."""
        return target in self._kin

    @property
    def any_proven(self) -> bool:
        """Whether some repository of the registry has mounted something."""
        return bool(self._kin)

    def allows(self, source: Repository, target: Repository) -> bool:
        """Whether it is worth asking for a mount."""
        if self.off or source == target:
            return False
        refused = self._refused.get(target, ())
        if len(refused) >= _ENOUGH and target not in self._kin:
            return False
        return self.kin_of(source) not in refused

    def kin_of(self, repository: Repository) -> Repository:
        """The repository from which its content, or at least some of it, was mounted first."""
        return self._kin.get(repository, repository)

    def mounted(self, source: Repository, target: Repository) -> None:
        """A mount was granted."""
        self._troubles = self._in_a_row = 0
        self._kin.setdefault(target, self.kin_of(source))

    def refused(self, source: Repository, target: Repository) -> bool:
        """A mount was refused.

        :return: whether this has settled that the registry mounts nothing.
        """
        self._refused.setdefault(target, set()).add(self.kin_of(source))
        # Where mounts have worked, a refusal of one that never did says something of that one.
        if not self._kin or target in self._kin:
            self._in_a_row += 1
        return self._settle(self._in_a_row)

    def troubled(self) -> bool:
        """A mount got no answer, at the end of its tries.

        :return: whether this has settled that it is not worth asking on.
        """
        self._troubles += 1
        return self._settle(self._troubles if self._kin else _ENOUGH)

    def _settle(self, count: int) -> bool:
        if self.off or count < _ENOUGH:
            return False
        self.off = True
        self.when_off()
        return True
