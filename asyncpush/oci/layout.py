"""OCI image layouts on disk: checked at the door, read by digest, never left by a path."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from asyncpush.errors import (
    AsyncpushError,
    BlobMissingError,
    DigestMismatchError,
    LayoutError,
    LimitError,
    ManifestError,
    UnsafePathError,
)
from asyncpush.oci import digest as digests
from asyncpush.oci.descriptor import Descriptor, parse_descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES, load_json
from asyncpush.oci.remote import RemoteBlob

MAX_INDEX_BYTES = 256 * 1024 * 1024
"""The largest ``index.json`` that is read. It is no registry's business, so it may be larger than a
manifest: a layout of 100,000 entries of 250 bytes each has 25 MB."""


@dataclass(frozen=True, slots=True)
class BlobFile:
    """Content in a file of its own."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class BlobData:
    """Content embedded in its descriptor (``data``), proven when it was parsed."""

    data: bytes

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class BlobRange:
    """Content in the middle of a file: ``size`` bytes from ``offset`` on.

    :param file: the open file that holds it, where that is a temporary one without a name; ``path``
        is then what it was made from.
    """

    path: str
    offset: int
    size: int
    file: io.FileIO | None = None


LocalBlob = BlobFile | BlobData | BlobRange
BlobSource = LocalBlob | RemoteBlob


class Content(Protocol):
    """What is planned from: a layout, or an archive that holds images."""

    entries: tuple[Descriptor, ...]

    @property
    def root(self) -> Path | str:
        """Where it is, for errors."""
        ...

    @property
    def registry(self) -> str | None:
        """The host of the registry that it is in, with its port; None if it is in none."""
        ...

    @property
    def repository(self) -> str | None:
        """The repository's name in that registry; None if it is in none."""
        ...

    @property
    def numbered(self) -> Sequence[Descriptor]:
        """What ``@0``, ``@1`` and so on name."""
        ...

    def find(self, descriptor: Descriptor) -> BlobSource:
        """Where a descriptor's content is."""
        ...

    def find_manifest(self, descriptor: Descriptor) -> BlobSource:
        """As :meth:`find`, for content that is read whole."""
        ...

    def holds(self, digest: Digest) -> bool:
        """Whether it holds a blob of this digest."""
        ...


