"""How fast one call may be made at one registry: paced under its quota, adapted to throttling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

# "Amazon ECR endpoints and quotas", private registries: calls a second for each account and Region.
PUBLISHED_QUOTAS: Mapping[str, float] = {
    "GetAuthorizationToken": 500,
    "BatchCheckLayerAvailability": 1000,
    "InitiateLayerUpload": 100,
    "UploadLayerPart": 500,
    "CompleteLayerUpload": 100,
    "PutImage": 10,
    "BatchGetImage": 2000,
    "GetDownloadUrlForLayer": 3000,
    # Not published: slow enough for any account.
    "CreateRepository": 5,
    "DescribeRegistry": 5,
    "DescribeImageReplicationStatus": 20,
    "PutReplicationConfiguration": 1,
    "DescribeRepositories": 10,
}

_DECREASE = 0.7
_INCREASE = 0.05
_LOWEST = 0.02
_SETTLE = 1.0
_PATIENCE = 120.0


@dataclass(slots=True)
class Pace:
    """The rate of one call at one registry, shared by everything that makes it.

    Calls are spaced evenly, with one call of slack, so that a quota of 10 a second is 10 evenly
    spaced calls and never a burst of 10. An answer that throttles multiplies the rate by 0.7 (once
    for all calls that were on their way together); success adds 5 % of the quota each second, up to
    the quota.

    :param quota: calls a second at most.
    """

    quota: float
    rate: float = field(init=False)
    calls: int = 0
    throttles: int = 0
    first: float | None = None
    last: float | None = None
    _next: float = 0.0
    _changed: float = field(default=float("-inf"))
    _succeeded: float | None = None
    # The first throttle since a call went through, and when calls were to go on after the last one.
    _series: float | None = None
    _resumes: float = 0.0

    def __post_init__(self) -> None:
        self.rate = self.quota

    async def turn(self) -> float:
        """Wait for the next moment in which the call may be made; how many seconds that took."""
        now = anyio.current_time()
        if self.first is None:
            self.first = now
        if self._succeeded is None:
            self._succeeded = now
        self.calls += 1
        interval = 1 / self.rate
        start = max(self._next, now - interval)
        self._next = start + interval
        self.last = max(start, now)
        wait = max(0.0, start - now)
        await anyio.sleep(wait)
        return wait

    def succeeded(self) -> None:
        """A call went through: the rate grows, in proportion to time and not to calls."""
        now = anyio.current_time()
        self._series = None
        if self.rate < self.quota and self._succeeded is not None:
            grown = self.quota * _INCREASE * min(1.0, now - self._succeeded)
            self.rate = min(self.quota, self.rate + grown)
        self._succeeded = now

    def begin(self, quota: float, *, count_anew: bool = True) -> None:
        """A push begins, under a quota that may be another one.

        :param count_anew: whether calls are counted from here on.
        """
        self.rate *= quota / self.quota
        self.quota = quota
        if count_anew:
            self.calls = self.throttles = 0
            self.first = self.last = None

    def unneeded(self) -> None:
        """A call that had its turn was not made after all."""
        self.calls -= 1

    def throttled(self, retry_after: float = 0.0) -> None:
        """A call was throttled: the rate shrinks, once for all calls of the same moment.

        :param retry_after: seconds after which the registry wants to be asked again.
        """
        self.throttles += 1
        now = anyio.current_time()
        # What was throttled long ago, and not asked again since, says nothing of today.
        if self._series is None or now - self._resumes >= _PATIENCE:
            self._series = now
        self._resumes = now + retry_after
        if now - self._changed >= _SETTLE:
            self._changed = now
            self.rate = max(self.quota * _LOWEST, self.rate * _DECREASE)

    @property
    def progresses(self) -> bool:
        """Whether waiting on is worth it: calls have not been throttled alone for two minutes."""
        return self._series is None or anyio.current_time() - self._series < _PATIENCE

    def to_dict(self) -> dict[str, Any]:
        """Counts and rates as JSON-ready data; rates are calls a second."""
        span = self.last - self.first if self.first is not None and self.last is not None else 0
        return {
            "calls": self.calls,
            "throttled": self.throttles,
            "quota": self.quota,
            "rate": round((self.calls - 1) / span, 3) if span > 0 else None,
        }


class Paces:
    """The paces of all calls at one registry.

    :param quotas: calls a second by call, where they differ from the published ones.
    """

    def __init__(self, quotas: Mapping[str, float]) -> None:
        self._quotas = {**PUBLISHED_QUOTAS, **quotas}
        self._paces = {call: Pace(quota) for call, quota in self._quotas.items()}

    def begin(self, sharing: int = 1, *, count_anew: bool = True) -> None:
        """A push begins.

        :param sharing: how many machines share the quotas.
        :param count_anew: whether calls are counted from here on.
        """
        for call, quota in self._quotas.items():
            self._paces[call].begin(quota / sharing, count_anew=count_anew)

    def of(self, call: str) -> Pace:
        """The pace of one call."""
        return self._paces[call]

    def to_dict(self) -> dict[str, Any]:
        """What was called, as JSON-ready data by call."""
        return {call: pace.to_dict() for call, pace in self._paces.items() if pace.calls}
