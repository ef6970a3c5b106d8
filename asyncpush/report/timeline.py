"""Sums over time, in buckets that widen as a push goes on, so that its length costs no memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from asyncpush.report.document import CallSeries, RegistrySeries, Timeline

_FIRST_WIDTH = 0.25
MOST_BUCKETS = 240
"""Buckets of a series at most: 60 s of a quarter of a second each, then 120 s of half a second."""


class Buckets:
    """Several series on one scale of time; a series is named by a tuple of words.

    A series holds at most ``MOST_BUCKETS`` figures of 8 bytes.
    """

    def __init__(self, width: float = _FIRST_WIDTH) -> None:
        self.width = width
        self._series: dict[tuple[str, ...], array[float]] = {}

    def add(self, series: tuple[str, ...], at: float, amount: float = 1.0) -> None:
        """Add an amount at a moment, in seconds since the push began."""
        self.reach(at)
        self._add(self._of(series), int(at / self.width), amount)

    def spread(self, series: tuple[str, ...], begin: float, end: float, amount: float) -> None:
        """Add an amount evenly over the time from begin to end."""
        self.reach(end)
        figures = self._of(series)
        first, last = int(begin / self.width), int(end / self.width)
        if first >= last or end <= begin:
            self._add(figures, last, amount)
            return
        for bucket in range(first, last + 1):
            low, high = max(begin, bucket * self.width), min(end, (bucket + 1) * self.width)
            self._add(figures, bucket, amount * (high - low) / (end - begin))

    def reach(self, at: float) -> None:
        """Widen the buckets until they reach a moment."""
        while at >= self.width * MOST_BUCKETS:
            self.width *= 2
            for series, figures in self._series.items():
                self._series[series] = array(
                    "d", (sum(figures[i : i + 2]) for i in range(0, len(figures), 2))
                )

    def items(self) -> Iterator[tuple[tuple[str, ...], list[float]]]:
        """Each series' name and its figures, from the push's begin to the last that is not 0."""
        for series, figures in self._series.items():
            yield series, list(figures)

    def _of(self, series: tuple[str, ...]) -> array[float]:
        return self._series.setdefault(series, array("d"))

    @staticmethod
    def _add(figures: array[float], bucket: int, amount: float) -> None:
        while len(figures) <= bucket:
            figures.append(0.0)
        figures[bucket] += amount


class Stretches:
    """When a blob's parts went: stretches of equally many consecutive parts, at most ``most``.

    A stretch takes 32 bytes: its begin and end in seconds, its bytes, its parts.
    """

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: array[float] = array("d")

    def __len__(self) -> int:
        return len(self._rows) // 4

    def add(self, begin: float, end: float, size: int, most: int) -> None:
        """Note one part."""
        rows = self._rows
        if len(self) > 1 and rows[-1] < rows[3]:
            # The last stretch has fewer parts than the first, and so than the others.
            rows[-3:] = array("d", (end, rows[-2] + size, rows[-1] + 1))
            return
        rows.extend((begin, end, size, 1))
        if len(self) > most:
            self._rows = array("d")
            for i in range(0, len(rows), 8):
                pair = rows[i : i + 8]
                ends, sizes, parts = pair[1::4], pair[2::4], pair[3::4]
                self._rows.extend((pair[0], ends[-1], sum(sizes), sum(parts)))

    def rows(self) -> list[tuple[float, float, int, int]]:
        """The stretches: begin, end, bytes, parts."""
        rows = self._rows
        return [
            (round(rows[i], 3), round(rows[i + 1], 3), int(rows[i + 2]), int(rows[i + 3]))
            for i in range(0, len(rows), 4)
        ]


def timeline_of(counts: Buckets, flights: Buckets, tags_moving: float | None) -> Timeline:
    """A report's timeline; both have the same width.

    :param counts: by host: ``bytes``, and by call what its series has.
    :param flights: by host: seconds that ``layers`` and ``images`` were in flight, added up.
    :param tags_moving: when an atomic push began to move tags.
    """
    registries: dict[str, RegistrySeries] = {}

    def registry(host: str) -> RegistrySeries:
        empty = RegistrySeries(bytes=[], layers=[], images=[], calls={})
        return registries.setdefault(host, empty)

    for (host, what), figures in flights.items():
        mean = [round(figure / flights.width, 2) for figure in figures]
        registry(host)["layers" if what == "layers" else "images"] = mean
    for (host, *name), figures in counts.items():
        calls = registry(host)["calls"]
        match name:
            case ["bytes"]:
                registry(host)["bytes"] = list(map(round, figures))
            case [call, ("calls" | "throttled" | "failed") as what]:
                series = calls.setdefault(call, CallSeries(calls=[]))
                series[what] = list(map(round, figures))
            case [call, ("paced" | "delayed" | "seconds") as what]:
                series = calls.setdefault(call, CallSeries(calls=[]))
                series[what] = [round(figure, 3) for figure in figures]
    timeline = Timeline(width=counts.width, registries=registries)
    if tags_moving is not None:
        timeline["tags_moving"] = round(tags_moving, 3)
    return timeline
