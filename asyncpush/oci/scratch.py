"""Room on disk for what cannot be read in place: archives decompressed, layers compressed."""

from __future__ import annotations

import hashlib
import io
import os
import select
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from asyncpush.errors import DigestMismatchError, LayoutError, TemporarySpaceError
from asyncpush.oci import digest as digests
from asyncpush.oci.compress import Ordered, compressed, in_turn
from asyncpush.oci.decompress import MAGIC_BYTES, compression_of, decompress
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import BlobRange, opened

MIB = 1024 * 1024
DEFAULT_LIMIT = 16 * 1024 * MIB
STANDARD_INPUT = "-"
"""The name of an archive that comes through a pipe."""
_POLL_MILLISECONDS = 200


class ScratchFile(io.FileIO):
    """A file without a name: the kernel frees it when the process ends, in whatever way.

    It lives as long as something refers to it: the blobs in it may be planned long before they are
    sent, and a plan needs no closing.
    """

    def __del__(self) -> None:
        self.close()


class Scratch:
    """One temporary file for all that a plan must unpack, with a bound.

    Nothing is done twice: an archive is decompressed once and a layer compressed once, however
    often they are asked for. One thread at a time may use it.

    :param limit: the most bytes that the file may have.
    :param check: called about once for each MiB and each header; may raise to end the work.
    :param ordered: compresses blocks of a layer.
    """

    def __init__(
        self,
        limit: int = DEFAULT_LIMIT,
        check: Callable[[], None] = lambda: None,
        ordered: Ordered = in_turn,
    ) -> None:
        self.check = check
        self._limit = limit
        self._ordered = ordered
        self._file: ScratchFile | None = None
        self._size = 0
        self._tars: dict[tuple[int, int, int, int], BlobRange] = {}
        self._layers: dict[Digest, tuple[Digest, BlobRange]] = {}

    def tar_of(self, path: str | os.PathLike[str]) -> BlobRange:
        """Where an archive's tar is: the file itself, or the scratch file if it is compressed or a
        pipe.

        :param path: ``-`` is standard input.
        :raises LayoutError: it cannot be read, or its compressed data are damaged.
        :raises TemporarySpaceError: it is larger than the bound, or the disk is full.
        """
        name = os.fspath(path)
        try:
            with _open(name) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    return self._once(status, lambda: self._spool(file, name))
                kind = compression_of(os.pread(file.fileno(), MAGIC_BYTES, 0))
                if kind is not None:
                    return self._once(status, lambda: self._unpack(kind, file, name))
                # Standard input has no name to open it by later.
                kept = ScratchFile(os.dup(file.fileno()), "r") if name == STANDARD_INPUT else None
                return BlobRange(name, 0, status.st_size, kept)
        except (OSError, ValueError) as exc:  # ValueError: NUL in the path
            reason = getattr(exc, "strerror", None) or str(exc)
            raise LayoutError(f"the archive cannot be read: {reason}", file=name) from exc

    def spool(self, read: Callable[[int], bytes], name: str) -> BlobRange:
        """Keep what can be read once alone, or only from afar; decompressed if it is compressed.

        :param read: gives the next bytes, at most as many as it is asked for; none at the end.
        :param name: where they come from, for errors.
        :raises LayoutError: the compressed data are damaged.
        :raises TemporarySpaceError: it is larger than the bound, or the disk is full.
        """
        start = b""
        while len(start) < MAGIC_BYTES and (more := read(MAGIC_BYTES - len(start))):
            start += more
        begin = [start]

        def following(size: int) -> bytes:
            self.check()
            return begin.pop() if begin else read(size)

        kind = compression_of(start)
        if kind is not None:
            return self._write(decompress(kind, following, name), name)
        return self._write(iter(lambda: following(MIB), b""), name)

    def compress(self, layer: BlobRange, diff_id: Digest) -> tuple[Digest, BlobRange]:
        """A layer, compressed: its digest, and where it is.

        :param diff_id: the digest of what is in it; proven on the way.
        :raises DigestMismatchError: it is another.
        """
        if diff_id not in self._layers:
            self._layers[diff_id] = self._compress(layer, diff_id)
        return self._layers[diff_id]

    def digest_of(self, source: BlobRange) -> Digest:
        """The digest of what is there."""
        found = hashlib.sha256()
        with opened(source) as fd:
            for offset in range(0, source.size, MIB):
                self.check()
                found.update(_read(fd, source, offset, min(MIB, source.size - offset)))
        return Digest(f"sha256:{found.hexdigest()}")

    def _once(self, status: os.stat_result, make: Callable[[], BlobRange]) -> BlobRange:
        """What is made of a file, if it has not changed since it was made before."""
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if not stat.S_ISREG(status.st_mode):
            key = (status.st_dev, status.st_ino, 0, 0)
        if key not in self._tars:
            self._tars[key] = make()
        return self._tars[key]

    def _unpack(self, kind: str, file: io.FileIO, name: str) -> BlobRange:
        def read(size: int) -> bytes:
            self.check()
            return file.read(size) or b""

        return self._write(decompress(kind, read, name), name)

    def _spool(self, file: io.FileIO, name: str) -> BlobRange:
        """Write what can be read once, in its order, to the file; decompressed, if need be."""
        if file.isatty():
            raise LayoutError(
                "standard input is a terminal",
                advice="pipe an archive into it: docker save IMAGE | asyncpush push"
                " docker-archive:- TARGET",
                file=name,
            )
        poll = select.poll()
        poll.register(file.fileno(), select.POLLIN)

        def read(size: int) -> bytes:
            # Never longer in one piece, so that a writer that pauses does not keep us from ending.
            while True:
                self.check()
                if poll.poll(_POLL_MILLISECONDS) and (data := file.read(size)) is not None:
                    return data

        return self.spool(read, name)

    def _compress(self, layer: BlobRange, diff_id: Digest) -> tuple[Digest, BlobRange]:
        inner, outer = hashlib.new(digests.algorithm(diff_id)), hashlib.sha256()

        def pieces(fd: int) -> Iterator[bytes]:
            blocks = compressed(
                lambda offset, size: _read(fd, layer, offset, size), layer.size, self._ordered
            )
            for block, packed in blocks:
                self.check()
                inner.update(block)
                outer.update(packed)
                yield packed
            found = inner.hexdigest()
            if found != digests.encoded(diff_id):
                raise DigestMismatchError(
                    f"a layer's content has the digest {found}, its config says {diff_id}",
                    advice="the archive is damaged; save the image again",
                    file=layer.path,
                )

        with opened(layer) as fd:
            where = self._write(pieces(fd), layer.path)
        return Digest(f"sha256:{outer.hexdigest()}"), where

    def _write(self, pieces: Iterable[bytes], name: str) -> BlobRange:
        """Append to the file; what could not be written whole is taken away again."""
        if self._file is None:
            self._file = _make()
        begin = self._size
        try:
            for piece in pieces:
                self._append(self._file, piece, name)
        except BaseException:
            self._size = begin
            self._file.truncate(begin)
            raise
        return BlobRange(name, begin, self._size - begin, self._file)

    def _append(self, file: ScratchFile, piece: bytes, name: str) -> None:
        if self._size + len(piece) > self._limit:
            raise TemporarySpaceError(
                f"unpacking takes more than the {self._limit // MIB:,} MiB that the temporary file"
                " may have",
                advice="allow more with --temp-space, or unpack the archive into a file first",
                file=name,
            )
        view = memoryview(piece)
        while view:
            try:
                count = os.pwrite(file.fileno(), view, self._size)
            except OSError as exc:
                raise _no_space(exc, name) from exc
            self._size += count
            view = view[count:]


