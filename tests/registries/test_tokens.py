"""Where credentials may go, and what is believed of a token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from asyncpush.errors import CredentialsError, TransientError
from asyncpush.registries.distribution.errors import retry_after
from asyncpush.registries.distribution.tokens import MOST_BYTES, check_realm, read_token

pytestmark = pytest.mark.anyio

REGISTRY = URL("https://registry.example.com")


@pytest.mark.parametrize(
    "realm",
    [
        "https://auth.example.com/token",
        "https://registry.example.com:8443/token",
        "http://localhost:5001/token",
        "http://127.0.0.1/token",
        "http://[::1]:5001/token",
        "https://10.0.0.7/token",
    ],
)
def test_a_token_service_is_asked_over_tls_or_on_this_machine(realm: str) -> None:
    assert check_realm(realm, REGISTRY, "registry.example.com") == URL(realm)


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.example.com/token",
        "http://registry.example.com/token",
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/token",
        "https://[fe80::1]/token",
        "ftp://auth.example.com/token",
        "/token",
        "",
        "http://[",
        "https://" + "x" * 64 + ".example.com:99999999/",
    ],
)
def test_credentials_go_nowhere_else(realm: str) -> None:
    with pytest.raises(CredentialsError) as caught:
        check_realm(realm, REGISTRY, "registry.example.com")
    assert caught.value.where == {"registry": "registry.example.com"}


def test_a_registry_that_is_asked_in_clear_may_give_tokens_itself() -> None:
    registry = URL("http://registry.internal:5000")
    check_realm("http://registry.internal:5001/token", registry, "registry.internal:5000")
    with pytest.raises(CredentialsError):
        check_realm("http://other.internal/token", registry, "registry.internal:5000")


@given(st.text())
def test_any_realm_is_an_address_or_refused(realm: str) -> None:
    try:
        url = check_realm(realm, REGISTRY, "registry.example.com")
    except CredentialsError:
        return
    assert url.scheme == "https" or url.host in ("localhost", "127.0.0.1", "::1")


class Answer:
    """An answer's body in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.content = self
        self._pieces = pieces
        self.read = 0

    async def iter_any(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.read += len(piece)
            yield piece


async def token_of(body: object) -> tuple[str, float]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await read_token(Answer(raw), registry="r")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expires", "seconds"),
    [
        (300, 300.0),
        (None, 60.0),
        (-5, 60.0),
        (True, 60.0),
        ("300", 60.0),
        (1e308, 86400.0),
        (10**400, 86400.0),
    ],
)
async def test_a_token_is_good_for_a_time_that_can_be(expires: object, seconds: float) -> None:
    assert await token_of({"token": "abc", "expires_in": expires}) == ("abc", seconds)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[" * 100_000,
        b"\xff\xfe",
        {"token": 5},
        {"token": "a\r\nX-Evil: 1"},
        {"token": "a\0b"},
        {"token": ""},
        {"access_token": ["a"]},
        ["token"],
        None,
    ],
)
async def test_what_is_no_token_is_a_typed_error(body: object) -> None:
    with pytest.raises((TransientError, CredentialsError)) as caught:
        await token_of(body)
    assert caught.value.where["registry"] == "r"


async def test_an_answer_without_end_is_read_to_a_bound() -> None:
    answer = Answer(*[bytes(2**16)] * 1000)
    with pytest.raises(TransientError, match="no end"):
        await read_token(answer, registry="r")  # type: ignore[arg-type]
    assert answer.read <= MOST_BYTES + 2**16


@given(st.one_of(st.text(), st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ .*")))
def test_any_retry_after_is_seconds_or_nothing(text: str) -> None:
    found = retry_after(text)
    assert found is None or found >= 0


def test_a_time_zone_that_is_none_is_no_retry_after() -> None:
    assert retry_after("Fri, 27 Nov 2026 10:00:00 +999999999") is None
    assert retry_after("9" * 5000) is None
