"""The view's frames, in an emulated terminal of every size, whatever a push is doing."""

from __future__ import annotations

import io
import logging
import os
import pty
import random
import signal
import termios
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text
from terminal import Screen

from asyncpush.cli.live import LiveView
from asyncpush.cli.region import Region, Row, reflows
from asyncpush.engine.events import (
    CallEnded,
    CallRetried,
    Event,
    ImageFinished,
    ImageReplicated,
    ImageStaged,
    ImageStarted,
    ImageVerified,
    ManifestCommitted,
    PartSent,
    PushPlanned,
    RegistryTotals,
    ReplicationAwaited,
    TagsMoving,
)
from asyncpush.engine.results import ImageResult, ImageStatus
from asyncpush.errors import RegistryError
from asyncpush.replication.results import ImageReplication
from asyncpush.telemetry.tracker import Tracker

HOSTS = [
    "111122223333.dkr.ecr.eu-central-1.amazonaws.com",
    "111122223333.dkr.ecr.us-east-1.amazonaws.com",
    "registry.example:5000",
]


class File(io.StringIO):
    """A terminal's file: what is written goes to an emulator, its size is a real terminal's."""

    encoding = "utf-8"

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__()
        self.screen = Screen(columns, lines)
        self._stream = pyte.Stream(self.screen)
        self._master, self._slave = pty.openpty()
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        if (columns, lines) != (self.screen.columns, self.screen.lines):
            self.screen.resize(lines, columns)
        termios.tcsetwinsize(self._slave, (lines, columns))

    def fileno(self) -> int:
        return self._slave

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        # The terminal driver makes a carriage return and a line feed of a line feed.
        self._stream.feed(text.replace("\r\n", "\n").replace("\n", "\r\n"))
        return len(text)

    def close(self) -> None:
        super().close()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture(autouse=True)
def unicode_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "NO_COLOR", "FORCE_COLOR", "TMUX", "TERM_PROGRAM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("TERM", "xterm-256color")


class Shown:
    """A view of a push that is told of by hand."""

    def __init__(self, columns: int, lines: int, **options: Any) -> None:
        self.file = File(columns, lines)
        self.screen = self.file.screen
        self.now = 0.0
        self.tracker = Tracker(clock=lambda: self.now)
        self.view = LiveView(Console(file=self.file), self.tracker, **options)

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def tell(self, *events: Event) -> None:
        for event in events:
            self.tracker.take(event)

    def frame(self) -> list[str]:
        self.view.draw()
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def log(self, result: ImageResult) -> None:
        failed = result.error is not None
        record = logging.LogRecord("asyncpush", 40 if failed else 20, "", 0, "m", (), None)
        record.event, record.fields = "image_finished", result.to_dict()
        words = f"error: {result.reference}: {result.error}" if failed else f"pushed {result.name}"
        self.view.above(record, Text(words))


def result(host: str, name: str, status: ImageStatus = ImageStatus.PUSHED) -> ImageResult:
    error = RegistryError("the repository does not exist", request_id="r" * 40)
    failed = status is ImageStatus.FAILED
    return ImageResult(name, f"{host}/app:{name}", "d", status, error=error if failed else None)


def planned(images: int, hosts: list[str]) -> PushPlanned:
    totals = RegistryTotals(images, images, images * 10**8, images)
    return PushPlanned(images * len(hosts), 1, images, images, 0, dict.fromkeys(hosts, totals))


