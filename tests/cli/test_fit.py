"""Rows: nothing is wider than it may be, names keep their ends, characters suit the terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from asyncpush.cli.fit import ASCII, UNICODE, Cell, Charset, bar, charset, cut, fold, row, shorten

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=200)


@given(TEXTS, st.integers(0, 120))
def test_shortened_texts_fit(text: str, columns: int) -> None:
    for characters in (UNICODE, ASCII):
        for shorter in (
            shorten(text, columns, characters.ellipsis),
            cut(text, columns, characters.ellipsis),
        ):
            assert cell_len(shorter) <= columns
            if cell_len(text) <= columns:
                assert shorter == text


def test_a_long_reference_keeps_its_tag() -> None:
    name = "team/" + "long/" * 40 + "app:v1.2.3"
    assert shorten(name, 24, "…") == "team/lo…/long/app:v1.2.3"
    assert shorten("日本語" * 20 + ":v1", 13, "…") == "日本…本語:v1"
    assert cut("the repository does not exist", 14, "…") == "the repositor…"


@given(st.lists(st.tuples(TEXTS, st.integers(0, 5)), max_size=8), st.integers(1, 200))
def test_a_row_fits(cells: list[tuple[str, int]], columns: int) -> None:
    line = row([Cell(Text(text), rank) for text, rank in cells], columns)
    assert line.cell_len <= columns


def test_what_matters_least_is_left_out_first() -> None:
    cells = [Cell(Text("must"), 0), Cell(Text("might"), 3), Cell(Text("should"), 1), Cell(Text(""))]
    assert row(cells, 30).plain == " must  might  should"
    assert row(cells, 19).plain == " must  should"
    assert row(cells, 10).plain == " must"
    assert row(cells, 3).plain == " mu"


@given(st.floats(-1, 2), st.integers(0, 60))
def test_a_bar_has_its_width(fraction: float, columns: int) -> None:
    assert bar(fraction, columns, UNICODE, "green").cell_len == columns


def test_a_bar_is_read_without_colors_too() -> None:
    assert bar(0.5, 8, ASCII, "green").plain == "####...."
    assert bar(0.5, 8, UNICODE, "green").plain == "━━━━────"


@given(TEXTS, st.integers(4, 100))
def test_folded_lines_fit_and_lose_nothing(text: str, columns: int) -> None:
    console = Console(file=io.StringIO())
    lines = list(fold(Text(text), columns, console))
    assert all(line.cell_len <= columns for line in lines)
    kept = "".join("".join(line.plain.split()) for line in lines)
    assert kept == "".join(text.split())


@pytest.mark.parametrize(
    ("encoding", "variables", "expected"),
    [
        ("utf-8", {"LANG": "de_DE.UTF-8"}, UNICODE),
        ("UTF-8", {"LANG": "C.UTF-8"}, UNICODE),
        ("utf-8", {"LANG": "C", "LC_ALL": "en_US.UTF-8"}, UNICODE),
        ("utf-8", {"LANG": "C", "LC_CTYPE": "en_US.UTF-8"}, UNICODE),
        ("utf-8", {"LANG": "C"}, ASCII),
        ("utf-8", {"LANG": "C", "LC_CTYPE": "C.UTF-8"}, ASCII),  # as Python coerces it
        ("utf-8", {"LANG": "en_US.UTF-8", "LC_ALL": "POSIX"}, ASCII),
        ("utf-8", {}, ASCII),
        ("ascii", {"LANG": "de_DE.UTF-8"}, ASCII),
        ("latin-1", {"LANG": "de_DE.UTF-8"}, ASCII),
        ("no-such-encoding", {"LANG": "de_DE.UTF-8"}, ASCII),
    ],
)
def test_characters_follow_encoding_and_locale(
    encoding: str, variables: dict[str, str], expected: Charset
) -> None:
    assert charset(encoding, variables) is expected
