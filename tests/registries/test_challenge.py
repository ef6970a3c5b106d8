"""WWW-Authenticate headers, as servers write them and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.registries.distribution.challenge import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ('Basic realm="x"', [Challenge("basic", {"realm": "x"})]),
        ("Basic", [Challenge("basic", {})]),
        (
            'Bearer realm="https://auth.example/token",service="registry",'
            'scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "registry",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (
            'BEARER Realm = "a" , service=b, Basic realm="c, d"',
            [
                Challenge("bearer", {"realm": "a", "service": "b"}),
                Challenge("basic", {"realm": "c, d"}),
            ],
        ),
        ('Bearer realm="a \\"b\\" \\\\"', [Challenge("bearer", {"realm": 'a "b" \\'})]),
        ("", []),
        ('="x", Basic', [Challenge("basic", {})]),
    ],
)
def test_challenges_are_read(header: str, challenges: list[Challenge]) -> None:
    assert parse_challenges([header]) == challenges


def test_several_headers_are_several_challenges() -> None:
    assert [c.scheme for c in parse_challenges(['Bearer realm="a"', "Basic"])] == [
        "bearer",
        "basic",
    ]


@given(st.lists(st.text(alphabet='Bab ,="\\;\t\u00e9', max_size=60), max_size=3))
def test_no_header_is_too_strange(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
