"""Reading compressed files in pieces, whatever they were compressed with, in bounded memory."""

from __future__ import annotations

import bz2
import importlib
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from asyncpush.errors import LayoutError

PIECE = 1024 * 1024
"""The most bytes that are decompressed at a time."""
# What is behind a stream's end is copied for each stream, and hostile files have many short ones.
_INPUT = 64 * 1024
# A dictionary of 64 MiB, which xz -9 uses, takes 65 MiB; more is asked for by damage or in malice.
_XZ_MEMORY = 256 * 1024 * 1024
# 128 MiB: what the zstd program decompresses unless it is told otherwise.
_ZSTD_WINDOW_LOG = 27
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
MAGIC_BYTES = max(map(len, _MAGIC))
"""Bytes at a file's beginning that tell how it is compressed."""


class _Decompressor(Protocol):
    """One compressed stream, in the terms of the standard library's ``BZ2Decompressor``."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gunzip:
    """``zlib`` in those terms: it hands back what it has not looked at yet."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


def compression_of(start: bytes) -> str | None:
    """How a file that begins like this is compressed; None for not at all."""
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


def decompress(kind: str, read: Callable[[int], bytes], file: str) -> Iterator[bytes]:
    """What a compressed file holds, in pieces of at most 1 MiB.

    Several streams behind each other are one, as ``gzip``, ``xz`` and their like write them.

    :param kind: what :func:`compression_of` says.
    :param read: gives the next bytes of the file, none at its end.
    :param file: its name, for errors.
    :raises LayoutError: it is damaged, or cut off.
    """
    make, failures = _decompressors(kind)
    data = read(_INPUT)
    while data:
        stream = make()
        while not stream.eof:
            try:
                piece = stream.decompress(data, PIECE)
            except failures as exc:
                raise LayoutError(f"its {kind} data are damaged: {exc}", file=file) from exc
            if piece:
                yield piece
            data = b""
            if stream.needs_input and not stream.eof:
                data = read(_INPUT)
                if not data:
                    raise LayoutError(
                        f"its {kind} data end too soon", advice="copy the file again", file=file
                    )
        data = stream.unused_data or read(_INPUT)
        # Programs that write to tapes fill the last block up with zeros.
        while data and not (data := data.lstrip(b"\0")):
            data = read(_INPUT)


def _decompressors(
    kind: str,
) -> tuple[Callable[[], _Decompressor], tuple[type[Exception], ...]]:
    """What makes decompressors of a kind, and what these raise."""
    if kind == "gzip":
        return _Gunzip, (zlib.error,)
    if kind == "bzip2":
        return bz2.BZ2Decompressor, (OSError, ValueError)
    if kind == "xz":
        return (
            lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
            (lzma.LZMAError,),
        )
    # Only this kind is not in the standard library of all Pythons.
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    zstd = importlib.import_module(name)
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return lambda: zstd.ZstdDecompressor(options=options), (zstd.ZstdError,)