def folder() -> str:
    """Where temporary files go: ``$TMPDIR``, or a place that survives in no memory.

    ``/tmp`` is memory on many systems, so large files go to ``/var/tmp`` (Filesystem Hierarchy
    Standard), as with podman and skopeo.
    """
    chosen = os.environ.get("TMPDIR")
    if chosen:
        return chosen
    return "/var/tmp" if Path("/var/tmp").is_dir() else tempfile.gettempdir()  # noqa: S108


def _open(name: str) -> io.FileIO:
    if name == STANDARD_INPUT:
        return io.FileIO(os.dup(0), "r")
    # A named pipe is opened before somebody writes to it, and is waited for as it is read.
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return io.FileIO(fd, "r")
    except OSError:  # a directory
        os.close(fd)
        raise


def _make() -> ScratchFile:
    try:
        # Where the system can, this file has no name from its first moment on.
        with tempfile.TemporaryFile(dir=folder(), buffering=0) as file:
            return ScratchFile(os.dup(file.fileno()), "r+b")
    except OSError as exc:
        raise _no_space(exc) from exc


def _no_space(exc: OSError, name: str | None = None) -> TemporarySpaceError:
    return TemporarySpaceError(
        f"the temporary file in {folder()} cannot be written: {exc.strerror}",
        advice="free space there, or name another folder with TMPDIR",
        file=name,
    )


def _read(fd: int, source: BlobRange, offset: int, size: int) -> bytes:
    pieces = []
    while size > 0:
        piece = os.pread(fd, size, source.offset + offset)
        if not piece:
            raise LayoutError("the archive became shorter while it was read", file=source.path)
        pieces.append(piece)
        offset, size = offset + len(piece), size - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
