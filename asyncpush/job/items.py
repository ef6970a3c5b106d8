"""A loaded job, and the images that its sources give."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from asyncpush.engine.options import RegistrySettings
from asyncpush.errors import AsyncpushError, UsageError
from asyncpush.job.entries import JobEntry, Picked
from asyncpush.job.notes import Notes
from asyncpush.job.remote import expansion
from asyncpush.job.sources import JobSource
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.layout import Content
from asyncpush.plan.choose import Choice, TagInfo, choose, matches_any
from asyncpush.plan.graph import PlannedImage
from asyncpush.plan.items import (
    FailedEntry,
    ResolvedEntry,
    SettledEntry,
    choose_entries,
    source_of,
    tag_of,
)
from asyncpush.plan.listing import AS_ANY, SourceAccess
from asyncpush.plan.reference import AnyRegistry
from asyncpush.plan.sources import Sources
from asyncpush.registries.base import RepositorySettings

CREATED = "org.opencontainers.image.created"
"""Annotation of the time at which an image was built."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which images of a job are pushed this time.

    Patterns (as of a shell) are matched against the layout's directory name, ``DIRECTORY:NAME``,
    the entry's name, the repository's name, the registry's host and the whole reference.
    """

    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, names: Sequence[str]) -> bool:
        """Whether an image of these names is pushed."""
        return (not self.only or matches_any(names, self.only)) and not matches_any(
            names, self.exclude
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A job file that has been read.

    :param name: what people call it.
    :param options: fields of PushOptions that it sets.
    :param registries: credentials, endpoint and quotas of each registry.
    :param create: how repositories are created, where that is asked for.
    :param sources: one for each layout directory, archive, or pattern of images.
    :param notes: what choices have left out, filled in while items are resolved.
    """

    name: str
    options: Mapping[str, Any]
    registries: Mapping[AnyRegistry, RegistrySettings]
    create: RepositorySettings
    sources: Sequence[JobSource]
    selection: Selection = Selection()
    notes: Notes = field(default_factory=Notes, compare=False)

    def select(self, only: Sequence[str], exclude: Sequence[str]) -> Job:
        """The same job, less what is not asked for."""
        return replace(self, selection=Selection(tuple(only), tuple(exclude)))

    def with_referrers(self, types: tuple[str, ...]) -> Job:
        """The same job, with the referrers of all images.

        :param types: patterns of artifact types; none means all.
        """
        sources = tuple(replace(source, referrers=types) for source in self.sources)
        return replace(self, sources=sources)

    def items(self) -> Iterator[JobItem]:
        """What goes where, a layout at a time."""
        return (JobItem(source, self.selection, self.notes) for source in self.sources)

    def access_of(self, source: str) -> SourceAccess:
        """How the job asks a source: as the first of its own that reads it.

        :param source: as reports and locks name it.
        """
        found = (own.access for own in self.sources if own.reads(source))
        return next(found, AS_ANY)

    def fingerprint(self) -> str:
        """What makes a job the same job: sources, targets, registries; not options and quotas."""
        content = [
            [source.identity for source in self.sources],
            sorted((r.host, s.aws.endpoint_url or "") for r, s in self.registries.items()),
            os.environ.get("AWS_ENDPOINT_URL_ECR"),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class JobItem:
    """One source of a job: an :class:`~asyncpush.plan.items.Item`."""

    job_source: JobSource
    selection: Selection
    notes: Notes = field(default_factory=Notes, compare=False)

    @property
    def label(self) -> str:
        """What people call it."""
        return self.job_source.directory

    @property
    def target(self) -> str:
        """Where it goes, for an error of the whole layout."""
        return "all targets"

    @property
    def opens(self) -> tuple[str, SourceAccess]:
        """See :class:`~asyncpush.plan.items.Item`."""
        # Images are listed, and opened many at once, while they are resolved.
        source = self.job_source
        return "" if source.images else source.directory, source.access

    @property
    def registries(self) -> Collection[AnyRegistry]:
        """See :class:`~asyncpush.plan.items.Item`."""
        destinations = self.job_source.destinations
        return {registry for where in destinations for registry in where.registries}

    def resolve(self, sources: Sources) -> Iterator[ResolvedEntry]:
        """Open the source and give each of its images with each place that it goes to.

        :raises AsyncpushError: the source cannot be read, or holds no entry that is asked for.
        """
        source = self.job_source
        if source.images is None:
            layout = sources.open_once(source.directory, source.access)
            for entry in self._entries(layout):
                yield from self._picked(layout, entry, source.name)
            return
        # A choice of images goes by what each of them is, so that all are asked for.
        chosen = self.selection.only or self.selection.exclude
        find_tags = None if chosen else sources.find_tags
        found = expansion(source, sources.catalog, self._now(), self.notes, find_tags)
        for name, content in found:
            if isinstance(content, PlannedImage):
                yield SettledEntry(content)
                continue
            if isinstance(content, AsyncpushError):
                yield FailedEntry(name, self.target, content)
                continue
            for entry in content.entries:
                yield from self._picked(content, entry, _repository_name(content, source))

    def _entries(self, layout: Content) -> Iterator[Descriptor]:
        source = self.job_source
        chosen = choose_entries(layout, source.selector)
        wanted = [entry for entry in chosen if self._wanted(entry)]
        if source.rules.newer_than and not any(_created(entry) for entry in wanted):
            raise UsageError(
                f"newer_than needs the annotation {CREATED}, and no entry of the layout has it",
                advice="choose by semver or newest instead",
                file=source.directory,
            )
        choice = Choice(source.directory)
        listed = ((entry, _info(entry)) for entry in wanted)
        found = False
        for entry in choose(listed, source.rules, self._now(), choice):
            found = True
            yield entry
        self.notes.chose(choice)
        if not found:
            raise UsageError(
                f"none of the layout's {len(layout.entries)} entries is asked for",
                advice="mend entries, exclude and tags of the source, or leave the layout out",
                file=source.directory,
            )

    def _wanted(self, entry: Descriptor) -> bool:
        names = [name for name in (entry.ref_name, tag_of(entry)) if name]
        source = self.job_source
        if source.entries and not matches_any(names, source.entries):
            return False
        return not matches_any(names, source.exclude)

    def _picked(self, layout: Content, entry: Descriptor, name: str) -> Iterator[ResolvedEntry]:
        source = self.job_source
        where = source_of(layout, source.directory)
        for platform in source.platforms or (None,):
            picked = Picked(layout, entry, source, name, where, platform, self.notes)
            for destination in source.destinations:
                for registry in destination.registries:
                    image = JobEntry(picked, destination, registry)
                    if self._selected(image):
                        yield image

    def _selected(self, image: JobEntry) -> bool:
        if not self.selection.only and not self.selection.exclude:
            return True
        names = [image.directory, f"{image.directory}:{image.name}", image.name]
        names.append(image.registry.host)
        try:
            repository, tags = image.destination()
            names += [repository.name, str(repository), *(f"{repository}:{tag}" for tag in tags)]
        except AsyncpushError:
            pass  # It is told of when it is planned.
        return self.selection.takes(names)

    @staticmethod
    def _now() -> datetime:
        return datetime.now(UTC)


def _info(entry: Descriptor) -> TagInfo:
    name = tag_of(entry) or entry.ref_name or entry.digest
    return TagInfo(name, entry.digest, pushed_at=_created(entry))


def _created(entry: Descriptor) -> datetime | None:
    """When an entry was made, where it says so (image-spec, annotations.md)."""
    try:
        time = datetime.fromisoformat((entry.annotations or {})[CREATED])
    except (KeyError, ValueError):
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _repository_name(content: Content, source: JobSource) -> str:
    """What people call the repository that an image comes from: the end of its name."""
    repository = getattr(content, "repository", None)
    return source.name if repository is None else str(repository).rpartition("/")[2]
