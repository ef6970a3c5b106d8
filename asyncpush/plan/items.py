"""From what a user names, sources and targets, to entries of layouts with repository and tags."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from asyncpush.errors import (
    AsyncpushError,
    EntryNotFoundError,
    UnsupportedDigestError,
    UsageError,
    printable,
)
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest, parse_digest
from asyncpush.oci.layout import BlobSource, Content
from asyncpush.oci.select import (
    entries_named,
    entry_by_digest,
    entry_numbered,
    for_platform,
    parse_platform,
)
from asyncpush.plan.graph import Origin, PlannedImage
from asyncpush.plan.listing import AS_ANY, SourceAccess
from asyncpush.plan.reference import AnyRegistry, Repository, is_tag, parse_reference
from asyncpush.plan.sources import S3, Sources, source_kind, split_source

_NUMBER = re.compile(r"@([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class PushItem:
    """One thing to push.

    :param source: an OCI layout directory; ``DIR:NAME`` and ``DIR@DIGEST`` choose one entry, an
        ``oci:`` before it changes nothing. ``oci-archive:FILE`` and ``docker-archive:FILE`` are
        tar files, with the same ways to choose. ``docker://HOST/REPOSITORY[:TAG|@DIGEST]``, and the
        references and ARNs of ECR, are repositories of registries; without a tag all of its tags.
        ``s3://BUCKET/PREFIX`` is a layout in S3, ``oci-archive:s3://BUCKET/KEY`` an archive there.
    :param target: an ECR reference or a repository ARN. Without a tag, each entry's name gives
        its tag, and an entry without a name is pushed by digest.
    :param platform: ``OS/ARCH[/VARIANT]``: push that image of an index instead of the index.
    :param referrers: shell patterns of artifact types: what refers to the images comes along where
        one matches; empty means all that refers to them, None nothing.
    """

    source: str | os.PathLike[str]
    target: str
    platform: str | None = None
    referrers: tuple[str, ...] | None = None

    @property
    def label(self) -> str:
        """What people call it."""
        return os.fspath(self.source)

    @property
    def opens(self) -> tuple[str, SourceAccess]:
        """See :class:`Item`."""
        return os.fspath(self.source), AS_ANY

    @property
    def registries(self) -> Collection[AnyRegistry]:
        """See :class:`Item`."""
        return [parse_reference(self.target).repository.registry]

    def resolve(self, sources: Sources) -> Iterator[ResolvedEntry]:
        """See :class:`Item`."""
        return resolve(self, sources)


class Item(Protocol):
    """Something that gives entries of a layout, and where each goes."""

    @property
    def label(self) -> str:
        """What people call it."""
        ...

    @property
    def target(self) -> str:
        """Where it goes, for an error that concerns all of it."""
        ...

    @property
    def opens(self) -> tuple[str, SourceAccess]:
        """The source that :meth:`resolve` opens, and how it is asked, so that sources on other
        machines are opened many at once."""
        ...

    @property
    def registries(self) -> Collection[AnyRegistry]:
        """The registries that it goes to.

        :raises AsyncpushError: its target is not a reference.
        """
        ...

    def resolve(self, sources: Sources) -> Iterator[ResolvedEntry]:
        """Open the layout and choose the entries that are meant.

        :param sources: opens layouts and archives.
        :raises AsyncpushError: the source cannot be read, or source and target do not fit.
        """
        ...


class ResolvedEntry(ABC):
    """An entry of an opened layout on its way to one repository."""

    __slots__ = ("entry", "layout")

    def __init__(self, layout: Content, entry: Descriptor) -> None:
        self.layout = layout
        self.entry = entry

    @property
    def name(self) -> str:
        """What people call the entry."""
        return printable(self.entry.ref_name or self.entry.digest)

    @property
    def digest(self) -> str:
        """The entry's digest, which is not that of what is pushed where an image is chosen."""
        return str(self.entry.digest)

    @property
    @abstractmethod
    def target(self) -> str:
        """Where it goes, for an error before :meth:`destination` is known."""

    @property
    def origin(self) -> Origin | None:
        """Where it is read from; None where that is not known."""
        return None

    @property
    def narrowed(self) -> bool:
        """Whether :meth:`chosen` reads the entry."""
        return False

    @property
    def referrers(self) -> tuple[str, ...] | None:
        """Patterns of artifact types of the referrers that come along; empty means all, None
        none."""
        return None

    @abstractmethod
    def chosen(self) -> Descriptor:
        """The manifest that is pushed: the entry itself, or one image of it.

        :raises AsyncpushError: the entry has no such image.
        """

    @abstractmethod
    def destination(self) -> tuple[Repository, tuple[str, ...]]:
        """The repository and the tags that it gets: none if it goes by digest alone.

        :raises AsyncpushError: what the tags or the repository are made from cannot make them.
        """