def states(rng: random.Random) -> Iterator[Event]:
    """What a push may tell, in some order."""
    hosts = HOSTS[: rng.randint(1, 3)] + [f"r{i}.example" for i in range(rng.choice([0, 0, 9]))]
    yield planned(rng.choice([1, 40, 500, 100_000]), hosts)
    for i in range(rng.choice([0, 1, 5, 60])):
        host = rng.choice(hosts)
        path = rng.choice(["app", "team/service", "very/long/" * 20 + "name"])
        tag = rng.choice([f"v{i}", "x" * 300])
        reference = f"{host}/{path}{i}:{tag}"
        yield ImageStarted(reference, tag, f"{host}/{path}", {f"l{i}": rng.randint(0, 10**12)})
        if rng.random() < 0.5:
            yield PartSent(f"{host}/{path}", f"l{i}", 0, rng.randint(0, 10**12))
        if rng.random() < 0.3:
            rate = rng.uniform(0.1, 500)
            yield CallEnded("UploadLayerPart", f"{host}/{path}", "throttled", 0, 0, rate, 500.0)
            yield CallRetried("UploadLayerPart", f"{host}/{path}", "slow", 1, 1, throttled=True)
        if rng.random() < 0.2:
            error = RegistryError(rng.choice(["短い", "a reason that takes room " * 20]))
            yield ImageFinished(
                ImageResult("名前" * 30, reference, "d", ImageStatus.FAILED, error=error)
            )
    if rng.random() < 0.3:
        yield TagsMoving(rng.randint(1, 10**6))
        yield ManifestCommitted(f"{hosts[0]}/app", "d", "t", existed=False)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 220), st.integers(1, 60), st.integers(0, 10**9), st.booleans())
