"""Images in tar files, read in place: OCI archives, and both forms of what docker save writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from asyncpush.errors import (
    AsyncpushError,
    LayoutError,
    LimitError,
    ManifestError,
)
from asyncpush.oci import digest as digests
from asyncpush.oci.descriptor import REF_NAME, Descriptor, parse_descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.dockerarchive import DockerArchive
from asyncpush.oci.layout import BlobData, BlobRange, BlobSource, check_layout_version
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES, load_json
from asyncpush.oci.scratch import Scratch
from asyncpush.oci.tar import Tar, checked

_MOST_INDEX_BYTES = 64 * 1024 * 1024
# containerd, and docker save since Docker 25, put the whole reference there and the tag into the
# name (image-spec, annotations.md, leaves that open).
_IMAGE_NAME = "io.containerd.image.name"


class OciArchive:
    """An OCI layout in a tar file (``oci-archive:``); the same interface as ``Layout``."""

    registry: str | None = None
    repository: str | None = None

    def __init__(self, tar: Tar) -> None:
        self._tar = tar
        self.root = tar.path
        if "oci-layout" not in tar:
            raise LayoutError(
                "this archive holds no OCI layout: it has no oci-layout",
                advice="read what docker save wrote with docker-archive:FILE",
                file=str(self.root),
            )
        check_layout_version(tar.read("oci-layout", 65536), str(self.root))
        self.entries = _entries(tar)

    @property
    def numbered(self) -> Sequence[Descriptor]:
        """See :meth:`asyncpush.oci.layout.Layout.numbered`."""
        return self.entries

    def find(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find`."""
        if descriptor.data is not None:
            return BlobData(descriptor.data)
        source = self.range_of(descriptor.digest)
        return checked(source, descriptor, self.root)

    def find_manifest(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find_manifest`."""
        if descriptor.size > MAX_MANIFEST_BYTES:
            raise LimitError(
                f"the manifest has {descriptor.size} bytes,"
                f" registries take at most {MAX_MANIFEST_BYTES}",
                digest=descriptor.digest,
                file=str(self.root),
            )
        return self.find(descriptor)

    def holds(self, digest: Digest) -> bool:
        """See :meth:`asyncpush.oci.layout.Layout.holds`."""
        return self.range_of(digest) is not None

    def range_of(self, digest: Digest) -> BlobRange | None:
        """Where in the archive a blob is; None if it is not there."""
        return self._tar.source(_blob_name(digest))


class DockerLayout(OciArchive):
    """What ``docker save`` writes since Docker 25: an OCI layout.

    Its entries go by their whole references, as those of the older form do; their names in the
    layout are tags alone, which images of several repositories may have in common.
    """

    def __init__(self, tar: Tar) -> None:
        super().__init__(tar)
        self.entries = tuple(map(_by_reference, self.entries))

    @property
    def numbered(self) -> Sequence[Descriptor]:
        """Its images: each once, however many names it has."""
        images: dict[Digest, Descriptor] = {}
        for entry in self.entries:
            images.setdefault(entry.digest, entry)
        return list(images.values())


def open_archive(
    kind: str,
    path: str | os.PathLike[str],
    scratch: Scratch | None = None,
    *,
    compress_layers: bool = False,
) -> OciArchive | DockerArchive:
    """Open an archive.

    :param kind: ``oci-archive`` or ``docker-archive``; what Docker 25 and newer save is an OCI
        layout, and is read as one.
    :param scratch: takes what cannot be read in place.
    :param compress_layers: compress the layers of images that ``docker save`` wrote before that.
    :raises ContentError: it cannot be read, or holds no such images.
    """
    scratch = scratch or Scratch()
    tar = Tar(scratch.tar_of(path), scratch.check)
    return archive_in(tar, kind, scratch, compress_layers=compress_layers)


def archive_in(
    tar: Tar, kind: str, scratch: Scratch, *, compress_layers: bool = False
) -> OciArchive | DockerArchive:
    """As :func:`open_archive`, for a tar file that is open."""
    if kind == "oci-archive":
        return OciArchive(tar)
    if "oci-layout" in tar:
        return DockerLayout(tar)
    return DockerArchive(tar, scratch, compress=compress_layers)


def _entries(tar: Tar) -> tuple[Descriptor, ...]:
    try:
        document = load_json(tar.read("index.json", _MOST_INDEX_BYTES))
        manifests = document.get("manifests")
        if not isinstance(manifests, list):
            raise ManifestError("manifests is missing or no list")
        return tuple(parse_descriptor(m, f"manifests[{i}]") for i, m in enumerate(manifests))
    except ManifestError as exc:
        raise LayoutError(f"index.json: {exc.message}", file=str(tar.path)) from exc
    except AsyncpushError as exc:
        raise exc.at(file=str(tar.path)) from exc.__cause__


def _by_reference(entry: Descriptor) -> Descriptor:
    annotations = entry.annotations or {}
    reference = annotations.get(_IMAGE_NAME)
    if not reference:
        return entry
    return replace(entry, annotations={**annotations, REF_NAME: reference})


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digests.algorithm(digest)}/{digests.encoded(digest)}"
