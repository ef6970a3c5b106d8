"""Which tags of a repository, or entries of a layout, are meant: by pattern, version and age."""

from __future__ import annotations

import fnmatch
import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from asyncpush.errors import UsageError, printable
from asyncpush.oci.digest import Digest
from asyncpush.plan.semver import VersionRange, parse_version

T = TypeVar("T")

_AGE = re.compile(r"([0-9]{1,6})([mhdw])")
_UNITS = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_LONGEST = timedelta(days=36500)
_NUMBERS = re.compile(r"([0-9]+)")
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class TagInfo:
    """A tag as a listing gives it.

    :param name: the tag, or the name of a layout's entry.
    :param digest: what it points to, where the listing says so.
    :param pushed_at: when it was pushed or made, with its time zone, where that is known.
    :param pulled_at: when it was last pulled; None where it never was, or that is not known.
    """

    name: str
    digest: Digest | None = None
    pushed_at: datetime | None = None
    pulled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Age:
    """A duration that a rule counts back from now; ``text`` is how it was written."""

    text: str
    length: timedelta


@dataclass(frozen=True, slots=True)
class Rules:
    """What a choice asks for; an empty one takes everything.

    :param include: shell patterns of which one must match the name.
    :param exclude: shell patterns of which none may match.
    :param versions: the range that the name must be a version in.
    :param newest: how many remain at most: the highest versions where there is a range, else the
        latest pushed, else the last in natural order of their names (v10 behind v9).
    :param newer_than: the longest time since the push.
    :param pulled_within: the longest time since the last pull.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    versions: VersionRange | None = None
    newest: int | None = None
    newer_than: Age | None = None
    pulled_within: Age | None = None

    def __bool__(self) -> bool:
        return self != EVERYTHING

    @property
    def texts(self) -> list[Any]:
        """The rules as they were written, for the job's fingerprint."""
        return [
            self.include,
            self.exclude,
            self.versions and self.versions.text,
            self.newest,
            self.newer_than and self.newer_than.text,
            self.pulled_within and self.pulled_within.text,
        ]


EVERYTHING = Rules()


@dataclass(slots=True)
class LeftOut:
    """What a rule left out: how many, and the names of the first few."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Choice:
    """What came of choosing from one repository or layout.

    :param where: the repository or layout.
    :param taken: how many remained.
    :param left_out: by rule, as a person would write it, in the order in which the rules apply.
    """

    where: str
    taken: int = 0
    left_out: dict[str, LeftOut] = field(default_factory=dict)

    def leave_out(self, rule: str, name: str) -> None:
        """Count one that a rule leaves out."""
        found = self.left_out.setdefault(rule, LeftOut())
        found.count += 1
        if len(found.examples) < _EXAMPLES:
            found.examples.append(printable(name))

    def lines(self) -> list[str]:
        """A line for each rule that left something out."""
        return [
            f"{self.where}: {rule} leaves out {found.count:,} ({_some(found)})"
            for rule, found in self.left_out.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """The choice as JSON-ready data."""
        return {
            "source": self.where,
            "taken": self.taken,
            "left_out": [
                {"rule": rule, "count": found.count, "examples": found.examples}
                for rule, found in self.left_out.items()
            ],
        }


def parse_age(text: str) -> Age:
    """Read a duration: a number with ``m``, ``h``, ``d`` or ``w`` behind it.

    :raises UsageError: it is none, is zero, or longer than 100 years.
    """
    match = _AGE.fullmatch(text)
    length = int(match[1]) * _UNITS[match[2]] if match else timedelta()
    if not timedelta() < length <= _LONGEST:
        raise UsageError(
            f"invalid duration {text[:40]!r}",
            advice="write minutes, hours, days or weeks, up to 100 years: 90m, 12h, 90d, 6w",
        )
    return Age(text, length)


def matches_any(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether one of the shell patterns matches one of the names."""
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def choose(
    candidates: Iterable[tuple[T, TagInfo]], rules: Rules, now: datetime, choice: Choice
) -> Iterator[T]:
    """Choose from a listing, one candidate after the other.

    At most ``rules.newest`` candidates are kept in memory, none without that rule. Rules apply in
    the order: include, exclude, range, newer_than, pulled_within, newest.

    :param candidates: what is chosen from, each with what the rules look at.
    :param now: from when durations count back, with its time zone.
    :param choice: takes note of what is left out.
    :return: those that remain, in the order in which they came.
    """
    if rules.newest is None:
        for thing, info in candidates:
            if (rule := _against(info, rules, now)) is None:
                choice.taken += 1
                yield thing
            else:
                choice.leave_out(rule, info.name)
        return
    # The smallest of those that remain so far comes first; the number in the listing keeps two
    # candidates of one rank apart, before the candidates themselves would be compared.
    heap: list[tuple[Any, int, str, T]] = []
    label = f"newest {rules.newest}"
    for number, (thing, info) in enumerate(candidates):
        if (rule := _against(info, rules, now)) is not None:
            choice.leave_out(rule, info.name)
            continue
        item = (_rank(info, rules), number, info.name, thing)
        if len(heap) < rules.newest:
            heapq.heappush(heap, item)
        else:
            choice.leave_out(label, heapq.heappushpop(heap, item)[2])
    choice.taken += len(heap)
    for _, _, _, thing in sorted(heap, key=lambda item: item[1]):
        yield thing


def _against(info: TagInfo, rules: Rules, now: datetime) -> str | None:
    """The first rule that leaves a candidate out."""
    if rules.include and not matches_any([info.name], rules.include):
        return f"include {', '.join(rules.include)}"
    for pattern in rules.exclude:
        if fnmatch.fnmatchcase(info.name, pattern):
            return f"exclude {pattern}"
    if rules.versions is not None:
        version = parse_version(info.name)
        if version is None or not rules.versions.takes(version):
            return f"semver {rules.versions.text}" + ("" if version else " (no version)")
    for name, age, time, unknown in (
        ("newer_than", rules.newer_than, info.pushed_at, "no time known"),
        ("pulled_within", rules.pulled_within, info.pulled_at, "never pulled"),
    ):
        if age is not None and (time is None or now - time > age.length):
            return f"{name} {age.text}" + (f" ({unknown})" if time is None else "")
    return None


def _rank(info: TagInfo, rules: Rules) -> Any:
    """What orders candidates, the newest last."""
    name = natural_key(info.name)
    if rules.versions is not None:
        version = parse_version(info.name)
        assert version is not None  # the range has taken it
        return version, name
    # What has no time counts as older than what has one.
    return info.pushed_at.timestamp() if info.pushed_at is not None else float("-inf"), name


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that orders names as people do: numbers in them by value."""
    parts: list[tuple[int, int, str]] = []
    for i, part in enumerate(_NUMBERS.split(name)):
        digits = part.lstrip("0")
        parts.append((1, len(digits), digits) if i % 2 else (0, 0, part))
    return (*parts, (0, 0, name))


def _some(found: LeftOut) -> str:
    more = found.count - len(found.examples)
    return ", ".join(found.examples) + (f" and {more:,} more" if more else "")
