"""The memory of all windows: what is reserved, what windows took beyond that, what is kept idle."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from asyncpush.engine.work import ByteLimiter


class Pool(ByteLimiter):
    """Bytes that windows hold together.

    Reserving waits, first come, first served. Taking more never waits, and is refused while
    another one waits to reserve. What is kept for later makes room for both.

    :param total: bytes.
    """

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self._idle: OrderedDict[Hashable, tuple[int, Callable[[], None]]] = OrderedDict()

    def take(self, size: int) -> bool:
        """Have ``size`` bytes at once, or be refused."""
        if self._waiting or not self._fits(size):
            return False
        self.used += size
        return True

    def force(self, size: int) -> None:
        """Account for bytes that are held already; nothing is granted until they fit."""
        self.used += size

    def keep(self, key: Hashable, size: int, forget: Callable[[], None]) -> bool:
        """Keep ``size`` bytes that are not needed until others need the room.

        :param forget: called when they must go.
        """
        if not self.take(size):
            return False
        self._idle[key] = (size, forget)
        return True

    def reuse(self, key: Hashable) -> int:
        """What is kept is needed again.

        :return: its bytes, which are for the caller to give back from now on.
        """
        return self._idle.pop(key)[0]

    def _fits(self, size: int) -> bool:
        while self.used + size > self.total and self._idle:
            _, (idle, forget) = self._idle.popitem(last=False)
            forget()
            self.used -= idle
        return super()._fits(size)
