"""The graph of what each repository must hold: blobs, manifests, tags, each once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import BlobSource
from asyncpush.oci.remote import RemoteBlob
from asyncpush.plan.reference import Repository


@dataclass(frozen=True, slots=True)
class PlannedBlob:
    """A config or layer that the repository must hold; ``size`` in bytes."""

    digest: Digest
    size: int
    source: BlobSource


@dataclass(frozen=True, slots=True)
class PlannedManifest:
    """A manifest or index that the repository must hold.

    ``needs`` are the manifests to commit before it: its children, and its subject where the layout
    holds it. A ``subject`` that comes from elsewhere is needed where the repository gets it, too.
    """

    digest: Digest
    media_type: str
    size: int
    source: BlobSource
    blobs: tuple[Digest, ...]
    needs: tuple[Digest, ...]
    subject: Digest | None
    is_artifact: bool


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an image is read from, so that exactly it can be read again.

    :param source: ``docker://HOST/REPOSITORY``, or ``KIND:PATH`` with the whole path.
    :param digest: the manifest's digest there.
    :param keep: the platforms that a smaller index of it keeps; empty for the manifest as it is.
    """

    source: str
    digest: Digest
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """One entry on its way to one repository.

    ``name`` is what people call the entry, ``tags`` the tags that its root gets; without tags it is
    pushed by digest alone. ``manifests`` are all manifests of the image in an order of commit: what
    is needed comes first, the root last.
    """

    name: str
    repository: Repository
    root: Digest
    tags: tuple[str, ...]
    manifests: tuple[Digest, ...] = ()
    origin: Origin | None = None

    @property
    def reference(self) -> str:
        """The target as a reference, with the tag (the first of several) or the digest."""
        mark = f":{self.tags[0]}" if self.tags else f"@{self.root}"
        return f"{self.repository}{mark}"


@dataclass(slots=True)
class RepositoryPlan:
    """All that one repository must hold when the push is done."""

    repository: Repository
    blobs: dict[Digest, PlannedBlob] = field(default_factory=dict)
    manifests: dict[Digest, PlannedManifest] = field(default_factory=dict)
    images: list[PlannedImage] = field(default_factory=list)
    tags: dict[str, Digest] = field(default_factory=dict)
    others: dict[Digest, list[RemoteBlob]] = field(default_factory=dict)
    """Where else blobs are that other machines have, for those that their first source does not
    give; one for all repositories of a plan."""

    def blobs_of(self, image: PlannedImage) -> dict[Digest, PlannedBlob]:
        """An image's blobs, each once, in the order in which its manifests name them."""
        return {
            digest: self.blobs[digest]
            for manifest in image.manifests
            for digest in self.manifests[manifest].blobs
        }

    def needs_of(self, manifest: PlannedManifest) -> tuple[Digest, ...]:
        """The manifests that this repository must hold before it takes a manifest."""
        subject = manifest.subject
        if subject is None or subject in manifest.needs or subject not in self.manifests:
            return manifest.needs
        return (subject, *manifest.needs)

    def commits(self, *, atomic: bool, unchanged: Collection[PlannedImage] = ()) -> int:
        """How many manifests and tags are committed, each once.

        :param atomic: by digest first, whatever has a tag, too.
        :param unchanged: images that are there with all of their tags.
        """
        there = {digest for image in unchanged for digest in image.manifests}
        kept = {tag for image in unchanged for tag in image.tags}
        manifests = [m for digest, m in self.manifests.items() if digest not in there]
        tags = {tag: root for tag, root in self.tags.items() if tag not in kept}
        untagged = len(manifests)
        if not atomic:
            # A root goes with its tags at once, unless something else needs it by digest before.
            needed = {need for m in manifests for need in self.needs_of(m)}
            untagged -= len(set(tags.values()) - needed - there)
        return untagged + len(tags)

    def order_of_commit(
        self, root: Digest, known: Mapping[Digest, PlannedManifest]
    ) -> tuple[Digest, ...]:
        """A manifest and all that it needs: what is needed comes first.

        :param known: every manifest that may be needed.
        """
        order: dict[Digest, None] = {}
        # An explicit stack, since a subject may have a subject, and so on, at any length.
        stack: list[tuple[Digest, bool]] = [(root, False)]
        while stack:
            digest, needs_done = stack.pop()
            if digest in order:
                continue
            if needs_done:
                order[digest] = None
                continue
            stack.append((digest, True))
            stack.extend((need, False) for need in reversed(self.needs_of(known[digest])))
        return tuple(order)


@dataclass(slots=True)
class Plan:
    """The graph per repository."""

    repositories: dict[Repository, RepositoryPlan] = field(default_factory=dict)
    unchanged: list[PlannedImage] = field(default_factory=list)
    """Images that their repositories have already, all of their tags included; of these nothing was
    read but the digest."""

    def images(self) -> Iterator[PlannedImage]:
        """All images of all repositories."""
        for repository in self.repositories.values():
            yield from repository.images