def test_no_frame_is_wider_or_higher_than_it_may_be(
    columns: int, lines: int, seed: int, stopping: bool
) -> None:
    with Shown(columns, lines) as shown:
        for event in states(random.Random(seed)):
            shown.tell(event)
            shown.now += 0.7
        if stopping:
            shown.view.stop()
        rows = shown.frame()
        shown.frame()

        assert shown.screen.wraps == []
        assert all(len(line) < max(2, columns) for line in rows)
        assert len(rows) <= max(1, min(lines - 1, max(6, lines // 2), 18))
        shown.view.close()
        assert "".join(shown.screen.display).strip() == ""


def test_a_frame_at_80_columns() -> None:
    with Shown(80, 24) as shown:
        shown.tell(planned(250, HOSTS[:2]))
        for i in range(40):
            host = HOSTS[i % 2]
            shown.tell(ImageStarted(f"{host}/app:v{i}", f"v{i}", f"{host}/app", {f"l{i}": 10**7}))
        shown.now = 20.0
        for i in range(20):
            shown.tell(PartSent(f"{HOSTS[i % 2]}/app", f"l{i}", 0, 5 * 10**6))
        shown.tell(
            PartSent(f"{HOSTS[1]}/app", "l1", 5 * 10**6, 5 * 10**6),
            ImageFinished(result(HOSTS[0], "v38")),
            ImageFinished(result(HOSTS[1], "v39", ImageStatus.FAILED)),
            CallEnded("PutImage", f"{HOSTS[0]}/app", "throttled", 0, 0, 7.0, 10.0),
            CallRetried("PutImage", f"{HOSTS[0]}/app", "slow", 1, 1, throttled=True),
        )
        shown.now = 25.0
        rows = shown.frame()

    assert rows[0].startswith(" images  ─")
    assert rows[0].endswith("2 of 500  1 failed  1 pushed")
    assert rows[1].endswith("100.1 MiB of 46.6 GiB  20.0 MiB/s")
    assert rows[2].split("  ")[1:] == ["0:25 gone", "1 throttled"]
    assert "#1 111122223333 eu-central-1  1 of 250" in rows[3]
    assert "#2 111122223333 us-east-1     1 of 250" in rows[4]
    assert rows[5] == " #1 throttled PutImage 1 times  now at 7.0 of 10/s"
    assert rows[6] == " failed app:v39: the repository does not exist"
    assert rows[7] == " 38 in flight, the oldest first"
    assert rows[8].split() == [
        "#1",
        "app:v0",
        "━━━━────",
        "50%",
        "9.5",
        "MiB",
        "195.3",
        "KiB/s",
        "0:25",
    ]
    assert rows[9].split() == [
        "#2",
        "app:v1",
        "━━━━━━━━",
        "100%",
        "9.5",
        "MiB",
        "committing",
        "0:25",
    ]


def test_an_atomic_push_shows_what_is_staged_and_which_tags_moved() -> None:
    with Shown(80, 24) as shown:
        shown.tell(planned(50, HOSTS[:1]))
        for i in range(20):
            reference = f"{HOSTS[0]}/app:v{i}"
            shown.tell(ImageStarted(reference, f"v{i}", f"{HOSTS[0]}/app", {}))
            shown.tell(ImageStaged(reference, f"{HOSTS[0]}/app"))
        assert "20 of 50 staged" in shown.frame()[0]
        shown.tell(TagsMoving(50), ManifestCommitted(f"{HOSTS[0]}/app", "d", "v0", existed=False))
        assert shown.frame()[0].startswith(" tags ")
        assert "1 of 50 moved" in shown.frame()[0]


def test_what_is_asked_for_after_a_push_is_counted_too() -> None:
    with Shown(80, 24) as shown:
        shown.tell(planned(50, HOSTS[:1]))
        assert not any(line.startswith((" verified", " replicated")) for line in shown.frame())
        image = ImageReplication("r", "d", error=RegistryError("unknown"))
        shown.tell(ImageVerified("v", "r", "d", ()), ReplicationAwaited(HOSTS[0], 40, 10))
        shown.tell(ImageReplicated(image), ImageReplicated(ImageReplication("r", "d")))
        rows = shown.frame()
    assert rows[2].startswith(" verified  ─")
    assert rows[2].endswith("  1 of 50")
    assert rows[3].endswith("  1 of 40")


def test_what_stands_still_is_marked() -> None:
    with Shown(80, 24) as shown:
        shown.tell(planned(1, HOSTS[:1]))
        shown.tell(ImageStarted(f"{HOSTS[0]}/app:v", "v", f"{HOSTS[0]}/app", {"l": 100}))
        assert "waiting" in shown.frame()[-1]
        shown.now = 5.0
        shown.tell(PartSent(f"{HOSTS[0]}/app", "l", 0, 50))
        assert "10 B/s" in shown.frame()[-1]
        shown.now = 50.0
        assert "idle 0:45" in shown.frame()[-1]


def test_of_many_images_only_what_went_wrong_scrolls_by() -> None:
    with Shown(80, 24) as shown:
        shown.tell(planned(500, HOSTS[:1]))
        for i in range(100):
            shown.log(result(HOSTS[0], f"v{i}"))
        shown.log(result(HOSTS[0], "bad", ImageStatus.FAILED))
        shown.frame()
        text = shown.screen.transcript()
    assert not any(line.startswith("pushed") for line in text)
    assert any(line.startswith("error: ") for line in text)


def test_of_few_images_each_has_a_line() -> None:
    with Shown(80, 24) as shown:
        shown.tell(planned(5, HOSTS[:1]))
        for i in range(5):
            shown.log(result(HOSTS[0], f"v{i}"))
        shown.frame()
        assert sum(line.startswith("pushed") for line in shown.screen.transcript()) == 5


def test_what_is_wrong_with_a_repository_is_said_once_in_full() -> None:
    with Shown(80, 24) as shown:
        shown.tell(planned(500, HOSTS[:1]))
        for i in range(30):
            shown.log(result(HOSTS[0], f"v{i}", ImageStatus.FAILED))
        shown.frame()
        lines = shown.screen.transcript()
    assert sum("request id" in line for line in lines) == 1
    short = [line for line in lines if line.endswith(": registry, as above")]
    assert len(short) == 29
    assert all(f":v{i}: registry" in line for i, line in enumerate(short, 1))


def test_lines_above_are_never_rewritten_while_the_view_grows_and_shrinks() -> None:
    rng = random.Random(3)
    with Shown(80, 24) as shown:
        shown.tell(planned(500, HOSTS))
        expected = []
        for i in range(200):
            host = rng.choice(HOSTS)
            if rng.random() < 0.5:
                shown.tell(ImageStarted(f"{host}/app:v{i}", "v", f"{host}/app", {f"l{i}": 9}))
            elif rng.random() < 0.5 and shown.tracker.active:
                name = next(iter(shown.tracker.active)).rpartition(":")[2]
                shown.tell(ImageFinished(result(host, name)))
            if rng.random() < 0.5:
                record = logging.LogRecord("asyncpush", 30, "", 0, "m", (), None)
                expected.append(f"warning: number {i}")
                shown.view.above(record, Text(expected[-1]))
            shown.frame()
        shown.view.close()
        assert shown.screen.wraps == shown.screen.rewritten == []
        assert shown.screen.changed() == {}
        assert shown.screen.transcript() == [*expected, ""]


def test_names_cannot_act_on_the_terminal() -> None:
    with Shown(80, 24) as shown:
        shown.tell(planned(1, HOSTS[:1]))
        bad = ImageResult(
            "x",
            "evil\x1b[2J\x1b]0;title\x07\nname",
            "d",
            ImageStatus.FAILED,
            error=RegistryError("also \x1b[31m evil"),
        )
        shown.tell(ImageFinished(bad))
        rows = shown.frame()
        assert shown.screen.title == ""
    assert rows[-1].startswith(r" failed evil\x1b[2J")
    assert rows[-1].endswith(r"also \x1b[31m evil")


@pytest.mark.parametrize(
    ("reflow", "columns", "up"),
    [(False, 50, 2), (True, 50, 2 + 2), (True, 200, 2), (True, 100, 2)],
)
def test_the_way_to_the_top_counts_lines_that_were_broken_again(
    reflow: bool, columns: int, up: int
) -> None:
    file = File(100, 24)
    region = Region(file, reflow=reflow)
    rows = [Row("a" * 90, 90), Row("b" * 51, 51), Row("c" * 90, 90)]
    region.draw(rows)
    file.resize(columns, 24)
    written: list[str] = []
    file.write = lambda text: written.append(text) or len(text)  # type: ignore[method-assign, func-returns-value]
    region.clear()
    file.close()
    assert f"\x1b[{up}A" in written[0]


@pytest.mark.anyio
async def test_after_a_stop_the_view_begins_anew_and_leaves_what_others_wrote() -> None:
    before = signal.getsignal(signal.SIGCONT)
    with Shown(80, 24) as shown:
        shown.tell(planned(500, HOSTS[:1]))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(shown.view.run)
            with anyio.fail_after(30):
                while not shown.screen.frames:
                    await anyio.sleep(0.01)
                shown.file.write("\n$ the shell's own line\n")
                os.kill(os.getpid(), signal.SIGCONT)
                seen = shown.screen.frames
                while shown.screen.frames < seen + 2:
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        shown.view.close()
        assert "$ the shell's own line" in shown.screen.transcript()
    assert signal.getsignal(signal.SIGCONT) is before


def test_terminals_that_break_lines_again_are_known() -> None:
    assert reflows({"TMUX": "/tmp/tmux-0/default,1,0"})
    assert reflows({"TERM_PROGRAM": "iTerm.app"})
    assert not reflows({"TERM": "xterm-256color", "TMUX": ""})


def test_a_frame_costs_little_with_thousands_of_images_in_flight() -> None:
    with Shown(120, 40) as shown:
        shown.tell(planned(5000, HOSTS))
        for i in range(6000):
            host = HOSTS[i % 3]
            blobs = {f"l{i}-{j}": 10 for j in range(20)}
            shown.tell(ImageStarted(f"{host}/app:v{i}", "v", f"{host}/app", blobs))
        shown.frame()
        looked_at: list[str] = []
        standing = Tracker.standing
        shown.tracker.__class__ = type(
            "Counting",
            (Tracker,),
            {
                "__slots__": (),
                "standing": lambda self, image: (
                    looked_at.append(image.reference),
                    standing(self, image),
                )[1],
            },
        )
        begin = time.process_time()
        for _ in range(10):
            shown.view._rows(119, 40)
            list(shown.view._rows(119, 40))
        seconds = (time.process_time() - begin) / 10
    assert len(set(looked_at)) <= 18
    assert seconds < 0.1
