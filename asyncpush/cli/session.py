"""One push from the command line: its view, its journal, its report, its exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from asyncpush.cli.chosen import require_images
from asyncpush.cli.exitcodes import ExitCode, exit_code, replication_exit_code, verify_exit_code
from asyncpush.cli.options import Output
from asyncpush.cli.output import (
    print_error,
    print_json,
    print_preview,
    print_summary,
    print_verdicts,
)
from asyncpush.cli.run import run
from asyncpush.cli.watch import Watch
from asyncpush.engine.events import Warned
from asyncpush.engine.journal import default_path, open_journal, remove_journal
from asyncpush.engine.log import log_event
from asyncpush.engine.options import PushOptions
from asyncpush.engine.preview import PushPreview
from asyncpush.engine.pusher import Pusher
from asyncpush.engine.replication_wait import DEFAULT_TIMEOUT, WaitOptions
from asyncpush.engine.results import ImageResult, PushReport
from asyncpush.engine.verify import VerifyReport
from asyncpush.errors import UsageError
from asyncpush.job.notes import Notes
from asyncpush.plan.graph import Plan
from asyncpush.plan.items import Item
from asyncpush.plan.shards import Shard
from asyncpush.replication.results import ReplicationReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a command pushes.

    :param items: what goes where.
    :param title: what people call it.
    :param fingerprint: what makes it the same job when the command is given again.
    :param strict: whether a source or target that cannot be meant stops all of it.
    :param shard: makes one machine's part of the plan; None is all of it.
    :param notes: what choosing has left out, once items are resolved; None where it never does.
    :param nothing_to_do: the exit code when everything was there before.
    :param whole: False if only a part of the job is pushed, so that its journal must stay.
    """

    items: Callable[[], Iterable[Item]]
    title: str
    fingerprint: str
    strict: bool = False
    shard: Callable[[Plan], Shard] | None = None
    whole: bool = True
    notes: Notes | None = None
    nothing_to_do: ExitCode = ExitCode.OK


def push_task(task: Task, options: PushOptions, output: Output) -> ExitCode:
    """Push, or show what would be pushed."""
    if output.dry_run:
        return _preview(task, options, output)
    _check_files(output)
    watch = Watch(output)
    pusher = Pusher(options, on_event=watch.take)
    journal = None if output.no_journal else output.journal or _default_journal(task)
    stopped: list[ExitCode] = []
    verified = VerifyReport()
    replicated = ReplicationReport()

    async def work() -> None:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(watch.running())
            notes = None
            if journal is not None:
                notes = await stack.enter_async_context(
                    open_journal(journal, task.fingerprint, task.title)
                )
            await stack.enter_async_context(pusher)
            # What is to be verified must be planned, unchanged or not.
            plan, rejected = await pusher.plan(task.items(), skip_unchanged=not output.verify)
            require_images(plan, rejected, chosen=not task.whole)
            if code := _refuse(task, options, rejected):
                stopped.append(code)
                return
            shard = task.shard(plan) if task.shard else Shard(plan, {})
            await pusher.push_plan(shard.plan, rejected, journal=notes, sharing=shard.sharing)
            if output.verify and pusher.report.ok:
                await pusher.verify(shard.plan, report=verified)
            if output.wait_for_replication:
                wait = WaitOptions(timeout=output.replication_timeout or DEFAULT_TIMEOUT)
                await pusher.wait_for_replication(wait, replicated)

    with watch.shown():
        run(work, watch.stop)
    if stopped:
        return stopped[0]
    waited = replicated if output.wait_for_replication else None
    watch.write_report(task.title, pusher.report, options, waited)
    _write_files(pusher.report, output)
    if journal is not None and pusher.report.ok and task.whole:
        remove_journal(journal)
    _print(pusher.report, verified, replicated, options, output)
    return _code(task, pusher.report, verified, replicated, output)


