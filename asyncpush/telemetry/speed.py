"""Speed: an amount a second over the last moments, in memory and time that do not grow."""

from __future__ import annotations

from collections import deque

_BUCKET = 0.5


class Speed:
    """How fast something goes.

    It looks back ``window`` seconds, and further if fewer than ``least`` amounts came in them:
    sixteen parts of 10 MiB that are acknowledged together once a minute are a steady speed, too.
    """

    def __init__(self, window: float = 10.0, least: int = 32) -> None:
        self._window = window
        self._least = least
        self._buckets: deque[tuple[float, float, int]] = deque()  # until when, how much, how often
        self._amount = 0.0
        self._count = 0
        self._since: float | None = None

    def start(self, now: float) -> None:
        """Note that it begins; what was noted before stays."""
        if self._since is None:
            self._since = now

    def add(self, now: float, amount: float) -> None:
        """Note an amount that has come about."""
        self.start(now)
        if self._buckets and now // _BUCKET == self._buckets[-1][0] // _BUCKET:
            _, before, count = self._buckets.pop()
            self._buckets.append((now, before + amount, count + 1))
        else:
            self._buckets.append((now, amount, 1))
        self._amount += amount
        self._count += 1
        self._forget(now)

    def rate(self, now: float) -> float:
        """Amounts a second; 0 while nothing came."""
        self._forget(now)
        if self._since is None or now - self._since < _BUCKET:
            return 0.0
        return self._amount / (now - self._since)

    def _forget(self, now: float) -> None:
        buckets = self._buckets
        while (
            len(buckets) > 1
            and buckets[0][0] < now - self._window
            and self._count - buckets[0][2] >= self._least
        ):
            self._since, amount, count = buckets.popleft()
            self._amount -= amount
            self._count -= count
