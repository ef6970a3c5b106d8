"""Digests: the grammar is the whole defence against a digest that is really a path."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncpush.errors import DigestMismatchError, UnsupportedDigestError
from asyncpush.oci.digest import algorithm, compute, encoded, parse_digest, verify

HEX = "0123456789abcdef"


@given(st.binary(max_size=64), st.sampled_from(["sha256", "sha512"]))
@settings(deadline=None)
def test_what_was_computed_parses_and_verifies(data: bytes, name: str) -> None:
    digest = compute(data, name)
    assert digest == f"{name}:{hashlib.new(name, data).hexdigest()}"
    assert parse_digest(digest) == digest
    assert (algorithm(digest), encoded(digest)) == (name, digest.removeprefix(f"{name}:"))
    verify(data, digest, len(data))


@given(st.one_of(st.text(), st.from_regex(r"sha(256|512):.*", fullmatch=True)))
@example("sha256:" + "0" * 64 + "\n")
@settings(deadline=None)
def test_any_text_is_refused_or_is_safe_as_a_file_name(text: str) -> None:
    try:
        digest = parse_digest(text)
    except UnsupportedDigestError:
        return
    assert set(encoded(digest)) <= set(HEX)
    assert len(encoded(digest)) == {"sha256": 64, "sha512": 128}[algorithm(digest)]


@pytest.mark.parametrize(
    "text",
    [
        None,
        5,
        ["sha256:" + "0" * 64],
        "",
        "sha256",
        "sha256:",
        "0" * 64,
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "\u0660" * 64,
        "sha512:" + "0" * 64,
        "SHA256:" + "0" * 64,
        "md5:" + "0" * 32,
        "sha256:../../../../etc/passwd",
        "sha256:" + "../" * 21 + "a",
        "../sha256:" + "0" * 64,
        "sha256:/" + "0" * 63,
        "sha256:" + "0" * 63 + "\0",
        "sha256:" + "0" * 64 + ":" + "0" * 64,
    ],
)
def test_what_is_no_digest_is_refused(text: object) -> None:
    with pytest.raises(UnsupportedDigestError):
        parse_digest(text)


def test_an_unknown_algorithm_is_named() -> None:
    with pytest.raises(UnsupportedDigestError, match="algorithm blake3 is unknown"):
        parse_digest("blake3:" + "0" * 64)


@pytest.mark.parametrize(
    ("data", "size", "message"),
    [(b"hello", 4, "has 5 bytes, its descriptor says 4"), (b"hellO", 5, "has the digest sha256:")],
)
def test_other_bytes_fail_verification(data: bytes, size: int, message: str) -> None:
    with pytest.raises(DigestMismatchError, match=message) as caught:
        verify(data, compute(b"hello"), size)
    assert caught.value.where["digest"] == compute(b"hello")
