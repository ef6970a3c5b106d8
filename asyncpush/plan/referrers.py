"""What refers to images: found in their sources, level by level, and planned behind them."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    BlobMissingError,
    CredentialsError,
    ManifestError,
    SourceNotFoundError,
)
from asyncpush.oci import digest as digests
from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import REF_NAME, Descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import Content, read_manifest
from asyncpush.oci.manifest import ImageIndex, Manifest, parse_manifest
from asyncpush.oci.referrers import (
    Found,
    artifact_types,
    cosign_tags,
    is_wanted,
    names_referrers,
    referrers_tag,
)
from asyncpush.plan.graph import Origin
from asyncpush.plan.items import ResolvedEntry, tag_of
from asyncpush.plan.reference import Repository
from asyncpush.plan.sources import Sources

DEEPEST = 8
"""How many levels of referrers of referrers are followed: a signature of an SBOM is the second."""
_READ_AT_ONCE = 1024
# Layouts whose entries are kept sorted by subject: those of a job come one after the other.
_LAYOUTS = 8
_Types = tuple[str, ...]


class ReferrerEntry(ResolvedEntry):
    """A referrer on its way to where its subject goes.

    :param subject: the image that was asked for.
    :param referrer: what refers to it, or to another of its referrers; cosign's has its tag as its
        name.
    """

    __slots__ = ("_subject",)

    def __init__(self, subject: ResolvedEntry, referrer: Descriptor) -> None:
        super().__init__(subject.layout, referrer)
        self._subject = subject

    @property
    def target(self) -> str:
        """See :class:`~asyncpush.plan.items.ResolvedEntry`."""
        return self._subject.target

    @property
    def origin(self) -> Origin | None:
        """See :class:`~asyncpush.plan.items.ResolvedEntry`."""
        origin = self._subject.origin
        return None if origin is None else Origin(origin.source, self.entry.digest)

    def chosen(self) -> Descriptor:
        """The referrer itself."""
        return self.entry

    def destination(self) -> tuple[Repository, tuple[str, ...]]:
        """Its subject's repository, and cosign's tag where it has one."""
        repository, _ = self._subject.destination()
        return repository, (self.entry.ref_name,) if self.entry.ref_name else ()


class LayoutReferrers:
    """The entries of a layout or an archive by what they refer to.

    :param prefetch: fetches manifests that will be read, many at once.
    :param warn: told of entries that cannot be read, once.
    """

    def __init__(
        self,
        content: Content,
        prefetch: Callable[[Sequence[Descriptor]], None],
        warn: Callable[[str], None],
    ) -> None:
        self._by_subject: dict[Digest, list[Descriptor]] = {}
        self._by_tag: dict[str, Descriptor] = {}
        unread: list[AsyncpushError] = []
        for begin in range(0, len(content.entries), _READ_AT_ONCE):
            entries = content.entries[begin : begin + _READ_AT_ONCE]
            prefetch(entries)
            for entry in entries:
                tag = tag_of(entry)
                if tag is not None and names_referrers(tag):
                    self._by_tag[tag] = entry
                try:
                    subject = _read(content, entry).subject
                except AsyncpushError as exc:
                    unread.append(exc)
                    continue
                if subject is not None:
                    self._by_subject.setdefault(subject.digest, []).append(entry)
        if unread:
            warn(
                f"{len(unread)} of {len(content.entries)} entries of {content.root} cannot be read;"
                f" referrers among them are left behind: {unread[0]}"
            )

    def of(self, subject: Digest) -> Found:
        """What refers to a digest."""
        listed = self._by_tag.get(referrers_tag(subject))
        return Found(
            referrers=list(self._by_subject.get(subject, ())),
            tagged=[_named(self._by_tag[t], t) for t in cosign_tags(subject) if t in self._by_tag],
            lists=[listed] if listed is not None and _is_list(listed) else [],
        )


@dataclass(eq=False)
class _Tree:
    """What was found below some digests of one source."""

    content: Content
    types: _Types
    found: dict[Digest, list[Descriptor]] = field(default_factory=dict)
    members: dict[Digest, list[Digest]] = field(default_factory=dict)
    level: dict[Digest, None] = field(default_factory=dict)

    def fresh(self) -> list[Digest]:
        """Those of the level that were not asked about before."""
        return [digest for digest in self.level if digest not in self.found]

    def below(self, roots: Iterable[Digest]) -> Iterator[Descriptor]:
        """What refers to some digests, each once, a subject before what refers to it."""
        queue = deque(dict.fromkeys(roots))
        reached = set(queue)
        given: set[tuple[Digest, str | None]] = set()
        while queue:
            for referrer in self.found.get(queue.popleft(), ()):
                key = (referrer.digest, referrer.ref_name)
                if key in given:
                    continue
                given.add(key)
                yield referrer
                fresh = [d for d in self.members[referrer.digest] if d not in reached]
                reached.update(fresh)
                queue.extend(fresh)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why what refers to a manifest cannot be had, or not all of it."""

    content: Content
    subject: Digest
    error: AsyncpushError


