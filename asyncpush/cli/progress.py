"""What a person sees while a push runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from asyncpush.cli.replication_text import replication_line
from asyncpush.cli.tracker import ActiveImage, Tracker
from asyncpush.engine.events import (
    CallRetried,
    Event,
    ImageFinished,
    LayerComplete,
    ManifestCommitted,
    PushPlanned,
    RepositoryCreated,
    TagsMoving,
    UploadResumed,
    Warned,
)
from asyncpush.engine.results import ImageResult, ImageStatus
from asyncpush.text import duration, plural, size

_STYLES = {
    ImageStatus.PUSHED: "green",
    ImageStatus.EXISTS: "cyan",
    ImageStatus.REFUSED: "yellow",
    ImageStatus.STAGED: "yellow",
    ImageStatus.FAILED: "red",
}
_MOST_ROWS = 8


class View(Protocol):
    """Something that shows events while its context is open."""

    def __enter__(self) -> View: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, event: Event) -> None:
        """Show one event."""
        ...


class Lines:
    """A line for each image that ends; with ``verbose`` also for layers, manifests and retries.

    :param console: where errors, warnings and lines go: standard error.
    :param quiet: show errors and warnings only.
    """

    def __init__(self, console: Console, *, verbose: bool = False, quiet: bool = False) -> None:
        self._console = console
        self._verbose = verbose
        self._quiet = quiet

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, event: Event) -> None:
        """Show one event."""
        line = describe(event, verbose=self._verbose, quiet=self._quiet)
        if line is not None:
            self._console.print(line, soft_wrap=True)


class LiveView:
    """A few lines that stay in place: overall progress and the images that are being pushed.

    Images that end scroll by above them, as in :class:`Lines`.
    """

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self._tracker = Tracker()
        self._verbose = verbose
        self._live = Live(self, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, value, traceback)

    def show(self, event: Event) -> None:
        """Show one event."""
        self._tracker.take(event)
        line = describe(event, verbose=self._verbose, quiet=False)
        if line is not None:
            self._live.console.print(line, soft_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.max_height if options.max_height < 1000 else console.height
        rows = max(0, min(_MOST_ROWS, height - 4))
        yield self._overall()
        if rows and self._tracker.active:
            yield self._images(rows)

    def _overall(self) -> Table:
        tracker = self._tracker
        left = tracker.seconds_left()
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(width=20)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        failed = tracker.ended[ImageStatus.FAILED]
        grid.add_row(
            f"{tracker.done}/{tracker.images} images",
            ProgressBar(total=max(tracker.total, 1), completed=tracker.there, width=20),
            f"{size(tracker.there)} of {size(tracker.total)}  {size(tracker.rate())}/s"
            + (f"  {duration(left)} left" if left is not None else "")
            + (f"  {failed} failed" if failed else "")
            + (f"  {tracker.retries} retries" if tracker.retries else ""),
        )
        return grid

    def _images(self, rows: int) -> Table:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, overflow="ellipsis", max_width=40)
        grid.add_column(width=20)
        grid.add_column(no_wrap=True)
        oldest = sorted(self._tracker.active.values(), key=lambda image: image.since)
        for image in oldest[:rows]:
            grid.add_row(*self._row(image))
        if len(oldest) > rows:
            grid.add_row(f"and {len(oldest) - rows} more in flight", "", "")
        return grid

    def _row(self, image: ActiveImage) -> tuple[str, ProgressBar, str]:
        there, total = self._tracker.progress(image)
        bar = ProgressBar(total=max(total, 1), completed=there, width=20)
        waiting = duration(time.monotonic() - image.since)
        return f"  {image.name}", bar, f"{size(there)} of {size(total)}  {waiting}"


def describe(event: Event, *, verbose: bool, quiet: bool) -> Text | None:
    """The line that an event is worth, or None."""
    match event:
        case ImageFinished():
            bad = event.result.status in (ImageStatus.FAILED, ImageStatus.REFUSED)
            return _image_line(event.result) if bad or not quiet else None
        case Warned():
            return Text(f"warning: {event.message}", style="yellow")
        case TagsMoving() if not quiet:
            return Text(f"everything is there by digest; moving {plural(event.tags, 'tag')}")
        case RepositoryCreated() if not quiet:
            return Text(f"created the repository {event.repository}")
        case PushPlanned() if not quiet:
            return Text(
                f"{plural(event.images, 'image')}: {plural(event.manifests, 'manifest')},"
                f" {plural(event.blobs, 'blob')}, {size(event.bytes)}"
            )
    return _detail(event) if verbose else replication_line(event, quiet=quiet)


def _detail(event: Event) -> Text | None:
    match event:
        case CallRetried():
            return Text(
                f"retry {event.attempt} of {event.call} in {event.delay:.2f} s: {event.error}",
                style="yellow",
            )
        case UploadResumed():
            return Text(f"resumed {event.digest} at {size(event.offset)} in {event.repository}")
        case LayerComplete():
            return Text(f"uploaded {event.digest} ({size(event.size)}) to {event.repository}")
        case ManifestCommitted():
            what = "found" if event.existed else "committed"
            tag = f" as {event.tag}" if event.tag else ""
            return Text(f"{what} {event.digest}{tag} in {event.repository}")
    return replication_line(event, quiet=False)


def _image_line(result: ImageResult) -> Text:
    style = _STYLES[result.status]
    if result.error is not None:
        word = "error" if result.status is ImageStatus.FAILED else "warning"
        line = Text(f"{word}: ", style=style)
        return line.append(f"{result.name} -> {result.reference}: {result.error}", style="default")
    line = Text(f"{result.status:<7}", style=style)
    sent = f"{size(result.bytes_sent)} sent, {duration(result.seconds)}"
    return line.append(f" {result.reference} ({sent})", style="default")
