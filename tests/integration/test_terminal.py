"""The view in a real pseudo-terminal: pushes of hundreds of images, as an emulator sees them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Served, environment
from terminal import Terminal

from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

VIEW = re.compile(r"in flight, the oldest first|^ (images|bytes|tags) +[━─#.]|(gone|unknown) ")
LONG = "a-very-long-name-that-no-column-has-room-for-" * 3


def write_layout(folder: Path, count: int, *, names: tuple[str, ...] = ()) -> Path:
    """A layout of images that share a layer; the last ones have names of their own."""
    writer = LayoutWriter(folder)
    layer = writer.blob(os.urandom(100_000), mediatypes.OCI_LAYER)
    for i in range(count):
        writer.entry(writer.image([layer], config={"number": i}), f"v{i}")
    for name in names:
        writer.entry(writer.image([layer], config={"name": name}), name)
    return writer.close()


def variables(url: str, **more: str) -> dict[str, str]:
    """The environment of somebody who sits at a terminal."""
    found = environment(url)
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "LC_ALL", "LC_CTYPE", "TERM_PROGRAM", "TMUX"):
        found.pop(name, None)
    return {**found, "LANG": "C.UTF-8", **more}


def push(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "asyncpush", "push", *arguments]


@pytest.fixture
def well_behaved() -> Callable[[Terminal], None]:
    """What holds of every run, whatever it shows."""

    def check(terminal: Terminal) -> None:
        screen = terminal.screen
        assert screen.frames > 3
        assert screen.wraps == []
        assert screen.rewritten == []
        assert screen.changed() == {}
        assert terminal.modes() == set()
        left = [line for line in screen.transcript() if VIEW.search(line)]
        assert left == []

    return check


def test_500_images_at_80_by_24(
    tmp_path: Path, registry: Served, well_behaved: Callable[[Terminal], None]
) -> None:
    names = ("日本語のとても長い名前" * 12, f"not/a tag {LONG}")
    layout = write_layout(tmp_path / "layout", 498, names=names)
    target = registry.create("terminal/many")

    with Terminal(
        push(layout, target, "--quota", "PutImage=100"), variables(registry.url), 80, 24
    ) as terminal:
        code = terminal.run()

    well_behaved(terminal)
    screen = terminal.screen
    assert code == 1
    assert max(screen.widths) < 80
    assert max(screen.heights) <= 12
    shown = [line for view in screen.views for line in view]
    assert any("of 500" in line and "pushed" in line for line in shown)
    assert any(re.search(r"about 0:\d\d left", line) for line in shown)
    assert any(" terminal/many:v" in line and "%" in line for line in shown)
    # Errors stay, in full and folded; images that ended well are counted, not listed.
    transcript = screen.transcript()
    text = "".join(line.strip() for line in transcript).replace(" ", "")
    assert sum(line.startswith("error:") for line in transcript) == 2
    assert all(name.replace(" ", "") in text for name in names)
    assert not any(line.startswith("pushed ") for line in transcript)
    assert "500 images: 498 pushed, 2 failed" in " ".join(transcript)
    assert len(registry.digests("terminal/many")) == 498


@pytest.mark.parametrize(("columns", "lines"), [(40, 10), (200, 50)])
def test_other_sizes(
    tmp_path: Path,
    registry: Served,
    well_behaved: Callable[[Terminal], None],
    columns: int,
    lines: int,
) -> None:
    layout = write_layout(tmp_path / "layout", 60)
    target = registry.create(f"terminal/{LONG}{columns}"[:200])

    command = push(layout, target, "--quota", "PutImage=30")

    with Terminal(command, variables(registry.url), columns, lines) as terminal:
        code = terminal.run()

    well_behaved(terminal)
    assert code == 0
    assert max(terminal.screen.widths) < columns
    assert max(terminal.screen.heights) <= max(6, lines // 2)
    rows = [line for view in terminal.screen.views for line in view if re.search(r":v\d+ +", line)]
    assert rows, "no image was shown, or its tag was cut"
    assert any("…" in line for line in rows)


def test_a_terminal_that_shrinks_and_grows(
    tmp_path: Path, registry: Served, well_behaved: Callable[[Terminal], None]
) -> None:
    layout = write_layout(tmp_path / "layout", 80, names=("no tag: " + LONG,))
    target = registry.create("terminal/resized")
    sizes = [(45, 24), (120, 30), (60, 12), (80, 24)]

    with Terminal(push(layout, target), variables(registry.url), 100, 24) as terminal:
        screen = terminal.screen
        terminal.run_until(lambda: any("in flight" in line for line in screen.display))
        for columns, lines in sizes:
            terminal.resize(columns, lines)
            seen = screen.frames
            terminal.run_until(lambda seen=seen: screen.frames > seen + 1)
            rows = [line.rstrip() for line in screen.display if VIEW.search(line)]
            assert max(map(len, rows)) < columns
            wraps = len(screen.wraps)  # of frames that were on their way when the size changed
        code = terminal.run()

    assert code == 1
    assert len(screen.wraps) == wraps
    assert screen.rewritten == []
    assert terminal.modes() == set()
    assert [line for line in screen.display if VIEW.search(line)] == []


def test_ctrl_c_is_acknowledged_and_leaves_the_terminal_as_it_was(
    tmp_path: Path, registry: Served, well_behaved: Callable[[Terminal], None]
) -> None:
    layout = write_layout(tmp_path / "layout", 60)
    target = registry.create("terminal/interrupted")
    command = push(layout, target, "--quota", "PutImage=5")

    with Terminal(command, variables(registry.url), 80, 24) as terminal:
        screen = terminal.screen
        terminal.run_until(lambda: any(re.search(r"[1-9] of 60 ", x) for x in screen.display))
        terminal.type(b"\x03")
        code = terminal.run()

    well_behaved(terminal)
    assert code == 130
    frame = "\n".join(line for view in screen.views for line in view)
    assert "stopping; the same command goes on where it was" in frame
    assert "interrupted: the same command goes on with what is missing" in screen.transcript()
    assert "Traceback" not in "\n".join(screen.transcript())

    with Terminal(push(layout, target), variables(registry.url), 80, 24) as terminal:
        assert terminal.run() == 0
    wanted = {str(e.ref_name): e.digest for e in Layout(layout).entries}
    assert registry.digests("terminal/interrupted") == wanted


@pytest.mark.parametrize(
    ("settings", "colors", "ascii_only", "live"),
    [
        ({}, True, False, True),
        ({"NO_COLOR": "1"}, False, False, True),
        ({"LANG": "C"}, True, True, True),
        ({"TERM": "dumb"}, False, True, False),
        ({"CI": "true"}, True, True, False),
    ],
)
def test_what_a_terminal_can_show_is_respected(
    tmp_path: Path,
    registry: Served,
    settings: dict[str, str],
    colors: bool,
    ascii_only: bool,
    live: bool,
) -> None:
    layout = write_layout(tmp_path / "layout", 5)
    mark = "-".join(f"{k}{v}" for k, v in settings.items()).lower().replace("_", "") or "none"
    target = registry.create(f"terminal/{mark}")

    with Terminal(push(layout, target), variables(registry.url, **settings), 80, 24) as terminal:
        assert terminal.run() == 0

    text = terminal.raw.decode()
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", text)) == colors
    assert text.isascii() == ascii_only
    assert bool(terminal.screen.frames) == live
    assert len(re.findall(r"pushed(?:\x1b\[0m)?  ", text)) == 5
