"""``asyncpush check``: what would keep a push from succeeding, found before a byte moves."""

from __future__ import annotations

from typing import Any

import click

from asyncpush.check.findings import CheckReport, Subject
from asyncpush.check.run import check_plan, check_targets
from asyncpush.check.target import targets_of_references
from asyncpush.cli.check_text import print_check
from asyncpush.cli.chosen import require_images
from asyncpush.cli.completion import complete_files
from asyncpush.cli.exitcodes import ExitCode
from asyncpush.cli.jobs import is_job, read_job, selection_options
from asyncpush.cli.logs import configure_logging
from asyncpush.cli.options import (
    aws_of,
    aws_options,
    engine_options,
    log_options,
    push_options,
    source_aws_of,
    source_options,
)
from asyncpush.cli.output import print_json
from asyncpush.cli.run import run
from asyncpush.engine.planning import plan_items
from asyncpush.errors import UsageError
from asyncpush.plan.items import Item, PushItem
from asyncpush.plan.reference import Reference, parse_reference
from asyncpush.registries.base import RepositorySettings


@click.command()
@click.argument(
    "what", metavar="JOB.yaml|TARGET...", nargs=-1, required=True, shell_complete=complete_files
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="SOURCE",
    help="What would be pushed to the one TARGET; foresees conflicts and time. Repeatable.",
)
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="As for push, with --source.")
@aws_options
@source_options
@selection_options
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Show repositories without findings, too.")
@click.option("-q", "--quiet", is_flag=True, help="Show nothing but problems and warnings.")
@log_options
@engine_options
@click.pass_context
def check(context: click.Context, /, what: tuple[str, ...], **flags: Any) -> None:
    """Find out before a push what would keep it from succeeding.

    Looks for credentials and asks whose they are, whether the endpoints answer and the clock is
    right, whether each repository is there, which of the six actions are allowed as far as that can
    be known, and whether tags are taken in repositories that do not let them move. Nothing is
    changed anywhere.
    """
    configure_logging(quiet=flags["quiet"] or flags["as_json"])
    report = CheckReport()
    items: list[Item] = []
    references: list[Reference] = []
    if len(what) == 1 and is_job(what[0]):
        if flags["sources"] or flags["platform"]:
            raise UsageError("--source and --platform go with TARGET; a job has its own")
        job = read_job(what[0], flags)
        items = list(job.items())
        create = job.create
        base: dict[str, Any] = {**job.options, "registries": job.registries}
    else:
        references = [parse_reference(target) for target in what]
        if flags["sources"] and len(what) > 1:
            raise UsageError("--source goes with one TARGET", advice="write a job for several")
        if flags["settings"] or flags["only"] or flags["exclude"]:
            raise UsageError("--set, --only and --exclude go with JOB.yaml")
        items = [PushItem(source, what[0], flags["platform"]) for source in flags["sources"]]
        create = RepositorySettings()
        base = {"aws": aws_of(flags), "source_aws": source_aws_of(flags)}
    options = push_options(flags, **base, create=create if flags["create_repositories"] else None)

    async def work() -> None:
        if items:
            plan, rejected = await plan_items(items, options)
            require_images(plan, rejected, chosen=bool(flags["only"] or flags["exclude"]))
            await check_plan(plan, rejected, options, report)
        else:
            await check_targets(targets_of_references(references), options, report)

    run(work)
    if flags["as_json"]:
        print_json(report.to_dict())
    else:
        print_check(report, verbose=flags["verbose"], quiet=flags["quiet"])
    context.exit(_exit_code(report))


def _exit_code(report: CheckReport) -> ExitCode:
    if not report.complete:
        return ExitCode.INTERRUPTED
    problems = report.problems
    if not problems:
        return ExitCode.OK
    if all(problem.subject is Subject.CREDENTIALS for problem in problems):
        return ExitCode.CREDENTIALS
    return ExitCode.FAILED
