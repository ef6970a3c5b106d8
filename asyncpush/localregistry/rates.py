"""Rates: how many calls of an action a registry answers in a second, and its refusal beyond."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from asyncpush.localregistry.errors import ApiError
from asyncpush.localregistry.identity import Registry

PUBLISHED_RATES: Mapping[str, float] = {
    "GetAuthorizationToken": 500,
    "BatchCheckLayerAvailability": 1000,
    "InitiateLayerUpload": 100,
    "UploadLayerPart": 500,
    "CompleteLayerUpload": 100,
    "PutImage": 10,
}
"""Calls a second for each account and Region ("Amazon ECR endpoints and quotas")."""


class RateLimits:
    """A token bucket for each registry and action; it holds the calls of one second.

    :param rates: calls a second by action; an action that is not in it is free.
    :param clock: gives the time, in seconds.
    """

    def __init__(self, rates: Mapping[str, float], clock: Callable[[], float]) -> None:
        self._rates = rates
        self._clock = clock
        self._buckets: dict[tuple[Registry, str], tuple[float, float]] = {}

    def take(self, registry: Registry, action: str) -> None:
        """Count one call.

        :raises ApiError: ThrottlingException, and the call does not count.
        """
        rate = self._rates.get(action)
        if rate is None:
            return
        most = max(1.0, rate)
        now = self._clock()
        tokens, since = self._buckets.get((registry, action), (most, now))
        tokens = min(most, tokens + (now - since) * rate)
        if tokens < 1:
            self._buckets[registry, action] = (tokens, now)
            raise ApiError("ThrottlingException", "Rate exceeded")
        self._buckets[registry, action] = (tokens - 1, now)
