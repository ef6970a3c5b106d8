"""Where the files in a tar file are: headers are read, content is left where it is."""

from __future__ import annotations

import contextlib
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from asyncpush.errors import BlobMissingError, DigestMismatchError, LayoutError, LimitError
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.layout import BlobRange, BlobSource, opened
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES

_MOST_MEMBERS = 500_000
# The names of an image's files are short; what is longer is an attack on memory, or on tarfile's
# regular expressions.
_MOST_HEADER_BYTES = 16 * 1024
# Headers before one file, such as the map of a sparse one, which tarfile reads to its end.
_MOST_BYTES_A_MEMBER = 1024 * 1024
_MOST_LINKS = 8


@dataclass(frozen=True, slots=True)
class _Member:
    """A regular file, or a link to another; of a ``sparse`` one the holes are not there."""

    offset: int = 0
    size: int = 0
    link: str | None = None
    sparse: bool = False


class RandomAccess(Protocol):
    """Bytes that are not in a file of this machine, and can be read from anywhere."""

    def read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from an offset on, and fewer only at the end."""
        ...


class Tar:
    """A tar file's regular files by name.

    Nothing is unpacked, and names are compared as they stand there, so none can lead anywhere.
    Where a name stands twice, the last one counts, as for ``tar``; a document that is there twice
    cannot be read, since other programs take the first one.

    :param whole: where it is.
    :param check: called for each file; may raise to end the work.
    :param content: gives its bytes where it is in no file; ``whole`` then has the offsets alone.
    :raises LayoutError: it is no tar file, is cut off, or holds too much.
    """

    def __init__(
        self,
        whole: BlobRange,
        check: Callable[[], None] = lambda: None,
        content: RandomAccess | None = None,
    ) -> None:
        self.path: Path | str = Path(whole.path) if content is None else whole.path
        self._whole = whole
        self._content = content
        self._members: dict[str, _Member] = {}
        self._twice: set[str] = set()
        try:
            with self._reading() as read:
                self._read_headers(_Headers(read, whole), check)
        except OSError as exc:
            raise LayoutError(
                f"the archive cannot be read: {exc.strerror}", file=whole.path
            ) from exc
        except (tarfile.TarError, ValueError, ArithmeticError, RecursionError) as exc:
            # A header's fields may hold anything, and tarfile stumbles over some of it.
            reason = "its headers nest" if isinstance(exc, RecursionError) else exc
            raise LayoutError(f"this is no whole tar file: {reason}", file=whole.path) from exc

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def source(self, name: str) -> BlobRange | None:
        """Where a file's content is; links inside of the archive are followed.

        :return: None if there is no such file.
        :raises LayoutError: it is a sparse file.
        """
        for _ in range(_MOST_LINKS):
            member = self._members.get(posixpath.normpath(name))
            if member is None:
                return None
            if member.sparse:
                raise LayoutError(
                    f"{name} is stored as a sparse file, and cannot be read in place",
                    advice="write the archive without --sparse",
                    file=self._whole.path,
                )
            if member.link is None:
                return replace(self._whole, offset=member.offset, size=member.size)
            name = member.link
        return None

    def read(self, name: str, most: int = MAX_MANIFEST_BYTES) -> bytes:
        """A small file's content.

        :raises LayoutError: it is not there, or there twice.
        :raises LimitError: it is larger than ``most`` bytes.
        """
        source = self.source(name)
        if source is None:
            raise LayoutError(f"the archive has no {name}", file=self._whole.path)
        if posixpath.normpath(name) in self._twice:
            raise LayoutError(
                f"the archive has {name} twice, so that programs differ about what it says",
                advice="save the images again",
                file=self._whole.path,
            )
        if source.size > most:
            raise LimitError(
                f"{name} has {source.size} bytes, at most {most} are read", file=self._whole.path
            )
        with self._reading() as read_at:
            data = read_at(source.offset, source.size)
        if len(data) != source.size:
            raise LayoutError("the archive became shorter while it was read", file=self._whole.path)
        return data

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Callable[[int, int], bytes]]:
        if self._content is not None:
            yield self._content.read
            return
        with opened(self._whole) as fd:
            yield lambda offset, size: os.pread(fd, size, offset)

    def _read_headers(self, headers: Any, check: Callable[[], None]) -> None:
        with tarfile.open(fileobj=headers, mode="r:") as tar:
            last = -1
            while (member := tar.next()) is not None:
                # tarfile keeps all that it has seen; an archive may have half a million.
                tar.members.clear()  # type: ignore[attr-defined]
                # The size in a header leads to the next one, and a negative one leads back.
                if member.offset <= last or member.size < 0:
                    raise tarfile.ReadError("its headers lead back")
                last = member.offset
                self._note(member)
                headers.begin()
                check()
                if len(self._members) > _MOST_MEMBERS:
                    raise tarfile.ReadError(f"it has more than {_MOST_MEMBERS:,} members")
            headers.check_end(tar.offset)

    def _note(self, member: tarfile.TarInfo) -> None:
        name = posixpath.normpath(member.name)
        if ".." in name.split("/"):
            return
        if member.issym() or member.islnk():
            base = posixpath.dirname(name) if member.issym() else ""
            noted = _Member(link=posixpath.normpath(posixpath.join(base, member.linkname)))
        elif member.issparse():
            noted = _Member(sparse=True)
        elif member.isreg():
            if member.offset_data + member.size > self._whole.size:
                raise tarfile.ReadError(f"{name} ends behind the end of the file")
            noted = _Member(self._whole.offset + member.offset_data, member.size)
        else:
            return
        if name in self._members:
            self._twice.add(name)
        self._members[name] = noted


class _Headers:
    """What tarfile reads a tar's headers from; the size that a header claims is not believed."""

    def __init__(self, read_at: Callable[[int, int], bytes], whole: BlobRange) -> None:
        self._read_at = read_at
        self._whole = whole
        self._at = 0
        self.begin()

    def begin(self) -> None:
        """Begin the headers of the next file."""
        self._left = _MOST_BYTES_A_MEMBER

    def tell(self) -> int:
        return self._at

    def seek(self, at: int) -> None:
        if at < 0:
            raise tarfile.ReadError("its headers lead back")
        self._at = at

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims to have {size} bytes")
        self._left -= size
        if self._left < 0:
            raise tarfile.ReadError("its headers have no end")
        size = max(0, min(size, self._whole.size - self._at))
        data = self._read_at(self._whole.offset + self._at, size)
        self._at += len(data)
        return data

    def check_end(self, at: int) -> None:
        """Whether the tar ends where no more headers are found, and is not just unreadable there.

        :raises tarfile.ReadError: something else is there.
        """
        self.seek(at)
        if self.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"what stands at byte {at} is no header")


def checked(source: BlobSource | None, descriptor: Descriptor, archive: Path | str) -> BlobSource:
    """What an archive has for a descriptor.

    :raises BlobMissingError: nothing.
    :raises DigestMismatchError: something of another size.
    """
    if source is None:
        raise BlobMissingError(
            "the archive does not hold this blob",
            advice="save the image again",
            digest=descriptor.digest,
            file=str(archive),
        )
    if source.size != descriptor.size:
        raise DigestMismatchError(
            f"the archive has {source.size} bytes of it, its descriptor says {descriptor.size}",
            advice="the archive is damaged; save the image again",
            digest=descriptor.digest,
            file=str(archive),
        )
    return source
