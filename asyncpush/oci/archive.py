"""Images in tar files, read in place: OCI archives, and both forms of what docker save writes."""

from __future__ import annotations

import json
import os
import posixpath
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncpush.errors import (
    AsyncpushError,
    BlobMissingError,
    DigestMismatchError,
    LayoutError,
    LimitError,
    ManifestError,
    UnsupportedDigestError,
)
from asyncpush.oci import digest as digests
from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import Descriptor, parse_descriptor
from asyncpush.oci.digest import Digest, parse_digest
from asyncpush.oci.layout import BlobData, BlobRange, BlobSource, check_layout_version
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES, load_json, load_json_list

_MOST_MEMBERS = 500_000
_MOST_INDEX_BYTES = 64 * 1024 * 1024
_REF_NAME = "org.opencontainers.image.ref.name"
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZ": ("bzip2", "bunzip2"),
    b"\xfd7": ("xz", "unxz"),
    b"\x28\xb5": ("zstd", "unzstd"),
}


@dataclass(frozen=True, slots=True)
class _Member:
    offset: int
    size: int
    link: str | None = None


class Archive:
    """A tar file's regular files by name, with where their content begins.

    Only headers are read; nothing is unpacked. Names are compared as they stand there, so none can
    lead anywhere.

    :raises LayoutError: it is no plain tar file, is cut off, or holds too much.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.root = Path(path)
        self._members: dict[str, _Member] = {}
        try:
            self._size = self.root.stat().st_size
            self._read_headers()
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            raise LayoutError(f"the archive cannot be read: {reason}", file=str(path)) from exc
        except tarfile.TarError as exc:
            raise self._no_tar(exc) from exc

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def source(self, name: str) -> BlobRange | None:
        """Where a member's content is; links inside of the archive are followed."""
        for _ in range(8):
            member = self._members.get(posixpath.normpath(name))
            if member is None:
                return None
            if member.link is None:
                return BlobRange(str(self.root), member.offset, member.size)
            name = member.link
        return None

    def read(self, name: str, most: int = MAX_MANIFEST_BYTES) -> bytes:
        """A small member's content.

        :raises LayoutError: it is not there.
        :raises LimitError: it is larger than ``most`` bytes.
        """
        source = self.source(name)
        if source is None:
            raise LayoutError(f"the archive has no {name}", file=str(self.root))
        if source.size > most:
            raise LimitError(
                f"{name} has {source.size} bytes, at most {most} are read", file=str(self.root)
            )
        with self.root.open("rb") as file:
            data = os.pread(file.fileno(), source.size, source.offset)
        if len(data) != source.size:
            raise LayoutError("the archive became shorter while it was read", file=str(self.root))
        return data

    def _read_headers(self) -> None:
        with tarfile.open(self.root, "r:") as tar:
            for member in tar:
                # tarfile keeps all it has seen; an archive may have half a million.
                tar.members = []  # type: ignore[attr-defined]
                name = posixpath.normpath(member.name)
                if member.issym() or member.islnk():
                    base = posixpath.dirname(name) if member.issym() else ""
                    link = posixpath.normpath(posixpath.join(base, member.linkname))
                    self._members[name] = _Member(0, 0, link)
                elif member.isreg() and not member.issparse():
                    if member.offset_data + member.size > self._size:
                        raise tarfile.ReadError(f"{name} ends behind the end of the file")
                    self._members[name] = _Member(member.offset_data, member.size)
                if len(self._members) > _MOST_MEMBERS:
                    raise tarfile.ReadError(f"it has more than {_MOST_MEMBERS:,} members")

    def _no_tar(self, exc: Exception) -> LayoutError:
        with self.root.open("rb") as file:
            start = file.read(2)
        if start in _COMPRESSED:
            kind, program = _COMPRESSED[start]
            return LayoutError(
                f"the archive is compressed with {kind}, and is read in place",
                advice=f"decompress it first, with {program}",
                file=str(self.root),
            )
        return LayoutError(f"this is no whole tar file: {exc}", file=str(self.root))


