"""Compressing layers so that the same layer gives the same bytes, on every machine and every time.

The standard library's zlib cannot promise that: it is whatever the Python at hand was built with,
and zlib, zlib-ng and their relatives write different bytes. So layers are compressed by one version
of libdeflate, which comes with its Python package. It compresses what it is given as a whole, so a
layer is cut into blocks of a fixed size, each of which becomes a member of the gzip file (RFC 1952,
section 2.2); blocks do not depend on each other, so several can be compressed at once.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

import deflate

from asyncpush.errors import AsyncpushError

BLOCK = 1024 * 1024
"""Bytes of a layer that become one member. Another size gives other digests."""
_LEVEL = 6
# SHA-256 of what _sample() becomes. It changes with the level and with libdeflate, and so would the
# digest of every layer.
_PROOF = "6540ef79d39e9b660113489795d7efd7a8b39098f6eb1541dc2b25f59d9aab4d"

A = TypeVar("A")
B = TypeVar("B")


class Ordered(Protocol):
    """Works on items, perhaps several at once, and gives the results in their order."""

    def __call__(self, work: Callable[[A], B], items: Iterable[A], /) -> Iterator[B]: ...


def in_turn(work: Callable[[A], B], items: Iterable[A], /) -> Iterator[B]:
    """The plainest :class:`Ordered`: one after the other."""
    return map(work, items)


def compressed(
    read: Callable[[int, int], bytes], size: int, ordered: Ordered = in_turn
) -> Iterator[tuple[bytes, bytes]]:
    """A layer's blocks, and what each of them is compressed.

    :param read: gives bytes from an offset on, as many as are asked for; called on any thread.
    :param size: bytes of the layer.
    :raises AsyncpushError: this installation's compressor writes other bytes than all others.
    """
    _prove()

    def one(offset: int) -> tuple[bytes, bytes]:
        block = read(offset, min(BLOCK, size - offset))
        return block, bytes(deflate.gzip_compress(block, _LEVEL))

    # An empty layer is one empty block, or it would be no gzip file.
    return ordered(one, range(0, max(size, 1), BLOCK))


def _sample() -> bytes:
    """A text whose words come again in ever new order, and bytes that nothing can be made of."""
    noise = [hashlib.sha256(str(i).encode()).digest() for i in range(3000)]
    words = [digest.hex()[: 2 + digest[0] % 9] for digest in noise[:250]]
    lines = [" ".join(words[byte % 250] for byte in digest) for digest in noise]
    return "\n".join(lines).encode() + b"".join(noise[:500])


@functools.cache
def _prove() -> None:
    found = hashlib.sha256(deflate.gzip_compress(_sample(), _LEVEL)).hexdigest()
    if found != _PROOF:
        raise AsyncpushError(
            "layers cannot be compressed: the package deflate writes other bytes here than"
            " elsewhere, and digests would differ",
            advice="install asyncpush anew, with deflate from PyPI's wheels,"
            " or push the layers as they are",
        )
