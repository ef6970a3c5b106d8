"""``asyncpush replication wait``: until images are where their registries replicate them to."""

from __future__ import annotations

from typing import Any

import click

from asyncpush.cli.chosen import require_images
from asyncpush.cli.completion import complete_files
from asyncpush.cli.exitcodes import ExitCode, replication_exit_code
from asyncpush.cli.jobs import is_job, read_job, selection_options
from asyncpush.cli.logs import configure_logging
from asyncpush.cli.options import aws_of
from asyncpush.cli.output import print_error, print_json
from asyncpush.cli.replication import asking_options
from asyncpush.cli.replication_text import print_replication
from asyncpush.cli.run import run
from asyncpush.engine.log import log_event
from asyncpush.engine.options import PushOptions
from asyncpush.engine.pusher import Pusher
from asyncpush.engine.replication_wait import (
    DEFAULT_TIMEOUT,
    AwaitedImage,
    ReplicationWait,
    WaitOptions,
)
from asyncpush.errors import UsageError
from asyncpush.plan.reference import parse_reference
from asyncpush.replication.results import ReplicationReport


@click.command()
@click.argument(
    "what",
    metavar="JOB.yaml|REFERENCE...",
    nargs=-1,
    required=True,
    shell_complete=complete_files,
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=DEFAULT_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait at most.",
)
@selection_options
@click.option("-q", "--quiet", is_flag=True, help="Show nothing but errors.")
@asking_options
@click.pass_context
def wait(context: click.Context, /, what: tuple[str, ...], *, timeout: float, **flags: Any) -> None:
    """Wait until images are where the rules of their registries replicate them to.

    A job file stands for all its images; a REFERENCE is
    ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY with a tag or a digest. Takes
    ecr:DescribeRegistry and ecr:DescribeImageReplicationStatus, and can be interrupted and given
    again at any time.
    """
    quiet = flags["quiet"] or flags["as_json"]
    configure_logging(quiet=quiet)
    report = ReplicationReport()
    options = PushOptions(aws=aws_of(flags))
    images: list[AwaitedImage] = []
    items = None
    if len(what) == 1 and is_job(what[0]):
        job = read_job(what[0], flags)
        items = job.items()
        options = PushOptions(**job.options, registries=job.registries)
    else:
        images.extend(map(_awaited, what))
    rejected: list[str] = []

    async def work() -> None:
        if items is not None:
            async with Pusher(options) as pusher:
                planned, failed = await pusher.plan(items)
            require_images(planned, failed, chosen=bool(flags["only"] or flags["exclude"]))
            rejected.extend(f"{r.name} -> {r.reference}: {r.error}" for r in failed)
            images.extend(
                AwaitedImage(image.reference, image.repository, image.root)
                for image in planned.images()
            )
        await ReplicationWait(options, log_event, WaitOptions(timeout=timeout)).run(images, report)

    run(work)
    for line in rejected:
        print_error(line)
    if flags["as_json"]:
        print_json(report.to_dict())
    elif not quiet:
        print_replication(report)
    code = replication_exit_code(report)
    if report.only_credentials_failed:
        code = ExitCode.CREDENTIALS
    context.exit(ExitCode.FAILED if rejected and code is ExitCode.OK else code)


def _awaited(text: str) -> AwaitedImage:
    reference = parse_reference(text)
    image = reference.digest or reference.tag
    if image is None:
        raise UsageError(
            "the reference names no image", advice="give it a tag or a digest", reference=text
        )
    return AwaitedImage(text, reference.repository, image)