class OciArchive:
    """An OCI layout in a tar file (``oci-archive:``); the same interface as ``Layout``."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._archive = archive = Archive(path)
        self.root = archive.root
        if "oci-layout" not in archive:
            raise LayoutError(
                "this archive holds no OCI layout: it has no oci-layout",
                advice="read what docker save wrote with docker-archive:FILE",
                file=str(path),
            )
        check_layout_version(archive.read("oci-layout", 65536), str(path))
        self.entries = _entries(archive)

    def find(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find`."""
        if descriptor.data is not None:
            return BlobData(descriptor.data)
        source = self._archive.source(_blob_name(descriptor.digest))
        return _checked(source, descriptor, self.root)

    def find_manifest(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find_manifest`."""
        _check_manifest_size(descriptor, self.root)
        return self.find(descriptor)

    def holds(self, digest: Digest) -> bool:
        """See :meth:`asyncpush.oci.layout.Layout.holds`."""
        return self._archive.source(_blob_name(digest)) is not None


class DockerArchive:
    """What ``docker save`` wrote before Docker 25, and what skopeo writes as ``docker-archive:``.

    Images get the Docker schema 2 manifest that skopeo gives them when it copies such an archive
    with ``--preserve-digests``: the layers as they are, uncompressed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._archive = archive = Archive(path)
        self.root = archive.root
        self._blobs: dict[Digest, BlobSource] = {}
        self.entries: tuple[Descriptor, ...] = ()
        try:
            images = load_json_list(archive.read("manifest.json", _MOST_INDEX_BYTES))
            self.entries = tuple(
                entry for i, image in enumerate(images) for entry in self._image(image, i)
            )
        except ManifestError as exc:
            raise LayoutError(f"manifest.json: {exc.message}", file=str(path)) from exc
        except AsyncpushError as exc:
            raise exc.at(file=str(path)) from exc.__cause__

    def find(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find`."""
        return _checked(self._blobs.get(descriptor.digest), descriptor, self.root)

    def find_manifest(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find_manifest`."""
        return self.find(descriptor)

    def holds(self, digest: Digest) -> bool:
        """See :meth:`asyncpush.oci.layout.Layout.holds`."""
        return digest in self._blobs

    def _image(self, image: Any, number: int) -> list[Descriptor]:
        if not isinstance(image, dict):
            raise ManifestError(f"image {number} is no object")
        name, layers = image.get("Config"), image.get("Layers")
        if not isinstance(name, str) or not isinstance(layers, list):
            raise ManifestError(f"image {number} lacks Config or Layers")
        raw = self._archive.read(name)
        config = digests.compute(raw)
        self._blobs[config] = BlobData(raw)
        diff_ids = _diff_ids(load_json(raw))
        if len(diff_ids) != len(layers):
            raise ManifestError(
                f"image {number} has {len(layers)} layers, its config tells of {len(diff_ids)}"
            )
        manifest = {
            "schemaVersion": 2,
            "mediaType": mediatypes.DOCKER_MANIFEST,
            "config": _described(mediatypes.DOCKER_CONFIG, len(raw), config),
            "layers": [
                # skopeo, too, calls them gzip: registries and runtimes look at the bytes.
                _described(mediatypes.DOCKER_LAYER_GZIP, self._layer(layer, digest), digest)
                for layer, digest in zip(layers, diff_ids, strict=True)
            ],
        }
        written = json.dumps(manifest, separators=(",", ":")).encode()
        digest = digests.compute(written)
        self._blobs[digest] = BlobData(written)
        tags = image.get("RepoTags")
        names = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
        described = _described(mediatypes.DOCKER_MANIFEST, len(written), digest)
        annotated = [{**described, "annotations": {_REF_NAME: tag}} for tag in names]
        return [
            parse_descriptor(entry, f"manifest.json[{number}]")
            for entry in annotated or [described]
        ]

    def _layer(self, name: Any, digest: Digest) -> int:
        """Note where a layer is; its size."""
        source = self._archive.source(name) if isinstance(name, str) else None
        if source is None:
            raise BlobMissingError(f"the archive lacks the layer {name}", digest=digest)
        with self.root.open("rb") as file:
            start = os.pread(file.fileno(), 2, source.offset)
        if start in _COMPRESSED:
            raise ManifestError(
                f"the layer {name} is compressed, and its config names the digest of what is in it"
            )
        self._blobs[digest] = source
        return source.size


def open_archive(kind: str, path: str) -> OciArchive | DockerArchive:
    """Open an archive.

    :param kind: ``oci-archive`` or ``docker-archive``; Docker 25 and newer save an OCI layout,
        which is read as one.
    """
    if kind == "oci-archive":
        return OciArchive(path)
    if "oci-layout" in Archive(path):
        return OciArchive(path)
    return DockerArchive(path)


def _entries(archive: Archive) -> tuple[Descriptor, ...]:
    try:
        document = load_json(archive.read("index.json", _MOST_INDEX_BYTES))
        manifests = document.get("manifests")
        if not isinstance(manifests, list):
            raise ManifestError("manifests is missing or no list")
        return tuple(parse_descriptor(m, f"manifests[{i}]") for i, m in enumerate(manifests))
    except ManifestError as exc:
        raise LayoutError(f"index.json: {exc.message}", file=str(archive.root)) from exc
    except AsyncpushError as exc:
        raise exc.at(file=str(archive.root)) from exc.__cause__


def _checked(source: BlobSource | None, descriptor: Descriptor, root: Path) -> BlobSource:
    if source is None:
        raise BlobMissingError(
            "the archive does not hold this blob",
            advice="save the image again",
            digest=descriptor.digest,
            file=str(root),
        )
    if source.size != descriptor.size:
        raise DigestMismatchError(
            f"the archive has {source.size} bytes of it, its descriptor says {descriptor.size}",
            advice="the archive is damaged; save the image again",
            digest=descriptor.digest,
            file=str(root),
        )
    return source


def _check_manifest_size(descriptor: Descriptor, root: Path) -> None:
    if descriptor.size > MAX_MANIFEST_BYTES:
        raise LimitError(
            f"the manifest has {descriptor.size} bytes,"
            f" registries take at most {MAX_MANIFEST_BYTES}",
            digest=descriptor.digest,
            file=str(root),
        )


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digests.algorithm(digest)}/{digests.encoded(digest)}"


def _diff_ids(config: Mapping[str, Any]) -> list[Digest]:
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    try:
        return [parse_digest(text) for text in found or ()]
    except (UnsupportedDigestError, TypeError) as exc:
        raise ManifestError("the config's rootfs.diff_ids are no digests") from exc


def _described(media_type: str, size: int, digest: Digest) -> dict[str, Any]:
    return {"mediaType": media_type, "size": size, "digest": digest}