def _check_files(output: Output) -> None:
    """Find out before a push whether its references and lock could be written."""
    if paths := [path for path in (output.image_refs, output.lock) if path is not None]:
        from asyncpush.report.file import check_writable  # noqa: PLC0415 - costs, and few ask

        for path in paths:
            check_writable(path)


def _write_files(report: PushReport, output: Output) -> None:
    """Write references and lock, where they are asked for."""
    if output.image_refs is None and output.lock is None:
        return
    from asyncpush.report.refs import write_image_refs, write_lock  # noqa: PLC0415 - as above

    if output.image_refs is not None:
        write_image_refs(output.image_refs, report)
    if output.lock is not None and not write_lock(output.lock, report):
        log_event(Warned(f"no lock is written to {output.lock}: not all of it is there"))


def _print(
    report: PushReport,
    verified: VerifyReport,
    replicated: ReplicationReport,
    options: PushOptions,
    output: Output,
) -> None:
    """Write what came of a push, and of what was asked for beside it, to standard output."""
    if output.as_json:
        document = report.to_dict()
        if output.wait_for_replication:
            document["replication"] = replicated.to_dict()
        print_json(document)
        return
    if not output.quiet:
        print_summary(report, atomic=options.atomic)
    if output.verify and report.ok:
        print_verdicts(verified, quiet=output.quiet)
    if output.wait_for_replication and report.complete and not output.quiet:
        from asyncpush.cli.replication_text import print_replication  # noqa: PLC0415 - few ask

        print_replication(replicated)


def _code(
    task: Task,
    report: PushReport,
    verified: VerifyReport,
    replicated: ReplicationReport,
    output: Output,
) -> ExitCode:
    """The exit code that all of it calls for: first the push, then what was asked for beside it."""
    if not report.ok:
        return exit_code(report)
    if output.verify and not verified.ok:
        return verify_exit_code(verified)
    if output.wait_for_replication and not replicated.ok:
        return replication_exit_code(replicated)
    return task.nothing_to_do if report.nothing_to_do else exit_code(report)


def _refuse(task: Task, options: PushOptions, rejected: list[ImageResult]) -> ExitCode | None:
    """Stop before anything is sent where the job itself is wrong, or nothing could come of it."""
    wrong = [result for result in rejected if isinstance(result.error, UsageError)]
    if not task.strict:
        wrong = []
    if not wrong and not (options.atomic and rejected):
        return None
    for result in rejected:
        if result.error is not None:
            print_error(result.error, name=result.name, reference=result.reference)
    print_error("nothing was sent: all of the job must be right before any of it is pushed")
    return ExitCode.USAGE if wrong else ExitCode.FAILED


def _default_journal(task: Task) -> Path | None:
    """The job's own journal; where its folder cannot be had, a push does without."""
    path = default_path(task.fingerprint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        log_event(Warned(f"no journal is kept: {path.parent}: {exc.strerror}"))
        return None
    return path


def _notes_of(task: Task) -> dict[str, Any]:
    """What was left out, as a member of a JSON document."""
    return {} if task.notes is None else {"left_out": task.notes.to_dict()}


def _preview(task: Task, options: PushOptions, output: Output) -> ExitCode:
    previews: list[PushPreview] = []

    async def work() -> None:
        async with Pusher(options) as pusher:
            plan, rejected = await pusher.plan(task.items())
            require_images(plan, rejected, chosen=not task.whole)
            shard = task.shard(plan) if task.shard else Shard(plan, {})
            previews.append(await pusher.preview_plan(shard.plan, rejected))

    if not run(work):
        return ExitCode.INTERRUPTED
    (preview,) = previews
    if output.as_json:
        print_json(preview.to_dict() | _notes_of(task))
    else:
        print_preview(preview)
        for line in task.notes.lines() if task.notes is not None else ():
            click.echo(line)
    if task.strict and any(isinstance(r.error, UsageError) for r in preview.rejected):
        return ExitCode.USAGE
    bad = preview.rejected or any(image.error for image in preview.images)
    return ExitCode.FAILED if bad else ExitCode.OK