class _PushEntry(ResolvedEntry):
    """An entry of a PushItem; ``named`` tells that its name gives the tag if ``tag`` is None."""

    __slots__ = ("_named", "_referrers", "_repository", "_source", "_tag")

    def __init__(
        self,
        layout: Content,
        entry: Descriptor,
        repository: Repository,
        tag: str | None,
        source: str,
        *,
        named: bool,
        referrers: tuple[str, ...] | None,
    ) -> None:
        super().__init__(layout, entry)
        self._referrers = referrers
        self._source = source
        self._repository = repository
        self._tag = tag
        self._named = named

    @property
    def target(self) -> str:
        """See :class:`ResolvedEntry`."""
        return f"{self._repository}@{self.entry.digest}"

    @property
    def origin(self) -> Origin:
        """See :class:`ResolvedEntry`."""
        return Origin(self._source, self.entry.digest)

    @property
    def referrers(self) -> tuple[str, ...] | None:
        """See :class:`ResolvedEntry`."""
        return self._referrers

    def chosen(self) -> Descriptor:
        """See :class:`ResolvedEntry`."""
        return self.entry

    def destination(self) -> tuple[Repository, tuple[str, ...]]:
        """See :class:`ResolvedEntry`.

        :raises UsageError: the entry's name gives the tag, and cannot.
        """
        if self._tag is not None:
            return self._repository, (self._tag,)
        if not self._named or not self.entry.ref_name:
            return self._repository, ()
        tag = tag_of(self.entry)
        if tag is None:
            raise UsageError(
                f"the entry's name {self.entry.ref_name!r} is no tag that ECR takes",
                advice="give the target a tag, or choose the entry by digest to push it untagged",
                digest=self.entry.digest,
            )
        return self._repository, (tag,)


class _NoContent:
    """Content that cannot be had."""

    root = ""
    entries: tuple[Descriptor, ...] = ()
    numbered: tuple[Descriptor, ...] = ()
    registry = repository = None

    def __init__(self, error: AsyncpushError) -> None:
        self._error = error

    def find(self, descriptor: Descriptor) -> BlobSource:  # noqa: ARG002 - as Content has it
        raise self._error

    def find_manifest(self, descriptor: Descriptor) -> BlobSource:  # noqa: ARG002 - the same
        raise self._error

    def holds(self, digest: Digest) -> bool:  # noqa: ARG002 - the same
        return False


_UNKNOWN = Descriptor(media_type="", digest=Digest(""), size=0)


class FailedEntry(ResolvedEntry):
    """An image that is known by name alone, since it cannot be opened.

    :param name: its reference.
    :param target: where it would go.
    :param error: why it cannot be had; raised by whatever is asked of the image.
    """

    __slots__ = ("_error", "_name", "_target")

    def __init__(self, name: str, target: str, error: AsyncpushError) -> None:
        super().__init__(_NoContent(error), _UNKNOWN)
        self._name = name
        self._target = target
        self._error = error

    @property
    def name(self) -> str:
        """See :class:`ResolvedEntry`."""
        return printable(self._name)

    @property
    def digest(self) -> str:
        """Unknown."""
        return ""

    @property
    def target(self) -> str:
        """See :class:`ResolvedEntry`."""
        return self._target

    def chosen(self) -> Descriptor:
        """Raises the error."""
        raise self._error

    def destination(self) -> tuple[Repository, tuple[str, ...]]:
        """Raises the error."""
        raise self._error


