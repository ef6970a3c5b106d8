"""What a person sees while a push runs: rows that stay in place, and what matters above them."""

from __future__ import annotations

import itertools
import logging
import os
import re
import signal
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

import anyio
from rich.console import Console
from rich.text import Text

from asyncpush.cli.fit import Cell, bar, charset, cut, fold, row, shorten
from asyncpush.cli.heartbeat import pace_of
from asyncpush.cli.region import Region, Row, reflows
from asyncpush.engine.events import host_of, repository_of
from asyncpush.engine.results import ImageResult, ImageStatus
from asyncpush.errors import printable
from asyncpush.telemetry.tracker import ActiveImage, RegistryState, Tracker
from asyncpush.text import clock, plural, size, size_of

_REFRESH = 0.2
# A push of fewer images gets a line for each; of more, those that ended well are only counted.
_FEW = 40
_MOST_ROWS = 18
_MOST_REGISTRIES = 4
_MOST_THROTTLES = 4
_IDLE = 30.0
_DIGEST = len("sha256:") + 12
_ECR_HOST = re.compile(r"([0-9]{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.")
_STOPPING = "stopping; the same command goes on where it was"


class LiveView:
    """A push at a glance: how far it is, how fast, what is slow, what is throttled, what failed.

    :param console: the terminal that standard error is.
    :param verbose: also tell of every image, however many there are.
    """

    def __init__(self, console: Console, tracker: Tracker, *, verbose: bool = False) -> None:
        self._console = console
        self._tracker = tracker
        self._verbose = verbose
        self._region = Region(console.file, reflow=reflows(os.environ))
        self._characters = charset(console.encoding, os.environ)
        self._above: list[Text] = []
        self._said: set[tuple[str, str]] = set()
        self._stopping = False

    async def run(self) -> None:
        """Draw the view until cancelled."""
        # Whoever stopped the process with Ctrl-Z has written to the terminal meanwhile.
        before = signal.signal(signal.SIGCONT, lambda *_: self._region.forget())
        try:
            while True:
                self.draw()
                await anyio.sleep(_REFRESH)
        finally:
            signal.signal(signal.SIGCONT, before)

    def above(self, record: logging.LogRecord, line: Text) -> None:
        """Let a line of the log scroll by above the view with its next frame.

        Of many images, those that ended well would only push what matters off the screen, and what
        is wrong with a repository need not be said in full for each image that goes there.
        """
        if getattr(record, "event", "") == "image_finished" and not self._verbose:
            result = getattr(record, "fields", {})
            if result["error"] is not None:
                line = self._said_once(result, line)
            elif self._tracker.images > _FEW:
                return
        self._above.append(line)

    def _said_once(self, result: Mapping[str, Any], line: Text) -> Text:
        """The line of a failed image, or a shorter one if that was said of another one before."""
        reference, error = result["reference"], result["error"]
        key = (repository_of(reference), error["message"])
        if key not in self._said:
            self._said.add(key)
            return line
        level, why = line.plain.partition(" ")[0], f": {error['kind']}, as above"
        columns, _ = self._region.size()
        room = max(20, columns - 4 - len(level) - len(why))
        where = shorten(printable(reference), room, self._characters.ellipsis)
        return Text.assemble(line[: len(level)], f" {where}{why}")

    def stop(self) -> None:
        """Say at once that the push is being stopped."""
        self._stopping = True
        self.draw()

    def draw(self) -> None:
        """Draw one frame."""
        columns, height = self._region.size()
        rows = list(itertools.islice(self._rows(columns - 1, height), _budget(height)))
        lines = self._styled(rows).splitlines() if rows else []
        widths = (text.cell_len for text in rows)
        self._region.draw([Row(*pair) for pair in zip(lines, widths, strict=True)], self._flush())

    def close(self) -> None:
        """Take the view away; the lines above it stay."""
        self._region.clear(self._flush())

    def _flush(self) -> list[str]:
        columns, _ = self._region.size()
        lines = [part for line in self._above for part in fold(line, columns - 1, self._console)]
        self._above.clear()
        return self._styled(lines).splitlines() if lines else []

    def _styled(self, lines: list[Text]) -> str:
        with self._console.capture() as capture:
            self._console.print(Text("\n").join(lines), soft_wrap=True)
        return capture.get()

    def _rows(self, columns: int, height: int) -> Iterator[Text]:
        tracker = self._tracker
        if not tracker.planned:
            reading = Cell(Text("reading the sources"))
            yield row([reading, Cell(Text(clock(tracker.seconds)))], columns)
            return
        yield from self._totals(columns)
        yield row(self._status(), columns)
        several = len(tracker.registries) > 1
        if several:
            yield from self._registries(columns)
        tall = height >= 30
        most = _MOST_THROTTLES if tall else _MOST_THROTTLES // 2
        for registry, name, call in itertools.islice(tracker.slowed(), most):
            mark = f"#{registry.number} " if several else ""
            text = f"{mark}throttled {name} {call.throttles} times"
            pace = Text(pace_of(call), style="yellow")
            yield row([Cell(Text(text, style="yellow")), Cell(pace)], columns)
        failures = list(tracker.failures.values())
        for result in reversed(failures if tall else failures[-1:]):
            yield self._failure(result, columns)
        yield from self._in_flight(columns, _budget(height), marked=several)

    def _totals(self, columns: int) -> Iterator[Text]:
        tracker = self._tracker
        failed = tracker.ended[ImageStatus.FAILED]
        counts = [
            f"{tracker.ended[status]:,} {word}"
            for status, word in (
                (ImageStatus.PUSHED, "pushed"),
                (ImageStatus.EXISTS, "there"),
                (ImageStatus.REFUSED, "refused"),
                (ImageStatus.STAGED, "staged"),
            )
            if tracker.ended[status]
        ]
        what, done, images, doing = "images", tracker.done, tracker.images, ""
        if tracker.tags is not None:
            what, done, images, doing = "tags", tracker.tags_moved, tracker.tags, " moved"
        elif tracker.staged:
            done, doing = done + tracker.staged, " staged"
        yield self._measure(
            columns,
            f"{what:<6}",
            (done, images),
            "cyan",
            Cell(Text(f"{done:,} of {images:,}{doing}")),
            Cell(Text(f"{failed:,} failed" if failed else "", style="bold red"), 1),
            Cell(Text(", ".join(counts)), 2),
        )
        yield self._measure(
            columns,
            "bytes ",
            (tracker.there, tracker.bytes),
            "green",
            Cell(Text(size_of(tracker.there, tracker.bytes))),
            Cell(Text(f"{size(tracker.rate())}/s"), 1),
        )
        for name, part, whole in (
            ("verified", tracker.verified, tracker.images if tracker.verified else 0),
            ("replicated", tracker.replicated, tracker.awaited),
        ):
            if whole:
                figure = Cell(Text(f"{part:,} of {whole:,}"))
                yield self._measure(columns, name, (part, whole), "cyan", figure)

    def _measure(
        self, columns: int, name: str, counted: tuple[int, int], style: str, *figures: Cell
    ) -> Text:
        """What is counted, with a bar."""
        width = min(columns // 3, 40) if columns >= 60 else 0
        title, filled = Cell(Text(name, style="bold")), self._bar(*counted, width, style)
        return row([title, Cell(filled, 3), *figures], columns)

    def _bar(self, part: int, whole: int, columns: int, style: str) -> Text:
        return bar(part / whole if whole else 0.0, columns, self._characters, style)

    def _status(self) -> list[Cell]:
        tracker = self._tracker
        if self._stopping:
            return [Cell(Text(_STOPPING, style="bold yellow"))]
        forecast = tracker.forecast()
        left = f"about {clock(ceil(forecast.seconds))} left" if forecast else "time left unknown"
        held = f"held by PutImage at {forecast.pace:.1f}/s" if forecast and forecast.pace else ""
        return [
            Cell(Text(left)),
            Cell(Text(f"{clock(tracker.seconds)} gone"), 1),
            Cell(Text(held), 3),
            Cell(Text(plural(tracker.retries, "call") + " retried" if tracker.retries else ""), 2),
            Cell(Text(f"{tracker.throttles} throttled" if tracker.throttles else ""), 2),
        ]

    def _registries(self, columns: int) -> Iterator[Text]:
        now = self._tracker.clock()
        rated = [
            (forecast.seconds if (forecast := one.forecast(now)) else None, one)
            for one in self._tracker.registries.values()
        ]
        most = min(len(rated), _MOST_REGISTRIES)
        if most < len(rated):
            # Those that take longest are shown; those of which nobody knows count as such.
            rated.sort(key=lambda pair: (pair[0] is not None, -(pair[0] or 0.0)))
        labels = [_label(one.host) for _, one in rated[:most]]
        wide = min(max(map(len, labels)), max(12, columns // 3))
        for (left, one), label in zip(rated, labels, strict=False):
            yield row(self._registry(one, left, label, wide), columns)
        if len(rated) > most:
            more = plural(len(rated) - most, "registry").replace("registrys", "registries")
            yield row([Cell(Text(f"   and {more} more", style="bright_black"))], columns)

    def _registry(
        self, one: RegistryState, left: float | None, label: str, wide: int
    ) -> list[Cell]:
        name = shorten(label, wide, self._characters.ellipsis)
        ended = one.ended >= one.images
        return [
            Cell(Text(f"#{one.number} {name}{' ' * (wide - len(name))}", style="cyan")),
            Cell(Text(f"{one.ended:,} of {one.images:,}")),
            Cell(Text(size_of(one.there, one.bytes)), 2),
            Cell(Text("" if ended else f"{size(one.sending.rate(self._tracker.clock()))}/s"), 3),
            Cell(
                Text("done" if ended else f"{clock(ceil(left))} left" if left is not None else ""),
                1,
            ),
        ]

    def _failure(self, result: ImageResult, columns: int) -> Text:
        assert result.error is not None, "what failed has an error"
        name = shorten(_short(result.reference), max(10, columns // 3), self._characters.ellipsis)
        text = printable(f"{name}: {result.error.message}")
        text = cut(text, max(1, columns - 9), self._characters.ellipsis)
        return row([Cell(Text.assemble(("failed ", "red"), text))], columns)

    def _in_flight(self, columns: int, budget: int, *, marked: bool) -> Iterator[Text]:
        tracker = self._tracker
        if not tracker.active:
            return
        heading = f"{len(tracker.active)} in flight, the oldest first"
        yield row([Cell(Text(heading, style="bright_black"))], columns)
        for image in itertools.islice(tracker.active.values(), budget):
            yield self._image(image, columns, marked=marked)

    def _image(self, image: ActiveImage, columns: int, *, marked: bool) -> Text:
        standing = self._tracker.standing(image)
        there, total = standing.there, standing.total
        if there >= total:
            doing, style = "committing", "cyan"
        elif there == image.begun_with:
            doing, style = "waiting", "bright_black"
        elif standing.idle >= _IDLE:
            doing, style = f"idle {clock(standing.idle)}", "yellow"
        else:
            doing, style = f"{size(standing.rate)}/s", ""
        percent = 100 * there // total if total else 100
        figures = [Text(f"{percent:>3}%")]
        if columns >= 64:
            figures.insert(0, self._bar(there, total, 8 if columns < 100 else 24, "green"))
            figures.append(Text(f"{size(total):>10}"))
        if columns >= 50:
            figures.append(Text(f"{doing:>12}", style=style))
        figures.append(Text(f"{clock(standing.seconds):>7}"))
        taken = sum(text.cell_len + 2 for text in figures) + 1
        name = _short(image.reference)
        if marked:
            name = f"#{self._tracker.registries[host_of(image.reference)].number} {name}"
        room = max(8, columns - taken)
        name = shorten(name, room, self._characters.ellipsis)
        cells = [Cell(Text(name + " " * (room - len(name))))]
        return row([*cells, *(Cell(text, 1) for text in figures)], columns)


def wants_live_view(console: Console) -> bool:
    """Whether somebody looks at a terminal that can be drawn on.

    Services of continuous integration may give their jobs a terminal; what it shows ends in a log.
    """
    if not console.file.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return False
    return os.environ.get("CI", "").lower() in ("", "0", "false")


def _budget(height: int) -> int:
    """Rows that the view may take: half of the terminal, on a small one a little more."""
    return max(1, min(height - 1, max(6, height // 2), _MOST_ROWS))


def _label(host: str) -> str:
    match = _ECR_HOST.match(host)
    return f"{match[1]} {match[2]}" if match else host


def _short(reference: str) -> str:
    """A reference without its host, and with the beginning of its digest."""
    path = reference.partition("/")[2] or reference
    name, at, digest = path.partition("@")
    return f"{name}{at}{digest[:_DIGEST]}"
