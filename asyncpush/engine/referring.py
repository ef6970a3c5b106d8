"""What refers to the images of a plan, planned behind them: sought once, each planned once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from asyncpush.engine.results import ImageResult, ImageStatus
from asyncpush.errors import AsyncpushError
from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import Content
from asyncpush.oci.referrers import listed_subject
from asyncpush.plan.items import ResolvedEntry, tag_of
from asyncpush.plan.planner import Planner
from asyncpush.plan.reference import Repository, without_password
from asyncpush.plan.referrers import Problem, ReferrerEntry, ReferrerSearch, members
from asyncpush.plan.sources import Sources


@dataclass(frozen=True, slots=True)
class _Subject:
    """An entry whose referrers come along: of which types, and to which manifests they refer."""

    entry: ResolvedEntry
    types: tuple[str, ...]
    roots: tuple[Digest, ...]


class Referring:
    """Finds the referrers of entries that ask for them.

    :param planner: knows what is planned.
    :param sources: reads what is on other machines.
    :param warn: told of what is left behind, and does no harm.
    """

    def __init__(self, planner: Planner, sources: Sources, warn: Callable[[str], None]) -> None:
        self._planner = planner
        self._sources = sources
        self._search = ReferrerSearch(sources, warn)
        self._given: set[tuple[Repository, Digest, tuple[str, ...]]] = set()

    def images(self, entries: Sequence[ResolvedEntry]) -> list[ResolvedEntry]:
        """Those that are planned as images.

        A list of referrers is none where referrers come along: the target keeps a list of its own,
        and what it lists comes. Nor is what was planned already, behind its subject.
        """
        return [e for e in entries if _listed(e) is None and not self._is_given(e)]

    def behind(
        self, entries: Sequence[ResolvedEntry], rejected: list[ImageResult]
    ) -> Iterator[ReferrerEntry]:
        """What refers to entries, as entries on their way to the same places.

        :param entries: images that can be pushed, or are there, and lists of referrers.
        :param rejected: gets a failed result for each that cannot be read.
        """
        asking = [entry for entry in entries if entry.referrers is not None]
        if not asking:
            return
        subjects = list(self._subjects(asking, rejected))
        found = self._search.search((s.entry.layout, s.types, s.roots) for s in subjects)
        rejected.extend(_failed(problem, subjects) for problem in found.problems)
        for subject in subjects:
            # One that goes nowhere has failed before.
            with contextlib.suppress(AsyncpushError):
                for referrer in found.of(subject.entry.layout, subject.types, subject.roots):
                    entry = ReferrerEntry(subject.entry, referrer)
                    repository, tags = entry.destination()
                    if not self._planner.has(repository, referrer.digest, tags):
                        key = (repository, referrer.digest, tags)
                        if key not in self._given:
                            self._given.add(key)
                            yield entry

    def _subjects(
        self, entries: Sequence[ResolvedEntry], rejected: list[ImageResult]
    ) -> Iterator[_Subject]:
        """The entries with the digests that may be referred to: an index's images are, too."""
        roots = [(entry, _listed(entry), entry.chosen()) for entry in entries]
        # Of an image that is there nothing was read so far.
        indexes: list[tuple[Content, list[Descriptor]]] = [
            (entry.layout, [chosen])
            for entry, listed, chosen in roots
            if listed is None and mediatypes.is_index(chosen.media_type)
        ]
        self._sources.prefetch(indexes, nested=False)
        for entry, listed, chosen in roots:
            try:
                held = (listed,) if listed else tuple(members(entry.layout, chosen))
            except AsyncpushError as exc:
                digest = chosen.digest
                rejected.append(_result(entry, str(digest), exc.at(digest=digest), entry.name))
            else:
                yield _Subject(entry, entry.referrers or (), held)

    def _is_given(self, entry: ResolvedEntry) -> bool:
        if not self._given or entry.narrowed:
            return False
        with contextlib.suppress(AsyncpushError):
            repository, tags = entry.destination()
            return (repository, entry.entry.digest, tags) in self._given
        return False


def _listed(entry: ResolvedEntry) -> Digest | None:
    """Whose list of referrers an entry is, where referrers come along."""
    if entry.referrers is None or entry.entry.media_type != mediatypes.OCI_INDEX:
        return None
    tag = tag_of(entry.entry)
    return None if tag is None else listed_subject(tag)


def _failed(problem: Problem, subjects: Sequence[_Subject]) -> ImageResult:
    """The result of what refers to a manifest and cannot be had."""
    of = [s for s in subjects if s.entry.layout is problem.content]
    named = [s.entry for s in of if problem.subject in s.roots]
    # Its image has a better name than the list of its referrers has.
    entry = min(named, key=lambda e: _listed(e) is not None, default=None)
    name = str(problem.subject) if entry is None else entry.name
    return _result(entry or of[0].entry, str(problem.subject), problem.error, name)


def _result(entry: ResolvedEntry, subject: str, error: AsyncpushError, name: str) -> ImageResult:
    return ImageResult(
        name=f"referrers of {name}",
        reference=without_password(entry.target),
        digest=subject,
        status=ImageStatus.FAILED,
        error=error,
    )
