"""Code blocks of the documentation, with what the comment above each says of it.

``<!-- not run: REASON -->`` excuses a block. ``<!-- file: NAME -->`` makes it a file in
the reader's folder; NAME below ``examples/`` is that file of the project. ``<!-- new shell -->``
forgets what earlier blocks have set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
LANGUAGES = {"sh", "python", "yaml", "json", "text"}
"""All that there may be: text is read, whatever else is run, loaded or at least parsed."""

_FENCE = re.compile(r"^([ \t]*)```([^\n`]*)\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- (not run|file|new shell|demo|test)(?:: ([^\n]+))? -->\s*\Z")
_ELSEWHERE = {"demo": "a newcomer's line, which CI runs in a fresh clone", "test": "what CI runs"}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: where it is, what it holds, what becomes of it."""

    page: str
    line: int
    language: str
    text: str
    excuse: str | None
    file: str | None
    new_shell: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Everything that shows commands to a reader."""
    return sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def blocks_of(path: Path) -> list[Block]:
    """The blocks of a page, in its order."""
    return list(_read(path.relative_to(ROOT).as_posix(), path.read_text()))


def without_blocks(path: Path) -> str:
    """What a page says outside of its blocks."""
    return _FENCE.sub("", path.read_text())


def _read(page: str, text: str) -> Iterator[Block]:
    for fence in _FENCE.finditer(text):
        comment = _COMMENT.search(text, 0, fence.start())
        what, argument = comment.groups() if comment else ("", None)
        yield Block(
            page=page,
            line=text.count("\n", 0, fence.start()) + 1,
            language=fence[2].strip(),
            text=dedent(fence[3]),
            excuse=argument if what == "not run" else _ELSEWHERE.get(what),
            file=argument if what == "file" else None,
            new_shell=what == "new shell",
        )