class Referrers:
    """What one search has found."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.trees: dict[tuple[Content, _Types], _Tree] = {}

    def of(self, content: Content, types: _Types, roots: Sequence[Digest]) -> list[Descriptor]:
        """All that refers to some digests of a source; what has cosign's tag is named by it."""
        tree = self.trees.get((content, types))
        return [] if tree is None else list(tree.below(roots))


class ReferrerSearch:
    """Finds what refers to images, for one plan.

    :param sources: asks what is on other machines.
    :param warn: told of what is left behind, and does no harm.
    """

    def __init__(self, sources: Sources, warn: Callable[[str], None]) -> None:
        self._sources = sources
        self._warn = warn
        self._layouts: OrderedDict[Content, LayoutReferrers] = OrderedDict()
        self._denied: set[tuple[str | None, str | None]] = set()

    def search(self, wanted: Iterable[tuple[Content, _Types, Sequence[Digest]]]) -> Referrers:
        """Look for all that refers to some digests, and for what refers to that.

        :param wanted: sources, the artifact types that are asked for (none: all), and digests.
        """
        result = Referrers()
        for content, types, roots in wanted:
            key = (content, types)
            tree = result.trees.setdefault(key, _Tree(content, types))
            tree.level.update(dict.fromkeys(roots))
        for depth in range(DEEPEST + 1):
            asked = [(tree, digest) for tree in result.trees.values() for digest in tree.fresh()]
            if not asked:
                break
            for tree in result.trees.values():
                tree.level = {}
            self._descend(asked, result, last=depth == DEEPEST)
        return result

    def _descend(
        self, asked: Sequence[tuple[_Tree, Digest]], result: Referrers, *, last: bool
    ) -> None:
        """Ask about one level; what is found becomes the next one."""
        answers = self._ask([(tree.content, digest) for tree, digest in asked])
        self._prefetch(
            (tree.content, found.lists) for (tree, _), found in zip(asked, answers, strict=True)
        )
        candidates: list[tuple[_Tree, Digest, list[Descriptor]]] = []
        for (tree, subject), found in zip(asked, answers, strict=True):
            for problem in found.problems:
                self._note(result, tree.content, subject, problem)
            named = self._named(tree, subject, found, result)
            candidates.append((tree, subject, [*named, *found.tagged]))
        self._prefetch((tree.content, _to_read(tree, some)) for tree, _, some in candidates)
        for tree, subject, some in candidates:
            accepted = [d for d in some if self._accept(tree, subject, d, result)]
            if accepted and last:
                self._warn(
                    f"referrers of referrers more than {DEEPEST} levels deep are left behind:"
                    f" {len(accepted)} of {subject} in {tree.content.root}"
                )
                accepted = []
            tree.found[subject] = accepted
            for referrer in accepted:
                held = self._members(tree, subject, referrer, result)
                tree.members[referrer.digest] = held
                tree.level.update(dict.fromkeys(held))

    def _ask(self, wanted: Sequence[tuple[Content, Digest]]) -> list[Found]:
        remote = [(content, digest) for content, digest in wanted if content.registry is not None]
        answers = iter(self._sources.referrers(remote) if remote else ())
        return [
            next(answers) if content.registry is not None else self._layout(content).of(digest)
            for content, digest in wanted
        ]

    def _layout(self, content: Content) -> LayoutReferrers:
        if content not in self._layouts:
            self._layouts[content] = LayoutReferrers(
                content, lambda entries: self._prefetch([(content, entries)]), self._warn
            )
        self._layouts.move_to_end(content)
        while len(self._layouts) > _LAYOUTS:
            self._layouts.popitem(last=False)
        return self._layouts[content]

    def _named(
        self, tree: _Tree, subject: Digest, found: Found, result: Referrers
    ) -> list[Descriptor]:
        """What a source names as referrers and is asked for, each once."""
        named = list(found.referrers)
        for index in found.lists:
            try:
                listed = _read(tree.content, index)
            except AsyncpushError as exc:
                self._note(result, tree.content, subject, exc)
                continue
            if isinstance(listed, ImageIndex):
                named += listed.manifests
        unique = {d.digest: d for d in named if d.digest != subject}
        return [_unnamed(d) for d in unique.values() if _may_be_wanted(d, tree.types)]

    def _accept(
        self, tree: _Tree, subject: Digest, referrer: Descriptor, result: Referrers
    ) -> bool:
        """Whether it is a referrer that is asked for; what keeps it from being read is noted."""
        try:
            return self._is_meant(tree, subject, referrer)
        except (SourceNotFoundError, BlobMissingError):
            self._warn(
                f"{tree.content.root} lists {referrer.digest} as a referrer of {subject}, and does"
                " not have it"
            )
        except AsyncpushError as exc:
            self._note(result, tree.content, subject, exc)
        return False

    def _is_meant(self, tree: _Tree, subject: Digest, referrer: Descriptor) -> bool:
        if referrer.media_type not in mediatypes.MANIFESTS:
            raise ManifestError(
                f"a referrer of the media type {referrer.media_type} cannot be copied",
                advice="choose others by their artifact types",
                digest=referrer.digest,
            )
        if referrer.ref_name and not tree.types:
            return True
        manifest = _read(tree.content, referrer)
        if not is_wanted(artifact_types(manifest), tree.types):
            return False
        # Cosign's tag says what it refers to; anything else says so itself.
        named = manifest.subject.digest if manifest.subject is not None else None
        if referrer.ref_name or named == subject:
            return True
        self._warn(
            f"{tree.content.root} lists {referrer.digest} as a referrer of {subject}, and it is"
            " none: it is left behind"
        )
        return False

    def _members(
        self, tree: _Tree, subject: Digest, referrer: Descriptor, result: Referrers
    ) -> list[Digest]:
        try:
            return members(tree.content, referrer)
        except AsyncpushError as exc:
            self._note(result, tree.content, subject, exc)
            return [referrer.digest]

    def _prefetch(self, wanted: Iterable[tuple[Content, Sequence[Descriptor]]]) -> None:
        some = [(content, descriptors) for content, descriptors in wanted if descriptors]
        if some:
            self._sources.prefetch(some, nested=False)

    def _note(
        self, result: Referrers, content: Content, subject: Digest, error: AsyncpushError
    ) -> None:
        # What may not be listed for one image may not be for all others of its repository.
        if isinstance(error, AccessDeniedError | CredentialsError):
            where = (content.registry, content.repository)
            if where in self._denied:
                return
            self._denied.add(where)
        if "source" not in error.where and "file" not in error.where:
            error = error.at(source=str(content.root))
        result.problems.append(Problem(content, subject, error))


