"""What a job says of one source: where its images are, which of them go, and where to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asyncpush.job.template import Template
from asyncpush.plan.choose import EVERYTHING, Rules
from asyncpush.plan.images import ImagePattern
from asyncpush.plan.listing import SourceAccess
from asyncpush.plan.reference import AnyRegistry
from asyncpush.plan.s3 import is_s3
from asyncpush.plan.sources import is_repository, parse_remote, source_identity, source_name


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a target sends images; without ``tags`` an entry's name gives its tag.

    :param immutable_tags: shell patterns of tags that never move once they are there.
    """

    registries: tuple[AnyRegistry, ...]
    repository: Template
    tags: tuple[Template, ...] | None
    immutable_tags: tuple[str, ...] = ()

    @property
    def identity(self) -> list[Any]:
        """What makes it the same destination when the job is run again."""
        return [
            [registry.host for registry in self.registries],
            self.repository.resolved,
            None if self.tags is None else [tag.resolved for tag in self.tags],
        ]


@dataclass(frozen=True, slots=True)
class JobSource:
    """One layout directory, archive or pattern of images, which of its entries go, and where.

    :param directory: the layout, or the archive with its kind before it; for images, the text that
        names them.
    :param selector: chooses entries as for a push; None means all.
    :param rules: which tags go, or names of entries.
    :param platforms: of an index, the image for each of them.
    :param keep: of an index, a smaller index of these platforms.
    :param referrers: artifact types of the referrers that come along; empty means all, None none.
    :param images: what is named in registries; None for layouts and archives.
    :param access: how the source's registry is asked.
    """

    directory: str
    entries: tuple[str, ...]
    exclude: tuple[str, ...]
    platforms: tuple[str, ...]
    destinations: tuple[Destination, ...]
    selector: str | None = None
    rules: Rules = EVERYTHING
    keep: tuple[str, ...] = ()
    referrers: tuple[str, ...] | None = None
    images: ImagePattern | None = None
    access: SourceAccess = field(default_factory=SourceAccess)

    @property
    def name(self) -> str:
        """What people call it: the name of its directory, or the end of its repository's name."""
        if self.images is not None:
            return self.images.repositories.rpartition("/")[2]
        return source_name(self.directory)

    def reads(self, source: str) -> bool:
        """Whether images of some repository, or of what is in S3, are this source's.

        :param source: ``docker://HOST/REPOSITORY``, or an address in S3.
        """
        if self.images is None:
            return is_s3(source) and source_identity(self.directory) == source_identity(source)
        if not is_repository(source):
            return False
        repository = parse_remote(source).repository
        images = self.images
        return repository.registry == images.registry and images.matches(repository.name)

    @property
    def identity(self) -> list[Any]:
        """What makes it the same source when the job is run again."""
        where = source_identity(self.directory)
        if self.images is not None:
            where = ("images", str(self.images))
        more = {
            "rules": self.rules.texts if self.rules else None,
            "keep": self.keep or None,
            "referrers": self.referrers,
        }
        more = {name: value for name, value in more.items() if value is not None}
        return [
            *where,
            *([] if self.selector is None else [self.selector]),
            self.entries,
            self.exclude,
            self.platforms,
            [destination.identity for destination in self.destinations],
            *([more] if more else []),
        ]
