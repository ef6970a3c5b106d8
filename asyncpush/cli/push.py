"""``asyncpush push``: layouts to one repository."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click
from rich.console import Console

from asyncpush.cli.exitcodes import ExitCode, exit_code
from asyncpush.cli.output import print_json, print_preview, print_summary
from asyncpush.cli.progress import Lines, LiveView, View
from asyncpush.cli.run import run
from asyncpush.engine.events import Warned
from asyncpush.engine.journal import default_path, fingerprint, open_journal, remove_journal
from asyncpush.engine.options import PushOptions
from asyncpush.engine.preview import PushPreview
from asyncpush.engine.pusher import Pusher
from asyncpush.errors import UsageError
from asyncpush.oci.select import parse_platform
from asyncpush.plan.items import PushItem
from asyncpush.plan.limits import MIB
from asyncpush.plan.reference import parse_reference
from asyncpush.registries.ecr.session import AwsOptions

_DEFAULTS = PushOptions()


def _bounds(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that bound the engine, one for each field of PushOptions."""
    for name, unit, text in reversed(
        (
            ("images", "N", "images in flight"),
            ("layers", "N", "layers in flight, over all images"),
            ("parts", "N", "part uploads in flight, over all layers"),
            ("connections", "N", "open connections to each registry"),
            ("attempts", "N", "how often a call is tried"),
        )
    ):
        command = click.option(
            f"--{name}",
            type=click.IntRange(min=1),
            default=getattr(_DEFAULTS, name),
            metavar=unit,
            show_default=True,
            help=f"{text[0].upper()}{text[1:]}.",
        )(command)
    return command


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.argument("target")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Push that image of an index.")
@click.option("--profile", metavar="NAME", help="Profile of the shared AWS configuration.")
@click.option("--endpoint-url", metavar="URL", help="Address of the ECR API.")
@_bounds
@click.option(
    "--memory",
    type=click.IntRange(min=1),
    default=_DEFAULTS.memory // MIB,
    metavar="MIB",
    show_default=True,
    help="MiB of buffers for all that is in flight.",
)
@click.option(
    "--part-size",
    type=click.FloatRange(min=5, max=20),
    metavar="MIB",
    help="MiB of a part, 5 to 20; default: what the registry asks for.",
)
@click.option(
    "--quota",
    "quotas",
    multiple=True,
    metavar="CALL=RATE",
    help="Calls a second, such as PutImage=50; default: ECR's published quotas. Repeatable.",
)
@click.option(
    "--include-foreign", is_flag=True, help="Upload foreign (non-distributable) layers, too."
)
@click.option(
    "--on-refused",
    type=click.Choice(["fail", "warn"]),
    default="fail",
    show_default=True,
    help="When the registry does not take an artifact or an empty blob.",
)
@click.option(
    "--journal",
    "journal_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to note what is needed to go on after a kill; default: one for each job, in"
    " $XDG_STATE_HOME/asyncpush. It goes when all is pushed.",
)
@click.option("--no-journal", is_flag=True, help="Note nothing; half-sent layers begin again.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Also show layers, manifests and retries.")
@click.option("-q", "--quiet", is_flag=True, help="Show nothing but errors.")
@click.pass_context
def push(
    context: click.Context,
    sources: tuple[str, ...],
    target: str,
    *,
    platform: str | None,
    profile: str | None,
    endpoint_url: str | None,
    images: int,
    layers: int,
    parts: int,
    connections: int,
    attempts: int,
    memory: int,
    part_size: float | None,
    quotas: tuple[str, ...],
    include_foreign: bool,
    on_refused: Literal["fail", "warn"],
    journal_file: Path | None,
    no_journal: bool,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Push OCI layouts to an ECR repository.

    SOURCE is an OCI layout directory. All its entries are pushed; DIR:NAME or DIR@DIGEST chooses
    one. There may be several.

    TARGET is ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY[:TAG][@DIGEST] or a repository's ARN.
    Without a tag, each entry's name is its tag.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other")
    if journal_file and no_journal:
        raise UsageError("--journal and --no-journal exclude each other")
    parse_reference(target)
    if platform is not None:
        parse_platform(platform)
    options = PushOptions(
        images=images,
        layers=layers,
        parts=parts,
        connections=connections,
        attempts=attempts,
        memory=memory * MIB,
        part_size=None if part_size is None else round(part_size * MIB),
        quotas=dict(map(_parse_quota, quotas)),
        include_foreign=include_foreign,
        on_refused=on_refused,
        aws=AwsOptions(profile=profile, endpoint_url=endpoint_url),
    )
    items = [PushItem(source, target, platform) for source in sources]
    if dry_run:
        context.exit(_preview(items, options, as_json=as_json))
    view = choose_view(Console(file=sys.stderr), verbose=verbose, quiet=quiet or as_json)
    pusher = Pusher(options, on_event=view.show)
    job = fingerprint(items, endpoint_url)
    journal = None if no_journal else journal_file or _default_journal(job, view)

    async def work() -> None:
        async with contextlib.AsyncExitStack() as stack:
            notes = None
            if journal is not None:
                title = f"{' '.join(sources)} to {target}"
                notes = await stack.enter_async_context(open_journal(journal, job, title))
            await stack.enter_async_context(pusher)
            await pusher.push(items, notes)

    with view:
        run(work)
    if journal is not None and pusher.report.ok:
        remove_journal(journal)
    if as_json:
        print_json(pusher.report.to_dict())
    elif not quiet:
        print_summary(pusher.report)
    context.exit(exit_code(pusher.report))


def _default_journal(job: str, view: View) -> Path | None:
    """The job's own journal; where its folder cannot be had, a push does without."""
    path = default_path(job)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        view.show(Warned(f"no journal is kept: {path.parent}: {exc.strerror}"))
        return None
    return path


def _parse_quota(text: str) -> tuple[str, float]:
    call, _, rate = text.partition("=")
    try:
        return call, float(rate)
    except ValueError:
        raise UsageError(f"{text!r} is no quota", advice="write PutImage=50") from None


def choose_view(console: Console, *, verbose: bool, quiet: bool) -> View:
    """The view that fits where standard error goes."""
    if console.is_terminal and not quiet:
        return LiveView(console, verbose=verbose)
    return Lines(console, verbose=verbose, quiet=quiet)


def _preview(items: list[PushItem], options: PushOptions, *, as_json: bool) -> ExitCode:
    previews: list[PushPreview] = []

    async def work() -> None:
        async with Pusher(options) as pusher:
            previews.append(await pusher.preview(items))

    if not run(work):
        return ExitCode.INTERRUPTED
    (preview,) = previews
    if as_json:
        print_json(preview.to_dict())
    else:
        print_preview(preview)
    bad = preview.rejected or any(image.error for image in preview.images)
    return ExitCode.FAILED if bad else ExitCode.OK