def members(content: Content, root: Descriptor) -> list[Digest]:
    """The digest of a manifest, and those of all images that it holds if it is an index.

    :raises AsyncpushError: an index cannot be read.
    """
    found: dict[Digest, None] = {root.digest: None}
    level = [root]
    while indexes := [d for d in level if mediatypes.is_index(d.media_type)]:
        level = []
        for index in indexes:
            manifest = _read(content, index)
            if isinstance(manifest, ImageIndex):
                level += [
                    child
                    for child in manifest.manifests
                    if child.media_type in mediatypes.MANIFESTS and child.digest not in found
                ]
        found.update((child.digest, None) for child in level)
    return list(found)


def _read(content: Content, descriptor: Descriptor) -> Manifest:
    raw = read_manifest(content.find_manifest(descriptor))
    try:
        digests.verify(raw, descriptor.digest, descriptor.size)
        return parse_manifest(raw, descriptor.media_type)
    except AsyncpushError as exc:
        raise exc.at(digest=descriptor.digest) from exc.__cause__


def _to_read(tree: _Tree, candidates: Sequence[Descriptor]) -> list[Descriptor]:
    """Those whose manifests say whether they are wanted, or what they hold."""
    return [
        d
        for d in candidates
        if d.media_type in mediatypes.MANIFESTS
        and (tree.types or not d.ref_name or mediatypes.is_index(d.media_type))
    ]


def _may_be_wanted(referrer: Descriptor, types: _Types) -> bool:
    """Whether its manifest is worth reading: a list may say of what type it is."""
    kind = referrer.artifact_type
    if kind is None or mediatypes.is_image_config(kind):
        return True
    return is_wanted((kind,), types)


def _is_list(entry: Descriptor) -> bool:
    return entry.media_type == mediatypes.OCI_INDEX


def _named(entry: Descriptor, tag: str) -> Descriptor:
    return Descriptor(
        entry.media_type, entry.digest, entry.size, annotations={REF_NAME: tag}, data=entry.data
    )


def _unnamed(entry: Descriptor) -> Descriptor:
    """A referrer goes by its digest, whatever name it has in a layout."""
    return Descriptor(entry.media_type, entry.digest, entry.size, data=entry.data)
