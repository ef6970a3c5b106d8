"""A loaded job, and the images that its layouts give."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from asyncpush.engine.options import RegistrySettings
from asyncpush.errors import AsyncpushError, UsageError
from asyncpush.job.template import Template
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.layout import Content, read_manifest
from asyncpush.oci.manifest import load_json
from asyncpush.oci.select import for_platform, parse_platform
from asyncpush.plan.items import ResolvedEntry, choose_entries, renamed, tag_of
from asyncpush.plan.reference import AnyRegistry, Registry, Repository, parse_reference
from asyncpush.plan.sources import ChooseNames, Sources, source_identity, source_name
from asyncpush.registries.base import RepositorySettings


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a target sends images; without ``tags`` an entry's name gives its tag."""

    registries: tuple[AnyRegistry, ...]
    repository: Template
    tags: tuple[Template, ...] | None


@dataclass(frozen=True, slots=True)
class JobSource:
    """One layout directory or archive, which of its entries go, and where.

    :param directory: the layout, or the archive with its kind before it.
    :param selector: chooses entries as for a push; None means all.
    """

    directory: str
    entries: tuple[str, ...]
    exclude: tuple[str, ...]
    platforms: tuple[str, ...]
    destinations: tuple[Destination, ...]
    selector: str | None = None


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
        return (not self.only or _match(names, self.only)) and not _match(names, self.exclude)


