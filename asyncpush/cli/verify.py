"""``asyncpush verify``: are the registries holding what the layouts hold?"""

from __future__ import annotations

from typing import Any

import click

from asyncpush.cli.chosen import require_images
from asyncpush.cli.completion import complete_files
from asyncpush.cli.exitcodes import verify_exit_code
from asyncpush.cli.jobs import is_job, read_job, selection_options
from asyncpush.cli.logs import configure_logging
from asyncpush.cli.options import (
    aws_of,
    aws_options,
    engine_options,
    log_options,
    push_options,
    referrers_of,
    referrers_options,
    source_aws_of,
    source_options,
)
from asyncpush.cli.output import print_json, print_verdicts
from asyncpush.cli.run import run
from asyncpush.engine.pusher import Pusher
from asyncpush.engine.verify import VerifyReport
from asyncpush.errors import UsageError
from asyncpush.plan.items import Item, PushItem
from asyncpush.plan.reference import parse_reference


@click.command()
@click.argument(
    "what",
    metavar="JOB.yaml|SOURCE... TARGET",
    nargs=-1,
    required=True,
    shell_complete=complete_files,
)
@click.option("--deep", is_flag=True, help="Read every blob back and hash it.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="As for push.")
@referrers_options
@aws_options
@source_options
@selection_options
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Show nothing but what is wrong.")
@log_options
@engine_options
@click.pass_context
def verify(context: click.Context, /, what: tuple[str, ...], **flags: Any) -> None:
    """Prove that the registries hold what a job or a push sent there.

    Every manifest is compared byte for byte, every tag must point to its image, every blob must be
    there; --deep reads blobs back. On ECR this takes ecr:BatchGetImage, and --deep
    ecr:GetDownloadUrlForLayer.
    """
    configure_logging(quiet=flags["quiet"] or flags["as_json"])
    items: list[Item]
    if len(what) == 1 and is_job(what[0]):
        job = read_job(what[0], flags)
        if (types := referrers_of(flags)) is not None:
            job = job.with_referrers(types)
        items = list(job.items())
        options = push_options(flags, **job.options, registries=job.registries)
    elif len(what) == 1:
        raise UsageError(
            f"{what[0]!r} is no job file, and as a source it has no target",
            advice="give JOB.yaml, or SOURCE... TARGET",
        )
    else:
        parse_reference(what[-1])
        platform, referrers = flags["platform"], referrers_of(flags)
        items = [PushItem(source, what[-1], platform, referrers) for source in what[:-1]]
        options = push_options(flags, aws=aws_of(flags), source_aws=source_aws_of(flags))
    report = VerifyReport()

    async def work() -> None:
        async with Pusher(options) as pusher:
            plan, rejected = await pusher.plan(items)
            require_images(plan, rejected, chosen=bool(flags["only"] or flags["exclude"]))
            await pusher.verify(plan, rejected, deep=flags["deep"], report=report)

    run(work)
    if flags["as_json"]:
        print_json(report.to_dict())
    else:
        print_verdicts(report, quiet=flags["quiet"])
    context.exit(verify_exit_code(report))
