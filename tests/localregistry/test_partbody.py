"""The incremental reader of UploadLayerPart's body, against the standard library's JSON."""

from __future__ import annotations

import base64
import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.localregistry.ecr.partbody import PartBody
from asyncpush.localregistry.errors import ApiError

MEMBERS = {
    "repositoryName": 'a"}{',
    "uploadId": "\\",
    "partFirstByte": 0,
    "x": [{"layerPartBlob": 1}],
}
SPACE = st.text(" \t\r\n", max_size=3)


def read(body: bytes, cuts: list[int], most: int = 1 << 20) -> tuple[bytes, dict[str, Any]]:
    reader = PartBody(most)
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)]
    data = b"".join(b"".join(reader.feed(piece)) for piece in pieces)
    return data, reader.finish()


def check_hostile(body: bytes, cuts: list[int]) -> None:
    try:
        data, members = read(body, cuts)
    except ApiError:
        return
    document = json.loads(body)
    assert base64.b64decode(document.pop("layerPartBlob"), validate=True) == data
    assert document == members


def escape(text: str, choose: random.Random) -> str:
    def one(character: str) -> str:
        forms = [character, f"\\u{ord(character):04x}", f"\\u{ord(character):04X}"]
        if character == "/":
            forms.append("\\/")
        return choose.choice(forms)

    return "".join(one(character) for character in text)


@given(
    data=st.binary(max_size=400),
    order=st.permutations([*MEMBERS, "layerPartBlob"]),
    space=st.lists(SPACE, min_size=4, max_size=4),
    cuts=st.lists(st.integers(0, 3000), max_size=12),
    chooser=st.none() | st.randoms(use_true_random=False),
)
def test_blob_is_found_whatever_order_space_escapes_and_pieces(
    data: bytes, order: list[str], space: list[str], cuts: list[int], chooser: random.Random | None
) -> None:
    blob = base64.b64encode(data).decode()
    name = "layerPartBlob"
    if chooser is not None:
        blob, name = escape(blob, chooser), escape(name, chooser)
    pairs = [
        f'"{name}"{space[0]}:{space[1]}"{blob}"'
        if key == "layerPartBlob"
        else f"{json.dumps(key)}{space[2]}:{json.dumps(MEMBERS[key])}"
        for key in order
    ]
    body = (space[3] + "{" + f"{space[0]},{space[1]}".join(pairs) + "}" + space[2]).encode()
    assert json.loads(body)["layerPartBlob"] == base64.b64encode(data).decode()

    assert read(body, cuts) == (data, MEMBERS)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_hostile_bytes_end_in_an_api_error_or_in_what_json_says(
    body: bytes, cuts: list[int]
) -> None:
    check_hostile(body, cuts)


@given(st.text('{}[]:,"\\ /=AQ0u', max_size=60), st.integers(0, 60))
def test_hostile_structure_around_a_blob_never_reads_what_json_does_not(
    noise: str, position: int
) -> None:
    text = '{"a":"b","layerPartBlob":"QUJD","c":[1]}'
    body = (text[:position] + noise + text[position:]).encode()
    check_hostile(body, [7, 30])


@pytest.mark.parametrize(
    "text",
    [
        '{"layerPartBlob":"QUJ"}',
        '{"layerPartBlob":"QQ==QUJD"}',
        '{"layerPartBlob":"QU\\nJD"}',
        '{"layerPartBlob":"QU JD"}',
        '{"layerPartBlob":"QU\\"JD"}',
        '{"layerPartBlob":"QUJD"',
        '{"layerPartBlob":"QUJD',
        '{"layerPartBlob":"QUJD\\',
        '{"layerPartBlob":"QUJD\\u00"}',
        '{"layerPartBlob":"QUJD"} x',
        '{"layerPartBlob":"QUJD","layerPartBlob":"QUJD"}',
        '{"a":1,"a":2,"layerPartBlob":"QUJD"}',
        '["layerPartBlob","QUJD"]',
        '[{"layerPartBlob":"QUJD"}]',
        '{"layerPartBlob":5}',
        '{"x":{"layerPartBlob":"QUJD"}}',
        '{"layerPartBlob":"Qé=="}',
        '{"layerPartBlob":"\\u0141QQQ"}',
        "",
    ],
)
def test_body_without_one_proper_blob_is_refused(text: str) -> None:
    for cut in range(len(text) + 1):
        with pytest.raises(ApiError):
            read(text.encode(), [cut])


def test_blob_above_the_limit_is_refused_before_all_of_it_has_come() -> None:
    reader = PartBody(max_blob=30)
    reader.feed(b'{"layerPartBlob":"' + b"QUJD" * 10)
    with pytest.raises(ApiError, match="length"):
        reader.feed(b"QUJD")


def test_members_that_flood_the_memory_are_refused() -> None:
    reader = PartBody(max_blob=30)
    for _ in range(16):
        reader.feed(b" " * 4096)
    with pytest.raises(ApiError, match="too large"):
        reader.feed(b" ")


def test_members_before_the_blob_are_known_when_it_begins() -> None:
    reader = PartBody(max_blob=30)
    assert reader.feed(b'{"uploadId":"u","partFirstByte":7,"layerPartB') == []
    assert not reader.blob_started
    assert reader.feed(b'lob":"QUJ') == []
    assert reader.members_so_far() == {"uploadId": "u", "partFirstByte": 7}
    assert reader.feed(b'D","partLastByte":9}') == [b"ABC"]
    assert reader.finish() == {"uploadId": "u", "partFirstByte": 7, "partLastByte": 9}
