"""Tags that never move: where every target has one already, its source is not asked for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from asyncpush.errors import AsyncpushError
from asyncpush.job.sources import Destination, JobSource
from asyncpush.oci.digest import Digest
from asyncpush.plan.choose import TagInfo, matches_any
from asyncpush.plan.graph import Origin, PlannedImage
from asyncpush.plan.listing import FindTags
from asyncpush.plan.reference import (
    AnyRegistry,
    DistributionRegistry,
    Registry,
    Repository,
    parse_reference,
)

_Place = tuple[Repository, tuple[str, ...]]


class Immutable:
    """Finds the tags of a source that every target has, and whose target tags never move.

    :param source: its destinations say which tags never move.
    :param find_tags: asks targets, on the planning thread.
    """

    def __init__(self, source: JobSource, find_tags: FindTags) -> None:
        self._destinations = source.destinations
        self._find_tags = find_tags
        # A choice of platforms, and referrers, depend on what the source holds.
        self.applies = (
            bool(source.destinations)
            and all(destination.immutable_tags for destination in source.destinations)
            and not (source.platforms or source.keep or source.referrers is not None)
        )

    def split(
        self, repository: Repository, tags: Sequence[TagInfo]
    ) -> tuple[tuple[TagInfo, ...], list[PlannedImage]]:
        """Take the tags out that are everywhere.

        :param repository: the source.
        :return: the other tags, and the images of those that are taken out, one for each target.
        """
        places = {tag.name: self._places(repository, tag.name) for tag in tags}
        asked: dict[Repository, dict[str, None]] = {}
        for place in places.values():
            for target, names in place or ():
                asked.setdefault(target, {}).update(dict.fromkeys(names))
        found = {target: self._find_tags(target, list(names)) for target, names in asked.items()}
        settled: list[PlannedImage] = []
        rest: list[TagInfo] = []
        for tag in tags:
            images = [
                _image(repository, tag.name, target, names, found[target])
                for target, names in places[tag.name] or ()
            ]
            if images and None not in images:
                settled += [image for image in images if image is not None]
            else:
                rest.append(tag)
        return tuple(rest), settled

    def _places(self, repository: Repository, tag: str) -> list[_Place] | None:
        """Where a tag goes; None where that depends on more than its name, or it may move there."""
        places: list[_Place] = []
        for destination, registry in self._targets():
            try:
                target, names = _place(destination, registry, repository, tag)
            except AsyncpushError:
                return None
            patterns = destination.immutable_tags
            if not names or not all(matches_any((name,), patterns) for name in names):
                return None
            places.append((target, names))
        return places

    def _targets(self) -> Iterator[tuple[Destination, AnyRegistry]]:
        for destination in self._destinations:
            for registry in destination.registries:
                yield destination, registry


def _place(destination: Destination, registry: AnyRegistry, source: Repository, tag: str) -> _Place:
    """The repository and the tags that a tag gets, by what is known without its image.

    :raises UsageError: a template needs more than that.
    """
    values: dict[str, str | None] = {
        "directory": source.name.rpartition("/")[2],
        "name": tag,
        "tag": tag,
        "account": registry.account if isinstance(registry, Registry) else None,
        "region": registry.region if isinstance(registry, Registry) else None,
        "source.registry": source.registry.host,
        "source.repository": source.name,
    }
    prefix = "docker://" if isinstance(registry, DistributionRegistry) else ""
    name = destination.repository.render(values)
    repository = parse_reference(f"{prefix}{registry.host}/{name}").repository
    if destination.tags is None:
        return repository, (tag,)
    return repository, tuple(dict.fromkeys(t.render(values) for t in destination.tags))


def _image(
    source: Repository,
    tag: str,
    target: Repository,
    names: tuple[str, ...],
    found: Mapping[str, Digest],
) -> PlannedImage | None:
    """The image that a target has under all of these tags; None if it has not."""
    roots = {found.get(name) for name in names}
    root = roots.pop()
    if roots or root is None:
        return None
    return PlannedImage(tag, target, root, names, (), Origin(f"docker://{source}", root))
