"""Semantic versions and ranges of them, as tags of images carry them and job files ask for them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from asyncpush.errors import UsageError

# Tags cannot hold the + of build metadata; Helm and others write _ for it.
_VERSION = re.compile(
    r"v?(?P<major>[0-9]{1,18})\.(?P<minor>[0-9]{1,18})(?:\.(?P<patch>[0-9]{1,18}))?"
    r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:[+_][0-9A-Za-z._+-]+)?"
)
_PART = r"(?:[0-9]{1,18}|[xX*])"
_COMPARATOR = re.compile(
    rf"(?P<operator>[<>]=?|=|\^|~)? *v?(?P<major>{_PART})(?:\.(?P<minor>{_PART})"
    rf"(?:\.(?P<patch>{_PART})(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?)?)?"
)
_SHORT_PRE = re.compile(r"^([<>=^~]*v?[0-9]+(?:\.[0-9]+)?)-(?=[0-9A-Za-z])")
_HYPHEN = re.compile(r"(\S+) +- +(\S+)")
_MOST_CHARACTERS = 256
_ADVICE = 'write ">=1.2 <2", "^1.4", "~1.4.2", "1.x", "1.2 - 1.5", or several with || between them'

# What is compared: three numbers, then a pre-release, the release, or a place beside either.
Key = tuple[int, int, int, tuple[object, ...]]
_RELEASE: tuple[object, ...] = (1, ())
_BELOW: tuple[object, ...] = (0, ())
_FIRST: Key = (-1, 0, 0, _RELEASE)
_LAST: Key = (10**18, 0, 0, _RELEASE)


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A version; ``key`` puts versions into the order of semver.org, section 11."""

    key: Key

    @property
    def is_prerelease(self) -> bool:
        """Whether it comes before the release of its three numbers."""
        return self.key[3] != _RELEASE


@dataclass(frozen=True, slots=True)
class _Interval:
    """From ``low`` on, up to but without ``high``; ``pre`` if it was written with a pre-release."""

    low: Key
    high: Key
    pre: bool = False


@dataclass(frozen=True, slots=True)
class VersionRange:
    """A range of versions: one of its alternatives must hold, and all comparators in it.

    :param text: as it was written.
    """

    text: str
    alternatives: tuple[tuple[_Interval, ...], ...]

    def takes(self, version: Version) -> bool:
        """Whether a version is in the range.

        Pre-releases are in it only where a comparator of the same alternative names one.
        """
        return any(
            (not version.is_prerelease or any(one.pre for one in intervals))
            and all(one.low <= version.key < one.high for one in intervals)
            for intervals in self.alternatives
        )


def parse_version(tag: str) -> Version | None:
    """The version that a tag is: two or three numbers, with or without a leading ``v``.

    A number alone is none: such tags are dates, builds, or move with each release.
    """
    match = _VERSION.fullmatch(tag)
    if match is None:
        return None
    pre = _pre_key(match["pre"])
    return Version((int(match["major"]), int(match["minor"]), int(match["patch"] or 0), pre))


def parse_range(text: str) -> VersionRange:
    """Read a range as npm and cargo write it.

    Operators are ``<``, ``<=``, ``>``, ``>=``, ``=``, ``^`` and ``~``; spaces or commas join
    comparators that must all hold, ``||`` joins alternatives; ``x`` and ``*`` stand for any number;
    a version without an operator means itself, and with fewer than three numbers all that begin so.

    :raises UsageError: it is not such a range.
    """
    if len(text) > _MOST_CHARACTERS:
        raise UsageError(
            f"the version range has {len(text)} characters, {_MOST_CHARACTERS} at most are read",
            advice=_ADVICE,
        )
    return VersionRange(text, tuple(_alternative(part, text) for part in text.split("||")))


def _alternative(part: str, text: str) -> tuple[_Interval, ...]:
    part = part.strip(" ")
    if match := _HYPHEN.fullmatch(part):
        return _comparator(f">={match[1]}", text), _comparator(f"<={match[2]}", text)
    # An operator may stand apart from its version.
    joined = re.sub(r"([<>=^~]) +", r"\1", part)
    words = re.split(r" *, *| +", joined)
    if not part or not all(words):
        raise _invalid(text)
    return tuple(_comparator(word, text) for word in words)


def _comparator(word: str, text: str) -> _Interval:
    """One comparator; ``1-0`` and ``1.2-0`` are read as ``1.0.0-0`` and ``1.2.0-0``."""
    match = _COMPARATOR.fullmatch(_SHORT_PRE.sub(_fill, word))
    if match is None:
        raise _invalid(text)
    numbers: list[int] = []
    for name in ("major", "minor", "patch"):
        part = match[name]
        if part is None or part in "xX*":
            break
        numbers.append(int(part))
    pre = match["pre"] is not None and len(numbers) == 3
    suffix = _pre_key(match["pre"]) if pre else _RELEASE
    exact: Key = (*_padded(numbers), suffix)
    low, high = (exact if numbers else _FIRST), _LAST
    match match["operator"]:
        case ">=":
            pass
        case ">":
            low = _above(numbers, exact)
        case "<":
            # The pre-releases of a version that is not to be reached are not, either.
            low, high = _FIRST, exact if pre else (*exact[:3], _BELOW)
        case "<=":
            low, high = _FIRST, _behind(numbers, exact)
        case "^":
            high = _caret(numbers)
        case "~":
            high = _next(numbers[:2])
        case _:
            high = _behind(numbers, exact)
    return _Interval(low, high, pre)


def _fill(match: re.Match[str]) -> str:
    return match[1] + ".0" * (2 - match[1].count(".")) + "-"


def _padded(numbers: list[int]) -> tuple[int, int, int]:
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return major, minor, patch


def _above(numbers: list[int], exact: Key) -> Key:
    """The first key behind all that a version with these numbers stands for."""
    if len(numbers) == 3:
        return _after(exact)
    return (*_next(numbers)[:3], _RELEASE)


def _behind(numbers: list[int], exact: Key) -> Key:
    """The bound of what is at most such a version."""
    return _after(exact) if len(numbers) == 3 else _next(numbers)


def _after(key: Key) -> Key:
    """A key between a version and the next one that there can be."""
    return (*key[:3], (*key[3], 0))


def _next(numbers: list[int]) -> Key:
    """Below the pre-releases of what follows all versions that begin with these numbers."""
    if not numbers:
        return _LAST
    return (*_padded([*numbers[:-1], numbers[-1] + 1]), _BELOW)


def _caret(numbers: list[int]) -> Key:
    """Where the left-most number that is not 0 would change."""
    for i, number in enumerate(numbers):
        if number:
            return _next(numbers[: i + 1])
    return _next(numbers)


def _pre_key(text: str | None) -> tuple[object, ...]:
    if text is None:
        return _RELEASE
    parts: list[tuple[int, int, str]] = []
    for part in text.split("."):
        if part.isdigit():
            digits = part.lstrip("0")
            parts.append((0, len(digits), digits))
        else:
            parts.append((1, 0, part))
    return (0, tuple(parts))


def _invalid(text: str) -> UsageError:
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return UsageError(f"invalid version range {shown!r}", advice=_ADVICE)
