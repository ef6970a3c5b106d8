"""What the process's exit code says; part of the command line's contract (docs/cli.md)."""

from __future__ import annotations

from enum import IntEnum

from asyncpush.engine.results import PushReport
from asyncpush.engine.verify import VerifyReport
from asyncpush.errors import CredentialsError, UsageError
from asyncpush.replication.results import ReplicationReport


class ExitCode(IntEnum):
    """Exit codes of all commands."""

    OK = 0
    """All is in the registry: pushed, or there already."""
    FAILED = 1
    """At least one image failed, or the command could not do its work."""
    USAGE = 2
    """An option, a reference or an entry's name cannot be meant."""
    CREDENTIALS = 3
    """Credentials are missing, expired or not accepted; nothing was sent."""
    NOTHING_TO_DO = 4
    """A job was finished before: everything is in the registries, and no layer was uploaded."""
    REPLICATION_UNKNOWN = 5
    """All is in the registry; whether it is replicated could not be asked."""
    INTERRUPTED = 130
    """SIGINT or SIGTERM ended the command; the same command goes on where it was."""


def exit_code(report: PushReport) -> ExitCode:
    """The exit code that a report calls for."""
    if not report.complete:
        return ExitCode.INTERRUPTED
    failed = report.failed
    if not failed:
        return ExitCode.OK
    if report.only_credentials_failed:
        return ExitCode.CREDENTIALS
    if len(failed) == len(report.images) and all(isinstance(i.error, UsageError) for i in failed):
        return ExitCode.USAGE
    return ExitCode.FAILED


def replication_exit_code(report: ReplicationReport) -> ExitCode:
    """The exit code that waiting for replication calls for."""
    if not report.complete:
        return ExitCode.INTERRUPTED
    if report.ok:
        return ExitCode.OK
    return ExitCode.REPLICATION_UNKNOWN if report.only_unknown else ExitCode.FAILED


def verify_exit_code(report: VerifyReport) -> ExitCode:
    """The exit code that a verification calls for."""
    if not report.complete:
        return ExitCode.INTERRUPTED
    problems = [problem for verdict in report.verdicts for problem in verdict.problems]
    if not problems:
        return ExitCode.OK
    if all(isinstance(problem, CredentialsError) for problem in problems):
        return ExitCode.CREDENTIALS
    if all(isinstance(problem, UsageError) for problem in problems):
        return ExitCode.USAGE
    return ExitCode.FAILED
