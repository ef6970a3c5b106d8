"""Rows at the end of a terminal that are drawn again and again, and lines that scroll by above."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

# Terminals that know synchronized updates show a frame when it is whole; others ignore the marks.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_END_OF_LINE, _REST_OF_SCREEN = "\x1b[K", "\x1b[J"
_DEFAULT_SIZE = (80, 24)
# Terminals that break lines again when their width changes; all others cut or keep them.
_REFLOWING = ("TERM_PROGRAM", "TMUX", "VTE_VERSION", "KITTY_WINDOW_ID", "WT_SESSION")


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is written, and how many columns it takes."""

    text: str
    width: int


def reflows(environ: Mapping[str, str]) -> bool:
    """Whether a terminal breaks lines again when its width changes."""
    return any(environ.get(name) for name in _REFLOWING)


class Region:
    """The last rows of a terminal.

    A frame is one write, which begins at the region's first row and never touches one above it.
    Rows are shorter than the terminal is wide, so none of them wraps. Nothing of the terminal's
    state is changed, not even the cursor's visibility, so nothing has to be restored, whatever ends
    the process.

    :param reflow: whether the terminal breaks lines again when its width changes.
    """

    def __init__(self, file: IO[str], *, reflow: bool = False) -> None:
        self._file = file
        self._reflow = reflow
        self._rows: list[Row] = []
        self._columns = 0

    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal."""
        try:
            columns, rows = os.get_terminal_size(self._file.fileno())
        except OSError:
            return _DEFAULT_SIZE
        return columns or _DEFAULT_SIZE[0], rows or _DEFAULT_SIZE[1]

    def draw(self, rows: Sequence[Row], above: Sequence[str] = ()) -> None:
        """Draw a frame.

        :param rows: the region's rows, each narrower than the terminal.
        :param above: lines that stay above the region for good.
        """
        columns, height = self.size()
        # The cursor rests at the beginning of the region's last row.
        frame = [_BEGIN, self._to_top(columns, height)]
        frame += [f"{line}{_END_OF_LINE}\r\n" for line in above]
        frame.append("\r\n".join(f"{row.text}{_END_OF_LINE}" for row in rows))
        frame += [_REST_OF_SCREEN, "\r", _END]
        self._file.write("".join(frame))
        self._file.flush()
        self._rows, self._columns = list(rows), columns

    def clear(self, above: Sequence[str] = ()) -> None:
        """Take the region away; the cursor is where it began, behind lines that stay.

        :param above: as for :meth:`draw`.
        """
        if self._rows or above:
            self.draw((), above)

    def forget(self) -> None:
        """Leave what was drawn as it is, and begin anew where the cursor is."""
        self._rows = []

    def _to_top(self, columns: int, height: int) -> str:
        up = 0
        for row in self._rows[:-1]:
            wrapped = self._reflow and columns < self._columns
            up += max(1, -(-row.width // columns)) if wrapped else 1
        up = min(up, height - 1)
        return f"\r\x1b[{up}A" if up else "\r"
