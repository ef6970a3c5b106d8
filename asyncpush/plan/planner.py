"""From content to the graph: each manifest is read once; an image that fails leaves no trace."""

from __future__ import annotations

import contextlib
from collections import ChainMap

from asyncpush.errors import (
    AsyncpushError,
    BlobMissingError,
    DigestMismatchError,
    IndexCycleError,
    LimitError,
    UnsupportedDigestError,
    UsageError,
    printable,
)
from asyncpush.oci import digest as digests
from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import Content, read_manifest
from asyncpush.oci.manifest import ImageIndex, Manifest, parse_manifest
from asyncpush.oci.remote import RemoteBlob, RemoteContent
from asyncpush.oci.select import check_nesting
from asyncpush.plan.graph import (
    Origin,
    Plan,
    PlannedBlob,
    PlannedImage,
    PlannedManifest,
    RepositoryPlan,
)
from asyncpush.plan.limits import ECR, MIB, RegistryLimits
from asyncpush.plan.reference import Repository

# Further sources of a blob that are noted, for when the first one does not give it.
_MOST_OTHERS = 2


class Planner:
    """Builds a :class:`Plan`, image by image; an image that fails leaves no trace in it.

    What a layout holds is read once, however many repositories it goes to, and noted once.

    :param include_foreign: plan foreign and non-distributable layers too, which are otherwise left
        to the hosts that their ``urls`` name, as docker and skopeo do.
    :param part_size: bytes of a part where the user has chosen one.
    :param limits: what the registries take.
    """

    def __init__(
        self,
        *,
        include_foreign: bool = False,
        part_size: int | None = None,
        limits: RegistryLimits = ECR,
    ) -> None:
        self.plan = Plan()
        self._include_foreign = include_foreign
        self._part_size = part_size or limits.part_bytes
        self._limits = limits
        self._blobs: dict[Digest, PlannedBlob] = {}
        self._manifests: dict[Digest, PlannedManifest] = {}
        self._others: dict[Digest, list[RemoteBlob]] = {}
        self._left: dict[Repository, dict[str, Digest]] = {}
        self._left_digests: dict[Repository, set[Digest]] = {}

    def add(
        self,
        layout: Content,
        entry: Descriptor,
        repository: Repository,
        tags: tuple[str, ...],
        origin: Origin | None = None,
        *,
        follow_subject: bool = True,
    ) -> PlannedImage:
        """Plan one entry of a layout for one repository.

        :param follow_subject: False for an entry whose subject has been planned, or is there; it
            is not read again.
        :raises ContentError: what the layout holds cannot be pushed.
        :raises UsageError: another image of the plan gets one of the tags.
        """
        graph = self.plan.repositories.get(repository)
        if graph is None:
            graph = RepositoryPlan(repository, others=self._others)
        self._check_tags(repository, tags, entry.digest)
        walk = _Walk(layout, self, self._limits, self._part_size, self._include_foreign)
        if not follow_subject:
            walk.without_subject = entry.digest
        walk.visit(entry, ())
        self._blobs.update(walk.blobs)
        known = ChainMap(self._manifests, graph.manifests)
        if not follow_subject and entry.digest in walk.manifests:
            # What it needs is known for this repository alone.
            known = known.new_child({entry.digest: walk.manifests.pop(entry.digest)})
        self._manifests.update(walk.manifests)
        for other in walk.others:
            self._note_other(other)
        order = graph.order_of_commit(entry.digest, known)
        for digest in order:
            manifest = graph.manifests[digest] = known[digest]
            graph.blobs.update((blob, self._blobs[blob]) for blob in manifest.blobs)
        image = PlannedImage(
            name=printable(entry.ref_name or ", ".join(tags) or entry.digest),
            repository=repository,
            root=entry.digest,
            tags=tags,
            manifests=order,
            origin=origin,
        )
        graph.tags.update(dict.fromkeys(tags, entry.digest))
        graph.images.append(image)
        self.plan.repositories[repository] = graph
        return image

    def _note_other(self, blob: RemoteBlob) -> None:
        """Note a further source of a blob, unless there are enough."""
        known = self._others.setdefault(blob.digest, [])
        if len(known) < _MOST_OTHERS and blob.origin not in [other.origin for other in known]:
            known.append(blob)

    def leave(self, image: PlannedImage) -> None:
        """Note an image that its repository has already, so that nothing of it need be read.

        :raises UsageError: another image of the plan gets one of the tags.
        """
        self._check_tags(image.repository, image.tags, image.root)
        tags = self._left.setdefault(image.repository, {})
        tags.update(dict.fromkeys(image.tags, image.root))
        self._left_digests.setdefault(image.repository, set()).add(image.root)
        self.plan.unchanged.append(image)

    def has(self, repository: Repository, digest: Digest, tags: tuple[str, ...]) -> bool:
        """Whether a manifest with these tags, or none, is planned or there already."""
        graph = self.plan.repositories.get(repository)
        if tags:
            planned = graph.tags if graph else {}
            left = self._left.get(repository, {})
            return all(digest in (planned.get(tag), left.get(tag)) for tag in tags)
        if graph is not None and digest in graph.manifests:
            return True
        return digest in self._left_digests.get(repository, ())

    def _check_tags(self, repository: Repository, tags: tuple[str, ...], digest: Digest) -> None:
        graph = self.plan.repositories.get(repository)
        for known in (graph.tags if graph else {}, self._left.get(repository, {})):
            for tag in tags:
                other = known.get(tag)
                if other is not None and other != digest:
                    raise UsageError(
                        f"two images want the tag {tag}: {other} and {digest}",
                        advice="push one of them, or give them different tags",
                        repository=str(repository),
                    )

    def blob(self, digest: Digest) -> PlannedBlob | None:
        """A blob that some image of the plan has."""
        return self._blobs.get(digest)

    def manifest(self, digest: Digest) -> PlannedManifest | None:
        """A manifest that some image of the plan has."""
        return self._manifests.get(digest)