@dataclass(frozen=True, slots=True)
class Job:
    """A job file that has been read.

    :param name: what people call it.
    :param options: fields of PushOptions that it sets.
    :param registries: credentials, endpoint and quotas of each registry.
    :param create: how repositories are created, where that is asked for.
    :param sources: one for each layout directory.
    """

    name: str
    options: Mapping[str, Any]
    registries: Mapping[AnyRegistry, RegistrySettings]
    create: RepositorySettings
    sources: Sequence[JobSource]
    selection: Selection = Selection()

    def select(self, only: Sequence[str], exclude: Sequence[str]) -> Job:
        """The same job, less what is not asked for."""
        return replace(self, selection=Selection(tuple(only), tuple(exclude)))

    def items(self) -> Iterator[JobItem]:
        """What goes where, a layout at a time."""
        return (JobItem(source, self.selection) for source in self.sources)

    def fingerprint(self) -> str:
        """What makes a job the same job: sources, targets, registries; not options and quotas."""
        content = [
            [
                [
                    *source_identity(source.directory),
                    *([] if source.selector is None else [source.selector]),
                    source.entries,
                    source.exclude,
                    source.platforms,
                    [
                        [
                            [registry.host for registry in destination.registries],
                            destination.repository.resolved,
                            None
                            if destination.tags is None
                            else [tag.resolved for tag in destination.tags],
                        ]
                        for destination in source.destinations
                    ],
                ]
                for source in self.sources
            ],
            sorted((r.host, s.aws.endpoint_url or "") for r, s in self.registries.items()),
            os.environ.get("AWS_ENDPOINT_URL_ECR"),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class JobItem:
    """One layout of a job: an :class:`~asyncpush.plan.items.Item`."""

    job_source: JobSource
    selection: Selection

    @property
    def label(self) -> str:
        """What people call it."""
        return self.job_source.directory

    @property
    def target(self) -> str:
        """Where it goes, for an error of the whole layout."""
        return "all targets"

    @property
    def opens(self) -> tuple[str, ChooseNames | None]:
        """See :class:`~asyncpush.plan.items.Item`."""
        return self.job_source.directory, None

    def resolve(self, sources: Sources) -> Iterator[ResolvedEntry]:
        """Open the layout and give each of its images with each place that it goes to.

        :raises AsyncpushError: the layout cannot be read, or holds no entry that is asked for.
        """
        source = self.job_source
        layout = sources.open_once(source.directory)
        chosen = choose_entries(layout, source.selector)
        entries = [entry for entry in chosen if self._wanted(entry)]
        if not entries:
            raise UsageError(
                f"none of the layout's {len(layout.entries)} entries is asked for",
                advice="mend entries and exclude of the source, or leave the layout out",
                file=source.directory,
            )
        for entry in entries:
            for platform in source.platforms or (None,):
                yield from self._images(layout, entry, platform)

    def _wanted(self, entry: Descriptor) -> bool:
        names = [name for name in (entry.ref_name, tag_of(entry)) if name]
        source = self.job_source
        if source.entries and not _match(names, source.entries):
            return False
        return not _match(names, source.exclude)

    def _images(
        self, layout: Content, entry: Descriptor, platform: str | None
    ) -> Iterator[ResolvedEntry]:
        for destination in self.job_source.destinations:
            for registry in destination.registries:
                image = _JobEntry(
                    layout,
                    entry,
                    platform,
                    destination,
                    registry,
                    source_name(self.job_source.directory),
                )
                if self._selected(image):
                    yield image

    def _selected(self, image: _JobEntry) -> bool:
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


class _JobEntry(ResolvedEntry):
    """One image on its way to one registry."""

    __slots__ = ("_destination", "_platform", "directory", "registry")

    def __init__(
        self,
        layout: Content,
        entry: Descriptor,
        platform: str | None,
        destination: Destination,
        registry: AnyRegistry,
        directory: str,
    ) -> None:
        super().__init__(layout, entry)
        self.directory = directory
        self.registry = registry
        self._destination = destination
        self._platform = platform

    @property
    def target(self) -> str:
        """Where it goes, as far as that is known."""
        return f"{self.registry.host}/{self._destination.repository.source}"

    @property
    def narrowed(self) -> bool:
        """See :class:`~asyncpush.plan.items.ResolvedEntry`."""
        return self._platform is not None

    def chosen(self) -> Descriptor:
        """The entry, or the image of it that is for the platform."""
        if self._platform is None:
            return self.entry
        image = for_platform(self.layout, self.entry, parse_platform(self._platform))
        return renamed(image, self.entry)

    def destination(self) -> tuple[Repository, tuple[str, ...]]:
        """Repository and tags, by the templates."""
        values = _Values(self)
        name = self._destination.repository.render(values)
        prefix = "" if isinstance(self.registry, Registry) else "docker://"
        repository = parse_reference(f"{prefix}{self.registry.host}/{name}").repository
        if self._destination.tags is None:
            tag = values.named_tag()
            return repository, (tag,) if tag else ()
        tags = [template.render(values) for template in self._destination.tags]
        for tag in tags:
            parse_reference(f"{prefix}{repository}:{tag}")
        return repository, tuple(dict.fromkeys(tags))

    @property
    def platform(self) -> str | None:
        """The platform that is asked for."""
        return self._platform


class _Values(dict[str, str | None]):
    """What templates may name of an image; annotations are read when one is asked for."""

    def __init__(self, image: _JobEntry) -> None:
        entry = image.entry
        platform = image.platform or (str(entry.platform) if entry.platform else None)
        parts = platform.split("/") if platform else []
        digest = str(image.chosen().digest)
        super().__init__(
            directory=image.directory,
            name=entry.ref_name,
            digest=digest,
            short_digest=digest.partition(":")[2][:12],
            platform="-".join(parts) or None,
            os=parts[0] if parts else None,
            architecture=parts[1] if len(parts) > 1 else None,
            account=image.registry.account if isinstance(image.registry, Registry) else None,
            region=image.registry.region if isinstance(image.registry, Registry) else None,
        )
        self._image = image
        self["tag"] = tag_of(entry)

    def named_tag(self) -> str | None:
        """The tag that the entry's name gives; None for an entry without a name."""
        name = self["name"]
        if name and self["tag"] is None:
            raise UsageError(
                f"the entry's name {name!r} is no tag that ECR takes",
                advice="give the target tags",
                digest=self._image.entry.digest,
            )
        return self["tag"]

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        family, dot, name = key.partition(".")
        if not dot or family != "annotations":
            return super().get(key, default)
        entry = self._image.entry
        found = (entry.annotations or {}).get(name)
        if found is None:
            chosen = self._image.chosen()
            raw = read_manifest(self._image.layout.find_manifest(chosen))
            annotations = load_json(raw).get("annotations")
            found = annotations.get(name) if isinstance(annotations, dict) else None
        return found if isinstance(found, str) else default


def _match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)
