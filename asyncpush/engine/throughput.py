"""How fast bytes go to one registry, as far as that can be told from the last seconds."""

from __future__ import annotations

from collections import deque

import anyio

_WINDOW = 10.0
_LEAST = 1.0


class Throughput:
    """Acknowledged bytes a second."""

    def __init__(self) -> None:
        self._parts: deque[tuple[float, int]] = deque()
        self._sum = 0
        self._begin: float | None = None

    def add(self, size: int) -> None:
        """A part of ``size`` bytes was acknowledged."""
        now = anyio.current_time()
        if self._begin is None:
            self._begin = now
        self._parts.append((now, size))
        self._sum += size
        self._forget(now)

    def rate(self) -> float | None:
        """Bytes a second over the last seconds; None while they tell too little."""
        now = anyio.current_time()
        self._forget(now)
        if self._begin is None or now - self._begin < _LEAST or not self._sum:
            return None
        return self._sum / min(_WINDOW, now - self._begin)

    def _forget(self, now: float) -> None:
        while self._parts and self._parts[0][0] < now - _WINDOW:
            self._sum -= self._parts.popleft()[1]