class SettledEntry(ResolvedEntry):
    """An image that its repository is known to have, so that its source was not even asked.

    :param image: the image, with the digest that the repository has.
    """

    __slots__ = ("image",)

    def __init__(self, image: PlannedImage) -> None:
        error = UsageError(f"{image.name} was not read: its target has it")
        super().__init__(_NoContent(error), _UNKNOWN)
        self.image = image

    @property
    def name(self) -> str:
        """See :class:`ResolvedEntry`."""
        return printable(self.image.name)

    @property
    def digest(self) -> str:
        """See :class:`ResolvedEntry`."""
        return str(self.image.root)

    @property
    def target(self) -> str:
        """See :class:`ResolvedEntry`."""
        return self.image.reference

    def chosen(self) -> Descriptor:
        """Nothing that could be pushed."""
        return self.entry

    def destination(self) -> tuple[Repository, tuple[str, ...]]:
        """See :class:`ResolvedEntry`."""
        return self.image.repository, self.image.tags


def tag_of(entry: Descriptor) -> str | None:
    """The tag that an entry's name is, or ends in if it is a whole reference."""
    name = entry.ref_name
    if not name:
        return None
    for tag in (name, name.partition("@")[0].rpartition(":")[2]):
        if is_tag(tag):
            return tag
    return None


def resolve(item: PushItem, sources: Sources) -> Iterator[ResolvedEntry]:
    """Open an item's layout and choose the entries that it means.

    :param sources: opens it.
    :raises AsyncpushError: the source cannot be read, or source and target do not fit together.
    """
    reference = parse_reference(item.target)
    _, selector = split_source(item.source)
    layout = sources.open(item.source)
    entries = choose_entries(layout, selector or reference.digest)
    if item.platform is not None:
        platform = parse_platform(item.platform)
        sources.prefetch([(layout, entries)], nested=False)
        entries = [renamed(for_platform(layout, e, platform), e) for e in entries]
    if reference.digest is not None and any(e.digest != reference.digest for e in entries):
        raise UsageError(
            f"the target's digest is not the entry's, {entries[0].digest}",
            advice="leave the digest out of the target, or choose the entry that has it",
            reference=str(reference),
        )
    if reference.tag is not None and len({e.digest for e in entries}) > 1:
        raise UsageError(
            f"the target has one tag, and {len(entries)} entries want it",
            advice="choose one entry with SOURCE:NAME, or leave out the tag to use their names",
            reference=str(reference),
        )
    # Whoever chooses by digest or number has said which image, and nothing of a tag.
    named = not _is_digest(selector) and not _number(selector) and reference.digest is None
    source = source_of(layout, os.fspath(item.source))
    for entry in entries:
        yield _PushEntry(
            layout,
            entry,
            reference.repository,
            reference.tag,
            source,
            named=named,
            referrers=item.referrers,
        )


def source_of(content: Content, source: str) -> str:
    """The source of content that can be named again from anywhere, without an entry.

    :param source: as the user wrote it.
    """
    if content.registry is not None:
        return f"docker://{content.registry}/{content.repository}"
    kind, _ = source_kind(source)
    path, _ = split_source(source)
    return path if kind == S3 else f"{kind}:{os.path.abspath(path)}"  # noqa: PTH100 - text only


def choose_entries(layout: Content, selector: str | None) -> list[Descriptor]:
    """The entries that a selector means: a name, a digest, ``@`` and a number, or all of them.

    :raises EntryNotFoundError: there is none.
    """
    if selector:
        if _is_digest(selector):
            return [entry_by_digest(layout, parse_digest(selector))]
        if number := _number(selector):
            return [entry_numbered(layout, int(number))]
        return entries_named(layout, selector)
    if not layout.entries:
        raise EntryNotFoundError("the source has no entries", file=str(layout.root))
    return list(layout.entries)


def renamed(chosen: Descriptor, entry: Descriptor) -> Descriptor:
    """A platform's image goes by the name of the index that it was chosen from."""
    if chosen is entry:
        return chosen
    return Descriptor(
        media_type=chosen.media_type,
        digest=chosen.digest,
        size=chosen.size,
        annotations=entry.annotations,
        platform=chosen.platform,
        data=chosen.data,
    )


def _number(selector: str | None) -> str | None:
    """The number in ``@0``, as skopeo names what has no name."""
    match = _NUMBER.fullmatch(selector or "")
    return match[1] if match else None


def _is_digest(selector: str | None) -> bool:
    try:
        return bool(parse_digest(selector))
    except UnsupportedDigestError:
        return False
