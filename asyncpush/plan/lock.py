"""Lock files: exactly which images came from where and went where, to be pushed again."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from asyncpush.documents.problems import Strict, Text
from asyncpush.documents.versioned import read_versioned
from asyncpush.errors import AsyncpushError, DigestMismatchError, UsageError
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest, parse_digest
from asyncpush.oci.layout import Content
from asyncpush.oci.select import entry_by_digest, parse_platform
from asyncpush.oci.trim import trim
from asyncpush.plan.graph import Origin
from asyncpush.plan.items import ResolvedEntry
from asyncpush.plan.listing import AS_ANY, SourceAccess
from asyncpush.plan.reference import AnyRegistry, Reference, Repository, is_ecr, parse_reference
from asyncpush.plan.sources import Sources, is_repository

LOCK_VERSION = 1
_BEGINS = re.compile(rb'\s*\{\s*"lock_version"')


class LockImage(Strict):
    """One image: where it is, what it is, where it goes."""

    name: Text = Field(description="What people call it.")
    source: Text = Field(description="docker://HOST/REPOSITORY, s3://BUCKET/PREFIX or KIND:PATH.")
    digest: Text = Field(description="Digest of what is pushed.")
    source_digest: Text | None = Field(
        None, description="Digest of the index that it is made from, where that is trimmed."
    )
    keep: list[Text] | None = Field(None, description="Platforms that a trimmed index keeps.")
    targets: list[Text] = Field(min_length=1, description="References, with tag or digest.")


class LockDocument(Strict):
    """What a push brought, to be pushed again."""

    lock_version: Literal[1] = Field(description="Version of this format.")
    images: list[LockImage] = Field(min_length=1)


def lock_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of lock files."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:asyncpush:lock:{LOCK_VERSION}",
        **LockDocument.model_json_schema(),
    }


def is_lock(path: Path) -> bool:
    """Whether a file begins as a lock file does."""
    try:
        with path.open("rb") as file:
            return _BEGINS.match(file.read(256)) is not None
    except (OSError, ValueError):
        return False


def reference_of(target: str) -> Reference:
    """Read a target as reports name it: a registry that is no ECR has no ``docker://`` there.

    :raises InvalidReferenceError: it is no reference.
    """
    plain = target.startswith(("docker://", "arn:")) or is_ecr(target)
    return parse_reference(target if plain else f"docker://{target}")


@dataclass(frozen=True, slots=True)
class LockItem:
    """One image of a lock: an :class:`~asyncpush.plan.items.Item`.

    :param access: how its source is asked, which no lock says.
    """

    name: str
    origin: Origin
    digest: Digest
    targets: tuple[Reference, ...]
    access: SourceAccess = AS_ANY

    @property
    def label(self) -> str:
        """What people call it."""
        return self.name

    @property
    def target(self) -> str:
        """Where it goes, for an error of all of it."""
        return ", ".join(str(target) for target in self.targets)

    @property
    def opens(self) -> tuple[str, SourceAccess]:
        """See :class:`~asyncpush.plan.items.Item`."""
        return self._source, self.access

    @property
    def registries(self) -> Collection[AnyRegistry]:
        """See :class:`~asyncpush.plan.items.Item`."""
        return {target.repository.registry for target in self.targets}

    def resolve(self, sources: Sources) -> Iterator[ResolvedEntry]:
        """See :class:`~asyncpush.plan.items.Item`.

        :raises AsyncpushError: the source cannot be read, or has no such digest.
        """
        content = sources.open(self._source, self.access)
        entry = entry_by_digest(content, self.origin.digest)
        by_repository: defaultdict[Repository, list[str]] = defaultdict(list)
        for target in self.targets:
            by_repository[target.repository] += [target.tag] if target.tag else []
        for repository, tags in by_repository.items():
            yield _LockEntry(content, entry, self, repository, tuple(dict.fromkeys(tags)))

    @property
    def _source(self) -> str:
        source = self.origin.source
        return f"{source}@{self.origin.digest}" if is_repository(source) else source


class _LockEntry(ResolvedEntry):
    """One image of a lock on its way to one repository."""

    __slots__ = ("_item", "_repository", "_tags")

    def __init__(
        self,
        layout: Content,
        entry: Descriptor,
        item: LockItem,
        repository: Repository,
        tags: tuple[str, ...],
    ) -> None:
        super().__init__(layout, entry)
        self._item = item
        self._repository = repository
        self._tags = tags

    @property
    def name(self) -> str:
        """See :class:`~asyncpush.plan.items.ResolvedEntry`."""
        return self._item.name

    @property
    def origin(self) -> Origin:
        """See :class:`~asyncpush.plan.items.ResolvedEntry`."""
        return self._item.origin

    @property
    def target(self) -> str:
        """See :class:`~asyncpush.plan.items.ResolvedEntry`."""
        return f"{self._repository}@{self._item.digest}"

    @property
    def narrowed(self) -> bool:
        """See :class:`~asyncpush.plan.items.ResolvedEntry`."""
        return bool(self._item.origin.keep)

    def chosen(self) -> Descriptor:
        """The image, or the smaller index of it.

        :raises DigestMismatchError: the smaller index is another than the lock's.
        """
        if not self._item.origin.keep:
            return self.entry
        platforms = [parse_platform(text) for text in self._item.origin.keep]
        index = trim(self.layout, self.entry, platforms).index
        if index.digest != self._item.digest:
            raise DigestMismatchError(
                f"the index of these platforms is {index.digest}, the lock has {self._item.digest}",
                advice="write the lock again",
                digest=self.entry.digest,
            )
        return index

    def destination(self) -> tuple[Repository, tuple[str, ...]]:
        """See :class:`~asyncpush.plan.items.ResolvedEntry`."""
        return self._repository, self._tags


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that has been read.

    :param fingerprint: what makes it the same lock.
    """

    items: tuple[LockItem, ...]
    fingerprint: str


def read_lock(path: Path) -> Lock:
    """Read a lock file.

    :raises UsageError: it cannot be read, or is damaged.
    """
    raw, document = read_versioned(path, "lock", "lock_version", LOCK_VERSION)
    try:
        images = LockDocument.model_validate(document).images
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise _damaged(path, first["msg"], *first["loc"]) from exc
    items = []
    for number, image in enumerate(images):
        try:
            items.append(_item(image))
        except AsyncpushError as exc:
            raise _damaged(path, exc.message, "images", number) from exc
    return Lock(tuple(items), hashlib.sha256(raw).hexdigest())


def _item(image: LockImage) -> LockItem:
    digest = parse_digest(image.digest)
    keep = tuple(image.keep or ())
    for platform in keep:
        parse_platform(platform)
    if bool(keep) != (image.source_digest is not None):
        raise UsageError("keep goes with source_digest")
    source_digest = digest if image.source_digest is None else parse_digest(image.source_digest)
    targets = tuple(reference_of(target) for target in image.targets)
    for target in targets:
        if target.digest not in (None, digest):
            raise UsageError(f"the target {target} has another digest than the image")
    return LockItem(image.name, Origin(image.source, source_digest, keep), digest, targets)


def _damaged(path: Path, message: str, *where: Any) -> UsageError:
    return UsageError(
        f"the lock is damaged: {message}",
        advice="write it again with --lock",
        file=str(path),
        key=".".join(map(str, where)),
    )