class _Walk:
    """One image's way through its layout; results are kept apart until the whole of it is good."""

    def __init__(
        self,
        layout: Content,
        planner: Planner,
        limits: RegistryLimits,
        part_size: int,
        include_foreign: bool,  # noqa: FBT001 - private, and named at its only call
    ) -> None:
        self.blobs: dict[Digest, PlannedBlob] = {}
        self.manifests: dict[Digest, PlannedManifest] = {}
        self.others: list[RemoteBlob] = []
        self.without_subject: Digest | None = None
        self._layout = layout
        self._remote = isinstance(layout, RemoteContent)
        self._planner = planner
        self._limits = limits
        self._part_size = part_size
        self._include_foreign = include_foreign

    def visit(self, descriptor: Descriptor, above: tuple[Digest, ...]) -> None:
        """Plan a manifest and all that it needs."""
        check_nesting(descriptor.digest, above)
        known = self.manifests.get(descriptor.digest) or self._planner.manifest(descriptor.digest)
        if known is not None:
            if (known.size, known.media_type) != (descriptor.size, descriptor.media_type):
                raise DigestMismatchError(
                    f"one descriptor says {descriptor.media_type} of {descriptor.size} bytes,"
                    f" another {known.media_type} of {known.size}",
                    digest=descriptor.digest,
                )
            if self._remote:
                self._add_others(known)
            return
        self._check_algorithm(descriptor.digest)
        source = self._layout.find_manifest(descriptor)
        raw = read_manifest(source)
        try:
            manifest, blobs, needs = self._follow(raw, descriptor, above)
        except AsyncpushError as exc:
            path = getattr(source, "path", None)
            raise exc.at(digest=descriptor.digest, file=path) from exc.__cause__
        self.manifests[descriptor.digest] = PlannedManifest(
            digest=descriptor.digest,
            media_type=descriptor.media_type,
            size=descriptor.size,
            source=source,
            blobs=blobs,
            needs=needs,
            subject=manifest.subject.digest if manifest.subject is not None else None,
            is_artifact=manifest.is_artifact or manifest.subject is not None,
        )

    def _follow(
        self, raw: bytes, descriptor: Descriptor, above: tuple[Digest, ...]
    ) -> tuple[Manifest, tuple[Digest, ...], tuple[Digest, ...]]:
        """Parse a manifest, plan what it names, and prove its digest."""
        try:
            manifest = parse_manifest(raw, descriptor.media_type)
            blobs, needs = self._needs_of(manifest, (*above, descriptor.digest))
        except IndexCycleError:
            # Some digest must be false in a cycle, and the ring itself says more than that.
            raise
        except AsyncpushError:
            # Damage to this manifest is the likelier story, and its digest tells.
            digests.verify(raw, descriptor.digest, descriptor.size)
            raise
        digests.verify(raw, descriptor.digest, descriptor.size)
        return manifest, blobs, needs

    def _needs_of(
        self, manifest: Manifest, above: tuple[Digest, ...]
    ) -> tuple[tuple[Digest, ...], tuple[Digest, ...]]:
        """Plan what a manifest names; its blobs' digests and its manifests' digests, each once."""
        needs: dict[Digest, None] = {}
        blobs: dict[Digest, None] = {}
        subject = manifest.subject
        if subject is not None and above[-1] != self.without_subject and self._has(subject):
            self.visit(subject, above)
            needs[subject.digest] = None
        if isinstance(manifest, ImageIndex):
            self._check_children(manifest)
            for child in manifest.manifests:
                if _is_manifest(child):
                    self.visit(child, above)
                    needs[child.digest] = None
                else:
                    # An index may name content of any media type; such content is a blob.
                    self._add_blob(child)
                    blobs[child.digest] = None
        else:
            for blob in (manifest.config, *manifest.layers):
                if blob.is_foreign and not self._include_foreign:
                    continue
                self._add_blob(blob)
                blobs[blob.digest] = None
        return tuple(blobs), tuple(needs)

    def _has(self, subject: Descriptor) -> bool:
        """Whether this layout holds a subject."""
        return subject.data is not None or self._layout.holds(subject.digest)

    def _check_children(self, index: ImageIndex) -> None:
        missing = [
            f"{child.digest} ({child.platform})" if child.platform else child.digest
            for child in index.manifests
            if child.data is None and not self._layout.holds(child.digest)
        ]
        if missing:
            raise BlobMissingError(
                f"the source lacks {len(missing)} of the index's {len(index.manifests)} images:"
                f" {', '.join(missing)}",
                advice="copy all platforms there, or push one with --platform",
            )

    def _add_blob(self, descriptor: Descriptor) -> None:
        known = self.blobs.get(descriptor.digest) or self._planner.blob(descriptor.digest)
        if known is not None:
            if known.size != descriptor.size:
                raise DigestMismatchError(
                    f"one descriptor says {descriptor.size} bytes, another {known.size}",
                    digest=descriptor.digest,
                )
            if self._remote and isinstance(known.source, RemoteBlob):
                self._add_other(descriptor, known.source)
            return
        self._check_algorithm(descriptor.digest)
        parts = -(-descriptor.size // self._part_size)
        if parts > self._limits.layer_parts:
            raise LimitError(
                f"the layer has {descriptor.size} bytes, {parts:,} parts of"
                f" {self._part_size / MIB:g} MiB; the registry takes at most"
                f" {self._limits.layer_parts:,}",
                advice="choose larger parts with --part-size, or split the layer",
                digest=descriptor.digest,
            )
        source = self._layout.find(descriptor)
        self.blobs[descriptor.digest] = PlannedBlob(descriptor.digest, descriptor.size, source)

    def _add_others(self, manifest: PlannedManifest) -> None:
        """Note that this source has a planned manifest, too, with all that it needs."""
        for digest in manifest.blobs:
            blob = self.blobs.get(digest) or self._planner.blob(digest)
            if blob is not None and isinstance(blob.source, RemoteBlob):
                self._add_other(Descriptor("", digest, blob.size), blob.source)
        for need in manifest.needs:
            known = self.manifests.get(need) or self._planner.manifest(need)
            if known is not None:
                self._add_others(known)

    def _add_other(self, descriptor: Descriptor, known: RemoteBlob) -> None:
        """Note that this source has a blob, too, which another one is to give."""
        # What it lacks is none of its own fault as long as the other one gives it.
        with contextlib.suppress(AsyncpushError):
            source = self._layout.find(descriptor)
            if isinstance(source, RemoteBlob) and source.origin != known.origin:
                self.others.append(source)

    def _check_algorithm(self, digest: Digest) -> None:
        name = digests.algorithm(digest)
        if name not in self._limits.digest_algorithms:
            raise UnsupportedDigestError(
                f"the registry takes no {name} digests",
                advice="build the image with sha256 digests",
                digest=digest,
            )


def _is_manifest(descriptor: Descriptor) -> bool:
    kind = descriptor.media_type
    return mediatypes.is_manifest(kind) or mediatypes.is_index(kind) or kind in mediatypes.SCHEMA_1
