"""A terminal for tests: a program runs in a pseudo-terminal, an emulator reads what it writes."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyte

_SYNCHRONIZED = 2026
# Makes the pseudo-terminal the program's controlling one, so that Ctrl-C and resizing reach it.
_IN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " os.execvp(sys.argv[1], sys.argv[1:])"
)


class Screen(pyte.Screen):
    """An emulated terminal that notes what a well-behaved view does not do.

    Rows are counted from the first line ever written, so that they keep their number when the
    screen scrolls.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self.scrolled: list[str] = []
        self.frames = 0
        self.wraps: list[str] = []
        self._wrapped: list[str] = []
        self.rewritten: list[str] = []
        self.final: dict[int, str] = {}
        self.heights: list[int] = []
        self.widths: list[int] = []
        self.views: list[list[str]] = []
        self._drawing = False
        self._top = 0
        super().__init__(columns, lines)

    def row(self) -> int:
        """The number of the cursor's row."""
        return len(self.scrolled) + self.cursor.y

    def text(self, row: int) -> str:
        """What a row shows, or showed when it left the screen."""
        if row < len(self.scrolled):
            return self.scrolled[row]
        return self.display[row - len(self.scrolled)].rstrip()

    def transcript(self) -> list[str]:
        """All rows up to the cursor's."""
        return [self.text(row) for row in range(self.row() + 1)]

    def draw(self, data: str) -> None:
        self._touch()
        self._drawing = True
        super().draw(data)
        self._drawing = False

    def linefeed(self) -> None:
        if self._drawing:
            self._wrapped.append(self.display[self.cursor.y])
        super().linefeed()

    def index(self) -> None:
        if self.cursor.y == (self.margins.bottom if self.margins else self.lines - 1):
            self.scrolled.append(self.display[0].rstrip())
        super().index()

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        """Cut lines as xterm does; rows above the cursor scroll off when they must."""
        lines, columns = lines or self.lines, columns or self.columns
        while self.cursor.y >= lines:
            self.scrolled.append(self.display[0].rstrip())
            for y in range(self.lines):
                self.buffer[y] = self.buffer.pop(y + 1, self.buffer[self.lines])
            self.cursor.y -= 1
        for y in list(self.buffer):
            if y >= lines:
                del self.buffer[y]
            else:
                for x in [x for x in self.buffer[y] if x >= columns]:
                    del self.buffer[y][x]
        self.lines, self.columns = lines, columns
        self.cursor.x = min(self.cursor.x, columns - 1)
        self.margins = None

    def erase_in_line(self, *arguments: Any, **options: Any) -> None:
        self._touch()
        super().erase_in_line(*arguments, **options)

    def erase_in_display(self, *arguments: Any, **options: Any) -> None:
        self._touch()
        super().erase_in_display(*arguments, **options)

    def cursor_up(self, count: int | None = None) -> None:
        # A frame begins: what is above its first row is final.
        last = self.row()
        super().cursor_up(count)
        self.heights.append(last - self.row() + 1)
        self._fix(self.row())

    def reset_mode(self, *modes: int, **options: Any) -> None:
        super().reset_mode(*modes, **options)
        if _SYNCHRONIZED in modes:
            self.frames += 1
            # What wraps when the last frame is over is no longer the view's.
            self.wraps = list(self._wrapped)
            lines = [line.rstrip() for line in self.display]
            self.widths.append(max(map(len, lines)))
            self.views.append(lines)

    def _fix(self, top: int) -> None:
        for row in range(self._top, top):
            self.final[row] = self.text(row)
        self._top = max(self._top, top)

    def _touch(self) -> None:
        if self.row() < self._top:
            self.rewritten.append(f"row {self.row()}: {self.text(self.row())}")

    def changed(self) -> dict[int, tuple[str, str]]:
        """Rows that were final and have changed since: what they were and are."""
        return {
            row: (was, now) for row, was in self.final.items() if (now := self.text(row)) != was
        }


class Terminal:
    """A program in a pseudo-terminal.

    :param command: the program; its three standard files are the terminal.
    """

    def __init__(
        self, command: Sequence[str | Path], env: Mapping[str, str], columns: int, lines: int
    ) -> None:
        self.screen = Screen(columns, lines)
        self.raw = bytearray()
        self._stream = pyte.ByteStream(self.screen)
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (lines, columns))
        # Ctrl-C throws away what the terminal has not read yet. A real one reads at once; this one
        # reads when the test gets to it, and must not lose half a frame.
        modes = termios.tcgetattr(slave)
        modes[3] |= termios.NOFLSH
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, *map(str, command)],
            env={**env, "TERM": env.get("TERM", "xterm-256color")},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self._master)

    def type(self, keys: bytes) -> None:
        """Type keys."""
        os.write(self._master, keys)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        self.screen.resize(lines, columns)
        termios.tcsetwinsize(self._master, (lines, columns))

    def run_until(self, reached: Callable[[], bool], seconds: float = 120) -> None:
        """Read what the program writes until something is reached."""
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end, f"never reached; the screen: {self.screen.display}"
            if not self._read():
                assert reached(), f"ended before; the screen: {self.screen.transcript()}"
                return

    def run(self, seconds: float = 120) -> int:
        """Read until the program ends; its exit code."""
        end = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < end, f"does not end; the screen: {self.screen.display}"
        return self.process.wait(10)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 1.0)
        if not ready:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux's way to say that nobody has the other side open any more
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def modes(self) -> set[str]:
        """The private modes that the program set, but for that of synchronized updates."""
        found = {match.decode() for match in re.findall(rb"\x1b\[\?([0-9;]+)[hl]", self.raw)}
        return found - {str(_SYNCHRONIZED)}
