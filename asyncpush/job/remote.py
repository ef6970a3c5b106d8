"""The images that a pattern of a job means, as registries list them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime

from asyncpush.errors import (
    AsyncpushError,
    SourceNotFoundError,
    UsageError,
    printable,
)
from asyncpush.job.immutable import Immutable
from asyncpush.job.notes import Notes
from asyncpush.job.sources import JobSource
from asyncpush.oci.layout import Content
from asyncpush.plan.choose import Choice, TagInfo, choose
from asyncpush.plan.graph import PlannedImage
from asyncpush.plan.images import ImagePattern
from asyncpush.plan.listing import NAME_THEM, Catalog, FindTags, Listing, Wanted
from asyncpush.plan.reference import Repository

# Tags of one repository that are opened together: a page of them is never much more.
_TAGS_AT_ONCE = 256


class Expansion:
    """One pass over the images of a source; what fails of it fails alone.

    :param source: a source with ``images``.
    :param catalog: lists and opens them.
    :param now: from when durations count back.
    :param notes: takes note of what is left out.
    :param find_tags: asks targets for tags that never move; None asks the source for all.
    """

    def __init__(
        self,
        source: JobSource,
        catalog: Catalog,
        now: datetime,
        notes: Notes,
        find_tags: FindTags | None = None,
    ) -> None:
        self._immutable = None if find_tags is None else Immutable(source, find_tags)
        assert source.images is not None
        self._images: ImagePattern = source.images
        self._source = source
        self._catalog = catalog
        self._now = now
        self._notes = notes
        self._failures: list[tuple[str, AsyncpushError]] = []
        self._settled: list[tuple[str, PlannedImage]] = []
        self._repositories = 0
        self._left_out = Choice(str(self._images))

    def run(self) -> Iterator[tuple[str, Content | PlannedImage | AsyncpushError]]:
        """What is wanted, by name, with its content, or with the error why none of it can be had.

        An image that all targets have under tags that never move comes without being opened.

        A listing is read as far as images are asked for.

        :raises RegistryError: repositories cannot be listed.
        :raises SourceNotFoundError: nothing at all is found.
        :raises UsageError: a rule needs times that the registry does not list.
        """
        found = False
        for wanted, content in self._catalog.open(self._wanted(), self._source.access):
            yield from self._others()
            found = True
            yield str(wanted), content
        for other in self._others():
            found = True
            yield other
        if not found:
            raise self._nothing()

    def _others(self) -> Iterator[tuple[str, PlannedImage | AsyncpushError]]:
        """What was not opened since this was asked last."""
        failures, self._failures = self._failures, []
        settled, self._settled = self._settled, []
        yield from failures
        yield from settled

    def _wanted(self) -> Iterator[Wanted]:
        if (reference := self._images.reference) is not None:
            tags = () if reference.tag is None else (TagInfo(reference.tag, reference.digest),)
            yield Wanted(reference.repository, tags, reference.digest)
            return
        listing = self._catalog.listing(self._images.registry, self._source.access)
        self._check_times(listing)
        for name in self._named(listing):
            self._repositories += 1
            repository = Repository(self._images.registry, name)
            try:
                yield from self._tags(listing, repository)
            except AsyncpushError as exc:
                # One repository that is denied or gone keeps no other from being read.
                self._failures.append((str(repository), exc.at(repository=str(repository))))

    def _named(self, listing: Listing) -> Iterator[str]:
        if not self._images.is_glob:
            yield self._images.repositories
            return
        for name in listing.repositories(self._images.repositories):
            if self._images.matches(name):
                yield name

    def _tags(self, listing: Listing, repository: Repository) -> Iterator[Wanted]:
        choice = Choice(str(repository))
        listed = ((info, info) for info in listing.tags(repository.name))
        chosen = choose(listed, self._source.rules, self._now, choice)
        while tags := tuple(itertools.islice(chosen, _TAGS_AT_ONCE)):
            if self._immutable is not None and self._immutable.applies:
                tags, settled = self._immutable.split(repository, tags)
                self._settled += [(str(image.reference), image) for image in settled]
            if tags:
                yield Wanted(repository, tags)
        self._notes.chose(choice)
        for rule, left in choice.left_out.items():
            for name in left.examples:
                self._left_out.leave_out(rule, name)

    def _check_times(self, listing: Listing) -> None:
        rules, host = self._source.rules, self._images.registry.host
        if rules.newer_than is not None and not listing.push_times:
            raise UsageError(
                f"newer_than needs times of pushes, and {host} lists none",
                advice="choose by semver or newest; ECR lists them",
                key="tags.newer_than",
            )
        if rules.pulled_within is not None and not listing.pull_times:
            raise UsageError(
                f"pulled_within needs times of pulls, and {host} lists none",
                advice="choose by semver or newest; private ECR lists them",
                key="tags.pulled_within",
            )

    def _nothing(self) -> AsyncpushError:
        where = str(self._images)
        if not self._repositories:
            return SourceNotFoundError(
                "no repository matches the pattern",
                advice=f"* stays between slashes, ** crosses them; or {NAME_THEM}",
                images=where,
            )
        how = "; ".join(
            f"{rule} leaves out {', '.join(left.examples)}"
            for rule, left in self._left_out.left_out.items()
        )
        count = "1 repository" if self._repositories == 1 else f"{self._repositories} repositories"
        return SourceNotFoundError(
            f"no tag of {count} is chosen: " + (how or "there are no tags"),
            advice="mend tags of the source, or name an image by its digest",
            images=where,
        )


def expansion(
    source: JobSource,
    catalog: Catalog | None,
    now: datetime,
    notes: Notes,
    find_tags: FindTags | None = None,
) -> Iterator[tuple[str, Content | PlannedImage | AsyncpushError]]:
    """See :class:`Expansion`.

    :raises UsageError: this command reads no registries.
    """
    if catalog is None:
        raise UsageError(
            "images in registries cannot be read here",
            advice="use asyncpush run or plan",
            images=printable(source.directory),
        )
    return Expansion(source, catalog, now, notes, find_tags).run()
