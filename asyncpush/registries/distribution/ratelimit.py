"""What a registry says of its rate limit: the headers ``RateLimit-Limit`` and the like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from asyncpush.text import span

_COUNT = re.compile(r"\s*([0-9]{1,15})\s*(?:;|,|$)")
_WINDOW = re.compile(r";\s*w\s*=\s*([0-9]{1,15})\s*(?:;|,|$)")
# A header is some kilobytes at most; a count and its window take a few bytes.
_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What is left of a registry's rate limit ("Docker Hub usage and limits",
    draft-ietf-httpapi-ratelimit-headers).

    :param limit: requests in a window; None where the registry does not say.
    :param remaining: how many of them are left.
    :param window: seconds of the window; None where the registry does not say.
    """

    limit: int | None
    remaining: int
    window: int | None

    def __str__(self) -> str:
        """For people, as ``76 of 100 pulls left in 6 h``."""
        of = "" if self.limit is None else f" of {self.limit:,}"
        window = "" if self.window is None else f" in {span(self.window)}"
        noun = "pull" if (self.remaining if self.limit is None else self.limit) == 1 else "pulls"
        return f"{self.remaining:,}{of} {noun} left{window}"

    def to_dict(self) -> dict[str, int | None]:
        """The limit as JSON-ready data."""
        return {
            "limit": self.limit,
            "remaining": self.remaining,
            "window_seconds": self.window,
        }


def rate_limit_of(headers: Mapping[str, str]) -> RateLimit | None:
    """The rate limit that an answer's headers state; None where they state none.

    Docker Hub writes ``ratelimit-limit: 100;w=21600`` and ``ratelimit-remaining: 76;w=21600``.

    :param headers: the answer's headers, whose names compare without case.
    """
    left = headers.get("RateLimit-Remaining")
    if left is None:
        return None
    remaining = _number(_COUNT.match(left, 0, _MOST_CHARACTERS))
    if remaining is None:
        return None
    limit = headers.get("RateLimit-Limit", "")
    # Both state the window, or the limit alone does.
    window = _WINDOW.search(left, 0, _MOST_CHARACTERS) or _WINDOW.search(limit, 0, _MOST_CHARACTERS)
    return RateLimit(_number(_COUNT.match(limit, 0, _MOST_CHARACTERS)), remaining, _number(window))


def _number(found: re.Match[str] | None) -> int | None:
    return int(found[1]) if found else None
