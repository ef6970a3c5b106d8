"""The text of sources in S3."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.errors import UsageError
from asyncpush.plan.s3 import S3Source, is_s3, parse_s3

DIGEST = f"sha256:{'0' * 64}"
BUCKETS = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,40}[a-z0-9]", fullmatch=True)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda key: not key.endswith("/")
)
SELECTORS = st.none() | st.sampled_from(["v1", "@0", DIGEST, "docker.io/library/app:v1"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://b/team/app", S3Source("oci", "b", "team/app")),
        ("s3://b/team/app/", S3Source("oci", "b", "team/app")),
        ("oci:s3://b/team/app", S3Source("oci", "b", "team/app")),
        ("s3://b", S3Source("oci", "b", "")),
        ("s3://b/", S3Source("oci", "b", "")),
        ("s3://b:v1", S3Source("oci", "b", "", "v1")),
        ("s3://b/app:v1", S3Source("oci", "b", "app", "v1")),
        ("s3://b/app:", S3Source("oci", "b", "app")),
        ("s3://b/app:@3", S3Source("oci", "b", "app", "@3")),
        (f"s3://b/app@{DIGEST}", S3Source("oci", "b", "app", DIGEST)),
        (f"s3://b/app:{DIGEST}", S3Source("oci", "b", "app", DIGEST)),
        ("s3://b/app:host/name:v1", S3Source("oci", "b", "app", "host/name:v1")),
        ("oci-archive:s3://b/a/app.tar", S3Source("oci-archive", "b", "a/app.tar")),
        ("oci-archive:s3://b/app.tar:v1", S3Source("oci-archive", "b", "app.tar", "v1")),
        ("docker-archive:s3://b/app.tar:@0", S3Source("docker-archive", "b", "app.tar", "@0")),
        ("s3://b/a%3Ab%40c%25d", S3Source("oci", "b", "a:b@c%d")),
        ("s3://b/100%/a%20b%253A", S3Source("oci", "b", "100%/a%20b%3A")),
        ("s3://b//a//b", S3Source("oci", "b", "/a//b")),
    ],
)
def test_what_a_text_means(text: str, expected: S3Source) -> None:
    assert is_s3(text)
    assert parse_s3(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layouts/app", "not a source in S3"),
        ("docker://b/app", "not a source in S3"),
        ("s3://", "invalid bucket name ''"),
        ("s3:///key", "invalid bucket name ''"),
        ("s3://b c/key", "invalid bucket name 'b c'"),
        ("oci-archive:s3://b", "the archive's key is missing"),
        ("oci-archive:s3://b/dir/", "the archive's key is missing"),
        (f"s3://b/{'k' * 1025}", "more than 1,024 bytes"),
        ("s3://arn:aws:s3:eu-west-1:111122223333:accesspoint/a/p", "write its alias"),
    ],
)
def test_what_is_no_source_in_s3(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_s3(text)


@pytest.mark.parametrize("text", ["s3://user:hush@b/key", "s3://hush@b/key", "x://u:hush@b/key"])
def test_a_password_is_not_shown(text: str) -> None:
    with contextlib.suppress(UsageError):
        # Behind the bucket's name, a colon begins a name in the layout.
        assert parse_s3(text).bucket == "user"
        return
    with pytest.raises(UsageError) as caught:
        parse_s3(text)
    assert "hush" not in str(caught.value)


@given(st.sampled_from(["oci", "oci-archive", "docker-archive"]), BUCKETS, KEYS, SELECTORS)
def test_a_source_survives_its_text(kind: str, bucket: str, key: str, selector: str | None) -> None:
    with contextlib.suppress(UsageError):  # A key may be longer than its characters.
        source = S3Source(kind, bucket, key, selector)
        assert parse_s3(str(source)) == source


@given(st.text(max_size=80))
def test_any_text_is_a_source_or_one_error(text: str) -> None:
    for form in (text, f"s3://{text}", f"oci-archive:s3://{text}"):
        try:
            source = parse_s3(form)
        except UsageError:
            continue
        assert parse_s3(str(source)) == source
        assert source.name.startswith(f"s3://{source.bucket}")
