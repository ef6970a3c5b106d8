"""Content digests: their grammar, how to compute them, where their content lies in a layout."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from asyncpush.errors import DigestMismatchError, UnsupportedDigestError

Digest = NewType("Digest", str)
"""A digest in its text form, ``ALGORITHM:HEX`` (image-spec, descriptor.md, "Digests")."""

# image-spec, descriptor.md: registered algorithms and the length of their encoded part.
_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_GRAMMAR = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_LOWER_HEX = re.compile(r"[a-f0-9]+")


def parse_digest(text: object) -> Digest:
    """Check a digest's grammar and algorithm.

    :param text: what stands where a digest should stand.
    :return: the same text, typed.
    :raises UnsupportedDigestError: no digest, or neither sha256 nor sha512.
    """
    if not isinstance(text, str) or not _GRAMMAR.fullmatch(text):
        raise UnsupportedDigestError(
            f"not a digest: {text!r}", advice="a digest reads sha256: and 64 lower-case hex digits"
        )
    algorithm, encoded = text.split(":", 1)
    length = _HEX_LENGTH.get(algorithm)
    if length is None:
        raise UnsupportedDigestError(
            f"digest algorithm {algorithm} is unknown",
            advice="sha256 and sha512 can be read",
            digest=text,
        )
    if len(encoded) != length or not _LOWER_HEX.fullmatch(encoded):
        raise UnsupportedDigestError(
            f"a {algorithm} digest has {length} lower-case hex digits", digest=text
        )
    return Digest(text)


def algorithm(digest: Digest) -> str:
    """The part before the colon: ``sha256`` or ``sha512``."""
    return digest.split(":", 1)[0]


def encoded(digest: Digest) -> str:
    """The part behind the colon."""
    return digest.split(":", 1)[1]


def compute(data: bytes, algorithm_name: str = "sha256") -> Digest:
    """The digest of bytes in memory."""
    return Digest(f"{algorithm_name}:{hashlib.new(algorithm_name, data).hexdigest()}")


def verify(data: bytes, digest: Digest, size: int | None = None) -> None:
    """Prove that bytes are what a descriptor says.

    :param size: length in bytes that the descriptor gives, if there is one.
    :raises DigestMismatchError: size or digest differ.
    """
    if size is not None and len(data) != size:
        raise DigestMismatchError(
            f"content has {len(data)} bytes, its descriptor says {size}", digest=digest
        )
    found = compute(data, algorithm(digest))
    if found != digest:
        raise DigestMismatchError(f"content has the digest {found}", digest=digest)
