"""Signature Version 4 and tokens, with botocore's signer as the other opinion."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from asyncpush.localregistry import DEFAULT_KEY, Key, Registry
from asyncpush.localregistry.access.keys import Keyring
from asyncpush.localregistry.access.sigv4 import Verifier
from asyncpush.localregistry.access.tokens import TokenSigner, load_secret
from asyncpush.localregistry.errors import ApiError

NOW = datetime.now(UTC)
URL = "http://127.0.0.1:5000/"
TEMPORARY = Key("ASIATEMPORARY0000000", "secret", session_token="session-token")


def headers_of(
    body: bytes = b"{}", key: Key = DEFAULT_KEY, url: str = URL, service: str = "ecr", **more: str
) -> dict[str, str]:
    headers = {"Host": "127.0.0.1:5000", "X-Amz-Target": "x.y"} | more
    request = AWSRequest("POST", url, headers=headers, data=body)
    credentials = Credentials(key.access_key_id, key.secret_access_key, key.session_token)
    SigV4Auth(credentials, service, "eu-west-1").add_auth(request)
    return dict(request.headers.items())


def verify(
    headers: dict[str, str],
    body: bytes = b"{}",
    path: str = "/",
    now: datetime | None = None,
    keys: tuple[Key, ...] = (DEFAULT_KEY, TEMPORARY),
) -> Any:
    clock = (now or datetime.now(UTC)).timestamp()
    verifier = Verifier(Keyring(keys), lambda: clock, 300)
    signed = verifier.open("POST", path, CIMultiDictProxy(CIMultiDict(headers)))
    signed.prove(hashlib.sha256(body).hexdigest())
    return signed


@given(
    body=st.binary(max_size=50),
    segments=st.lists(st.sampled_from(["a", "B~-_", "%20c", "0"]), max_size=3),
    query=st.dictionaries(st.text("ab-~", min_size=1), st.text("xyz09"), max_size=3),
    value=st.text(" ab\tc", max_size=8),
)
def test_whatever_botocore_signs_is_proven(
    body: bytes, segments: list[str], query: dict[str, str], value: str
) -> None:
    target = (
        "/"
        + "/".join(segments)
        + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else "")
    )
    headers = headers_of(body, url=f"http://127.0.0.1:5000{target}", My_Header=f"v{value}v")
    assert verify(headers, body, target).region == "eu-west-1"


def test_temporary_key_is_proven_with_its_token() -> None:
    assert verify(headers_of(key=TEMPORARY)).key is TEMPORARY


def test_claimed_hash_is_proven_before_the_body_and_compared_with_it() -> None:
    claimed = hashlib.sha256(b"body").hexdigest()
    headers = headers_of(b"body", **{"X-Amz-Content-SHA256": claimed})
    assert verify(headers, b"body").claimed == claimed
    with pytest.raises(ApiError, match="InvalidSignatureException"):
        verify(headers, b"another body")


def changed(name: str, value: str) -> dict[str, str]:
    return headers_of() | {name: value}


def authorization(old: str, new: str) -> dict[str, str]:
    headers = headers_of()
    assert old in headers["Authorization"]
    return headers | {"Authorization": headers["Authorization"].replace(old, new)}


@pytest.mark.parametrize(
    ("headers", "code", "words"),
    [
        ({"Host": "x"}, "MissingAuthenticationTokenException", "Missing Authentication Token"),
        ({"Authorization": "Basic QTpC"}, "MissingAuthenticationTokenException", ""),
        (authorization("AWS4-HMAC-SHA256", "AWS4-X"), "IncompleteSignatureException", "algorithm"),
        (authorization("Signature=", "S="), "IncompleteSignatureException", "'Signature' para"),
        (authorization("/aws4_request", ""), "IncompleteSignatureException", "5 slash"),
        (authorization("aws4_request", "aws5"), "InvalidSignatureException", "terminator"),
        (authorization("host;", ""), "InvalidSignatureException", "'host' must be"),
        (authorization(";x-amz-target", ""), "InvalidSignatureException", "'x-amz-target' must"),
        (authorization("AKIDLOCAL", "AKIDOTHER"), "UnrecognizedClientException", "is invalid."),
        (authorization("eu-west-1", "us-east-1"), "InvalidSignatureException", "does not match"),
        (authorization("host;", "Host;"), "IncompleteSignatureException", "lower case"),
        (changed("X-Amz-Target", "x.z"), "InvalidSignatureException", "does not match"),
        (changed("X-Amz-Date", "yesterday"), "IncompleteSignatureException", "ISO-8601"),
        (changed("X-Amz-Date", "20200101T000000Z"), "InvalidSignatureException", "scope does not"),
        (changed("X-Amz-Extra", "1"), "InvalidSignatureException", "'x-amz-extra' must be"),
        (changed("X-Amz-Security-Token", "t"), "UnrecognizedClientException", "is invalid."),
        (headers_of(service="s3"), "InvalidSignatureException", "correct service: 'ecr'"),
        (
            headers_of(**{"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}),
            "InvalidSignatureException",
            "no SHA-256",
        ),
        (headers_of(b"other"), "InvalidSignatureException", "does not match"),
        (
            headers_of(key=Key(DEFAULT_KEY.access_key_id, "wrong")),
            "InvalidSignatureException",
            "does not match",
        ),
        (
            headers_of(key=Key(TEMPORARY.access_key_id, "secret")),
            "UnrecognizedClientException",
            "is invalid.",
        ),
    ],
)
def test_request_that_is_not_properly_signed_is_refused(
    headers: dict[str, str], code: str, words: str
) -> None:
    with pytest.raises(ApiError) as info:
        # They were signed when the module was read, which may be minutes ago.
        verify(headers, now=NOW)
    assert info.value.code == code
    assert words in info.value.message


@pytest.mark.parametrize(
    ("minutes", "words"), [(6, "Signature expired: "), (-6, "Signature not yet current: ")]
)
def test_date_beyond_the_skew_is_refused(minutes: int, words: str) -> None:
    with pytest.raises(ApiError, match=words) as info:
        verify(headers_of(), now=datetime.now(UTC) + timedelta(minutes=minutes))
    assert info.value.code == "InvalidSignatureException"
    assert "5 min.)" in info.value.message


def test_expired_key_is_told_so() -> None:
    expired = Key("ASIAEXPIRED000000000", "secret", expires=NOW)
    with pytest.raises(ApiError) as info:
        verify(headers_of(key=expired), keys=(expired,))
    assert info.value.code == "ExpiredTokenException"


SIGNER = TokenSigner(b"x" * 32, lambda: 1000.0)
HOME = Registry("000000000000", "eu-west-1")


def test_password_says_what_it_was_made_from_until_it_expires() -> None:
    password = SIGNER.issue_password("AKID", HOME, 1001)
    found = SIGNER.read_password(password)
    assert found is not None
    assert (found.access_key_id, found.registry, found.expires) == ("AKID", HOME, 1001)
    assert SIGNER.read_password(SIGNER.issue_password("AKID", HOME, 1000)) is None
    assert TokenSigner(b"y" * 32, lambda: 0).read_password(password) is None


@given(st.text(max_size=40))
def test_foreign_password_says_nothing(text: str) -> None:
    password = SIGNER.issue_password("AKID", HOME, 2000)
    assert SIGNER.read_password(text) is None
    assert SIGNER.read_password(password + text) is None or not text
    for read in (SIGNER.read_bearer, SIGNER.read_refresh):
        assert read(password) is None


def test_download_url_holds_for_one_layer_until_it_expires() -> None:
    path = SIGNER.layer_path(HOME, "team/app", "sha256:1", 1001)
    signature = path.rpartition("signature=")[2]
    assert SIGNER.allows_layer(HOME, "team/app", "sha256:1", "1001", signature)
    assert not SIGNER.allows_layer(HOME, "team/app", "sha256:2", "1001", signature)
    assert not SIGNER.allows_layer(HOME, "team/app2", "sha256:1", "1001", signature)
    assert not SIGNER.allows_layer(HOME, "team/app", "sha256:1", "9001", signature)
    assert not SIGNER.allows_layer(HOME, "team/app", "sha256:1", "x", "ü")


def test_secret_is_made_once_and_private(tmp_path: Path) -> None:
    secret = load_secret(tmp_path / "secret")
    assert load_secret(tmp_path / "secret") == secret
    assert len(secret) == 32
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