class Layout:
    """One OCI image layout (image-spec, image-layout.md).

    :param root: the directory that holds ``oci-layout``, ``index.json`` and ``blobs``.
    :raises LayoutError: it is no layout of version 1, or its ``index.json`` cannot be read.
    :raises UnsafePathError: one of its files lies outside of it.
    """

    registry: str | None = None
    repository: str | None = None

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        if problem := _directory_problem(self.root):
            raise LayoutError(
                f"the source {problem}", advice="give an OCI layout directory", file=str(root)
            )
        # Every file is opened below the real root, so a layout may itself be reached by a link.
        self._real_root = os.path.realpath(self.root)
        self._check_version()
        self.entries = self._read_index()

    @property
    def numbered(self) -> Sequence[Descriptor]:
        """Its entries, in the order of ``index.json``."""
        return self.entries

    def __repr__(self) -> str:
        return f"Layout({str(self.root)!r})"

    def find(self, descriptor: Descriptor) -> BlobSource:
        """Where a descriptor's content is, with its size checked and its digest not yet proven.

        :raises BlobMissingError: the layout does not hold it.
        :raises DigestMismatchError: its size is not the descriptor's.
        :raises UnsafePathError: it lies outside of the layout.
        """
        if descriptor.data is not None:
            return BlobData(descriptor.data)
        path = self._blob_path(descriptor.digest)
        size = self._size_inside(path, descriptor.digest)
        if size is None:
            raise BlobMissingError(
                "the layout does not hold this blob",
                advice="copy the image into the layout again",
                digest=descriptor.digest,
                file=path,
            )
        if size != descriptor.size:
            raise DigestMismatchError(
                f"the file has {size} bytes, its descriptor says {descriptor.size}",
                advice="file or descriptor is damaged; copy the image into the layout again",
                digest=descriptor.digest,
                file=path,
            )
        return BlobFile(path, size)

    def holds(self, digest: Digest) -> bool:
        """Whether the layout holds a blob of this digest, whatever its content."""
        return self._size_inside(self._blob_path(digest), digest) is not None

    def find_manifest(self, descriptor: Descriptor) -> BlobSource:
        """As :meth:`find`, for content that is read whole.

        :raises LimitError: it is larger than any registry takes.
        """
        if descriptor.size > MAX_MANIFEST_BYTES:
            raise LimitError(
                f"the manifest has {descriptor.size} bytes,"
                f" registries take at most {MAX_MANIFEST_BYTES}",
                digest=descriptor.digest,
                file=self._blob_path(descriptor.digest),
            )
        return self.find(descriptor)

    def _check_version(self) -> None:
        path = str(self.root / "oci-layout")
        if self._size_inside(path) is None:
            raise LayoutError(
                "this directory is no OCI layout: it has no file oci-layout",
                advice="make one with: skopeo copy docker://IMAGE oci:DIRECTORY:TAG",
                file=path,
            )
        check_layout_version(_read(path, 65536), path)

    def _read_index(self) -> tuple[Descriptor, ...]:
        path = str(self.root / "index.json")
        if self._size_inside(path) is None:
            raise LayoutError("the layout has no index.json", file=path)
        return parse_entries(_read(path, MAX_INDEX_BYTES), path)

    def _blob_path(self, digest: Digest) -> str:
        # A parsed digest has no separator and no dot in it, so this never climbs.
        return os.path.join(  # noqa: PTH118 - a job has a million of these; Path costs 1 KB each
            self.root, "blobs", digests.algorithm(digest), digests.encoded(digest)
        )

    def _size_inside(self, path: str, digest: Digest | None = None) -> int | None:
        """Size of a regular file inside the layout, or None if there is nothing at all."""
        try:
            status = os.lstat(path)
            real = os.path.realpath(path)
            if os.path.commonpath((real, self._real_root)) != self._real_root:
                raise UnsafePathError(
                    f"the file leads out of the layout, to {real}",
                    advice="copy the content into the layout",
                    digest=digest,
                    file=path,
                )
            if stat.S_ISLNK(status.st_mode):
                status = os.stat(path)  # noqa: PTH116 - as above
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise LayoutError(f"cannot be read: {exc.strerror}", digest=digest, file=path) from exc
        if not stat.S_ISREG(status.st_mode):
            raise LayoutError("this is no regular file", digest=digest, file=path)
        return status.st_size


@contextlib.contextmanager
def opened(source: BlobRange) -> Iterator[int]:
    """A descriptor of the file that holds a range."""
    if source.file is not None:
        yield source.file.fileno()
        return
    with open(source.path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
        yield file.fileno()


def read_manifest(source: BlobSource) -> bytes:
    """The bytes of a manifest, as they are. Their digest is for the caller to prove."""
    if isinstance(source, BlobData):
        return source.data
    if isinstance(source, BlobRange):
        with opened(source) as fd:
            return os.pread(fd, source.size, source.offset)
    return _read(source.path, MAX_MANIFEST_BYTES)


def parse_entries(raw: bytes, file: str) -> tuple[Descriptor, ...]:
    """Read a layout's ``index.json``.

    :raises LayoutError: it is damaged.
    """
    try:
        manifests = load_json(raw).get("manifests")
        if not isinstance(manifests, list):
            raise ManifestError("manifests is missing or no list")
        return tuple(parse_descriptor(m, f"manifests[{i}]") for i, m in enumerate(manifests))
    except AsyncpushError as exc:
        raise LayoutError(f"index.json: {exc.message}", **{**exc.where, "file": file}) from exc


def check_layout_version(raw: bytes, file: str) -> None:
    """Read the file ``oci-layout``.

    :raises LayoutError: it is damaged, or tells of a version that cannot be read.
    """
    try:
        version = load_json(raw).get("imageLayoutVersion")
    except ManifestError as exc:
        raise LayoutError(f"oci-layout: {exc.message}", file=file) from exc
    if not isinstance(version, str) or version.split(".")[0] != "1":
        raise LayoutError(
            f"imageLayoutVersion is {version!r}; version 1.0.0 can be read", file=file
        )


def _directory_problem(path: Path) -> str | None:
    try:
        return None if stat.S_ISDIR(path.stat().st_mode) else "is no directory"
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: NUL in the path
        return "does not exist"
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"


def _read(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            data = file.read(limit + 1)
    except OSError as exc:
        raise LayoutError(f"cannot be read: {exc.strerror}", file=path) from exc
    if len(data) > limit:
        raise LimitError(f"the file has more than {limit} bytes", file=path)
    return data
