"""A line now and then for logs that nobody watches scroll: how a push stands."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import anyio

from asyncpush.engine.results import ImageStatus
from asyncpush.telemetry.tracker import CallState, Tracker
from asyncpush.text import clock, plural, size, size_of

_LOGGER = logging.getLogger("asyncpush.progress")
_MOST_SLOW = 3
_TOLD = 5000.0


async def beat(tracker: Tracker, seconds: float) -> None:
    """Log how a push stands every so many seconds, until cancelled."""
    while True:
        await anyio.sleep(seconds)
        extra = {"event": "progress", "fields": figures(tracker)}
        _LOGGER.info("%s", "; ".join(words(tracker)), extra=extra)


def pace_of(call: CallState) -> str:
    """At which pace a call runs, where that says anything."""
    # Registries that publish no quota begin at a rate that nobody reaches.
    return f"now at {call.rate:.1f} of {call.quota:g}/s" if call.rate < _TOLD else ""


def figures(tracker: Tracker) -> dict[str, Any]:
    """How a push stands, ready for JSON."""
    forecast = tracker.forecast()
    return {
        "images": tracker.images,
        "images_done": tracker.done,
        "images_failed": tracker.ended[ImageStatus.FAILED],
        "images_staged": tracker.staged,
        "images_in_flight": len(tracker.active),
        "images_verified": tracker.verified,
        "images_replicated": tracker.replicated,
        "bytes": tracker.bytes,
        "bytes_there": tracker.there,
        "bytes_per_second": round(tracker.rate()),
        "seconds": round(tracker.seconds, 3),
        "seconds_left": None if forecast is None else round(forecast.seconds, 1),
        "retries": tracker.retries,
        "throttles": tracker.throttles,
        "slowed_calls": [
            {
                "registry": registry.host,
                "call": name,
                "throttled": call.throttles,
                "rate": round(call.rate, 3),
                "quota": call.quota,
            }
            for registry, name, call in tracker.slowed()
        ],
        "slowest": [
            {
                "reference": image.reference,
                "seconds": round(standing.seconds, 1),
                "bytes": standing.total,
                "bytes_there": standing.there,
            }
            for image in itertools.islice(tracker.active.values(), _MOST_SLOW)
            for standing in [tracker.standing(image)]
        ],
    }


def words(tracker: Tracker) -> Iterator[str]:
    """How a push stands, in clauses of one line."""
    if not tracker.planned:
        yield f"progress: reading the sources, {clock(tracker.seconds)} gone"
        return
    yield (
        f"progress: {tracker.done} of {plural(tracker.images, 'image')},"
        f" {size_of(tracker.there, tracker.bytes)}, {size(tracker.rate())}/s"
    )
    forecast = tracker.forecast()
    left = f", about {clock(forecast.seconds)} left" if forecast else ""
    yield f"{clock(tracker.seconds)} gone{left}"
    if failed := tracker.ended[ImageStatus.FAILED]:
        yield f"{failed} failed"
    if tracker.retries:
        yield f"{plural(tracker.retries, 'call')} retried"
    for registry, name, call in tracker.slowed():
        pace = f", {found}" if (found := pace_of(call)) else ""
        yield f"{registry.host} throttled {name} {call.throttles} times{pace}"
    if tracker.verified:
        yield f"{tracker.verified} verified"
    if tracker.awaited:
        yield f"{tracker.replicated} of {tracker.awaited} replicated"
    if tracker.tags is not None:
        yield f"moving tags: {tracker.tags_moved} of {tracker.tags}"
        return
    if tracker.staged:
        yield f"{tracker.staged} staged"
    image = next(iter(tracker.active.values()), None)
    if image is not None:
        standing = tracker.standing(image)
        yield (
            f"{len(tracker.active)} in flight, the oldest: {image.reference}"
            f" ({size_of(standing.there, standing.total)}, {clock(standing.seconds)})"
        )
