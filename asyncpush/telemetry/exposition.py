"""Prometheus' text format, version 0.0.4: families of samples, and how they are written.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Family:
    """The samples of one counter or gauge, by the values of its labels.

    :param name: its name; that of a counter ends in ``_total``.
    :param labels: the names of its labels.
    """

    def __init__(
        self, name: str, kind: Literal["counter", "gauge"], about: str, labels: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.kind = kind
        self.about = about
        self.labels = tuple(labels)
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, amount: float, *labels: str) -> None:
        """Add to a sample."""
        self._values[labels] = self._values.get(labels, 0) + amount

    def set(self, value: float, *labels: str) -> None:
        """Set a sample."""
        self._values[labels] = value

    def samples(self) -> Iterator[str]:
        """The samples as lines."""
        for labels, value in self._values.items():
            yield _sample(self.name, self.labels, labels, value)


class Histogram:
    """How often something took how long, by the values of its labels.

    :param bounds: the upper bounds of its buckets, in seconds.
    """

    kind = "histogram"

    def __init__(
        self, name: str, about: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self.name = name
        self.about = about
        self.labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        """Note one duration."""
        if labels not in self._counts:
            self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        self._counts[labels][bisect_left(self._bounds, seconds)] += 1
        self._sums[labels] += seconds

    def samples(self) -> Iterator[str]:
        """The samples as lines."""
        names = (*self.labels, "le")
        bounds = [*map(_number, self._bounds), "+Inf"]
        for labels, counts in self._counts.items():
            upto = list(accumulate(counts))
            for bound, count in zip(bounds, upto, strict=True):
                yield _sample(f"{self.name}_bucket", names, (*labels, bound), count)
            yield _sample(f"{self.name}_sum", self.labels, labels, self._sums[labels])
            yield _sample(f"{self.name}_count", self.labels, labels, upto[-1])


def render(families: Iterable[Family | Histogram]) -> str:
    """All families that have samples, as the text that Prometheus reads."""
    lines: list[str] = []
    for family in families:
        samples = list(family.samples())
        if samples:
            lines.append(f"# HELP {family.name} {_escape(family.about)}")
            lines.append(f"# TYPE {family.name} {family.kind}")
            lines += samples
    return "\n".join(lines) + "\n"


def _sample(name: str, names: Sequence[str], values: Sequence[str], value: float) -> str:
    pairs = ",".join(
        f'{key}="{_escape(text, quoted=True)}"' for key, text in zip(names, values, strict=True)
    )
    return f"{name}{{{pairs}}} {_number(value)}" if pairs else f"{name} {_number(value)}"


def _escape(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quoted else text


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
