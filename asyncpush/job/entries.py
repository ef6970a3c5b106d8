"""One image of a job on its way to one registry, and what templates may name of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from asyncpush.errors import UsageError
from asyncpush.job.notes import Notes
from asyncpush.job.sources import Destination, JobSource
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.layout import Content, read_manifest
from asyncpush.oci.manifest import load_json
from asyncpush.oci.select import for_platform, parse_platform
from asyncpush.oci.trim import trim
from asyncpush.plan.graph import Origin
from asyncpush.plan.items import ResolvedEntry, renamed, tag_of
from asyncpush.plan.reference import AnyRegistry, Registry, Repository, parse_reference


@dataclass(frozen=True)
class Picked:
    """What goes of one entry, to however many places: itself, one image, or a smaller index.

    :param name: what people call its source.
    :param where: its source, to be named again.
    :param platform: take the image for it out of an index.
    """

    layout: Content
    entry: Descriptor
    source: JobSource
    name: str
    where: str
    platform: str | None
    notes: Notes

    @cached_property
    def chosen(self) -> Descriptor:
        """The manifest that is pushed.

        :raises AsyncpushError: the index has no image for a platform that is asked for.
        """
        if self.platform is not None:
            image = for_platform(self.layout, self.entry, parse_platform(self.platform))
            return renamed(image, self.entry)
        if not self.source.keep:
            return self.entry
        platforms = [parse_platform(text) for text in self.source.keep]
        trimmed = trim(self.layout, self.entry, platforms)
        self.notes.trims(f"{self.name}:{self.entry.ref_name or ''}", self.entry, trimmed)
        return trimmed.index


class JobEntry(ResolvedEntry):
    """One image on its way to one registry."""

    __slots__ = ("_destination", "directory", "picked", "registry")

    def __init__(self, picked: Picked, destination: Destination, registry: AnyRegistry) -> None:
        super().__init__(picked.layout, picked.entry)
        self.picked = picked
        self.directory = picked.name
        self.registry = registry
        self._destination = destination

    @property
    def origin(self) -> Origin:
        """See :class:`~asyncpush.plan.items.ResolvedEntry`."""
        chosen, keep = self.picked.chosen, self.picked.source.keep
        if keep and chosen.digest != self.entry.digest:
            return Origin(self.picked.where, self.entry.digest, keep)
        return Origin(self.picked.where, chosen.digest)

    @property
    def referrers(self) -> tuple[str, ...] | None:
        """Artifact types of the referrers that come along; empty means all, None none."""
        return self.picked.source.referrers

    @property
    def immutable_tags(self) -> tuple[str, ...]:
        """Shell patterns of tags that never move at this destination once they are there."""
        return self._destination.immutable_tags

    @property
    def target(self) -> str:
        """Where it goes, as far as that is known."""
        return f"{self.registry.host}/{self._destination.repository.source}"

    @property
    def narrowed(self) -> bool:
        """See :class:`~asyncpush.plan.items.ResolvedEntry`."""
        return self.picked.platform is not None or bool(self.picked.source.keep)

    def chosen(self) -> Descriptor:
        """The entry, the image of it that is for the platform, or the smaller index."""
        return self.picked.chosen

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
        return self.picked.platform


class _Values(dict[str, str | None]):
    """What templates may name of an image; annotations are read when one is asked for."""

    def __init__(self, image: JobEntry) -> None:
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
        for name in ("registry", "repository"):
            value = getattr(image.layout, name, None)
            self[f"source.{name}"] = None if value is None else str(value)

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
