"""Whether an optional API is used: closed by failures, tried again after a while."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import anyio

from asyncpush.errors import AsyncpushError

# Failures in a row; a connection may break, and a load balancer restart.
_ENOUGH = 3
# Seconds until a closed API is tried again, which double with each try in vain.
_FIRST_WAIT = 60.0
_LONGEST_WAIT = 960.0


class Gate:
    """Lets uploads begin by an API while that goes well.

    It closes after failures in a row, or when it is told to. Once it is closed,
    it lets one upload through after a while; it opens when bytes of an upload arrive.

    :param closed: told why it closes, and the seconds until the API is tried again.
    """

    def __init__(self, closed: Callable[[AsyncpushError, float], None]) -> None:
        self._closed = closed
        self._again: float | None = None
        self._wait = _FIRST_WAIT
        self._trial = False
        self._in_a_row: Counter[str] = Counter()
        self._counted: dict[str, float] = {}

    @property
    def open(self) -> bool:
        """Whether all uploads may use the API."""
        return self._again is None

    def lets(self) -> bool:
        """Whether an upload may begin by the API: any while it is open, else one now and then."""
        if self._again is None:
            return True
        now = anyio.current_time()
        if now < self._again:
            return False
        self._again = now + self._wait
        self._trial = True
        return True

    def worked(self, step: str) -> None:
        """A step went well, so that its next failure is the first in a row."""
        del self._in_a_row[step]

    def proved(self) -> None:
        """Bytes of an upload arrived: the API is of use."""
        self._in_a_row.clear()
        if self._trial:
            self._again, self._trial = None, False

    def failed(self, step: str, error: AsyncpushError, begun: float) -> None:
        """A step failed in a way that may pass, and it was the API's fault.

        :param begun: when it was begun, by the event loop's clock. Those that were on their way
            together count once: what cut them off was one event.
        """
        if begun < self._counted.get(step, float("-inf")):
            return
        self._counted[step] = anyio.current_time()
        self._in_a_row[step] += 1
        if self._trial or self._in_a_row[step] >= _ENOUGH:
            self.close(error)

    def close(self, error: AsyncpushError) -> None:
        """Let uploads begin by the other API for a while."""
        if self.open:
            self._wait = _FIRST_WAIT
            self._closed(error, self._wait)
        elif self._trial:
            self._wait = min(_LONGEST_WAIT, self._wait * 2)
        else:
            return  # It was begun before the gate closed.
        self._again = anyio.current_time() + self._wait
        self._trial = False
        self._in_a_row.clear()
