"""What fits into a row of a terminal: columns counted as terminals do, names with their ends."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
_PLAIN = ("", "C", "POSIX")
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Charset:
    """The characters that a terminal is drawn with."""

    ellipsis: str
    full: str
    rest: str


UNICODE = Charset("…", "━", "─")
ASCII = Charset("~", "#", ".")


def charset(encoding: str, environ: Mapping[str, str]) -> Charset:
    """The characters that a terminal shows.

    Python writes UTF-8 in the C locale, too, and says so in ``LC_CTYPE``, but whoever chose that
    locale, or none, may have a terminal that shows ASCII alone.
    """
    try:
        if codecs.lookup(encoding).name != "utf-8":
            return ASCII
    except LookupError:
        return ASCII
    language, of_characters = environ.get("LANG", ""), environ.get("LC_CTYPE", "")
    if of_characters in _COERCED and language in _PLAIN:
        of_characters = ""
    effective = environ.get("LC_ALL") or of_characters or language
    return ASCII if effective in _PLAIN else UNICODE


def shorten(text: str, columns: int, ellipsis: str) -> str:
    """A text in so many columns at most: what is left out is left out of its middle.

    The end keeps two thirds, since that is where a reference has its tag.
    """
    if cell_len(text) <= columns:
        return text
    if columns <= len(ellipsis):
        return ellipsis[:columns]
    room = columns - len(ellipsis)
    tail = _within(reversed(text), room - room // 3)[::-1]
    head = _within(text, room - cell_len(tail))
    return f"{head}{ellipsis}{tail}"


def cut(text: str, columns: int, ellipsis: str) -> str:
    """A text in so many columns at most: what is left out is left out at its end."""
    if cell_len(text) <= columns:
        return text
    return _within(text, columns - len(ellipsis)) + ellipsis[: max(0, columns)]


def _within(characters: Iterable[str], columns: int) -> str:
    kept, used = [], 0
    for character in characters:
        used += cell_len(character)
        if used > columns:
            break
        kept.append(character)
    return "".join(kept)


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of a row; those of the highest rank are left out first when space is short."""

    text: Text
    rank: int = 0


def row(cells: Iterable[Cell], columns: int) -> Text:
    """Cells beside each other, as many of them as fit, behind one blank.

    :param columns: what the row may take at most; more than that is cut.
    """
    kept = [cell for cell in cells if cell.text.plain]
    while len(kept) > 1 and _width(kept) > columns:
        worst = max(cell.rank for cell in kept)
        kept.pop(max(i for i, cell in enumerate(kept) if cell.rank == worst))
    line = Text(" ").append_text(Text(_GAP).join(cell.text for cell in kept))
    line.truncate(columns)
    return line


def _width(cells: Sequence[Cell]) -> int:
    return 1 + sum(cell.text.cell_len for cell in cells) + len(_GAP) * (len(cells) - 1)


def bar(fraction: float, columns: int, characters: Charset, style: str) -> Text:
    """A bar that is filled up to a fraction."""
    full = int(min(1.0, max(0.0, fraction)) * columns)
    return Text.assemble(
        (characters.full * full, style), (characters.rest * (columns - full), "bright_black")
    )


def fold(text: Text, columns: int, console: Console) -> Iterator[Text]:
    """A text in lines of so many columns at most, all but the first set in by two.

    :param console: what it is for.
    """
    for number, line in enumerate(text.wrap(console, max(1, columns - 2), overflow="fold")):
        line.rstrip()
        yield Text("  ").append_text(line) if number else line
