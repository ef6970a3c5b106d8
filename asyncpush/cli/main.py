"""The command ``asyncpush``: its commands, and one line and an exit code for every user's error."""

from __future__ import annotations

import errno
import logging
import os
import sys

import click

from asyncpush.cli.exitcodes import ExitCode
from asyncpush.cli.lazy import LazyGroup
from asyncpush.cli.logs import configure_logging
from asyncpush.cli.output import print_error
from asyncpush.errors import AsyncpushError, CredentialsError, DocumentError, UsageError

_COMMANDS = {
    "push": "asyncpush.cli.push:push",
    "copy": "asyncpush.cli.push:copy",
    "run": "asyncpush.cli.job:run_job",
    "plan": "asyncpush.cli.job:plan",
    "verify": "asyncpush.cli.verify:verify",
    "replication": "asyncpush.cli.replication:replication",
    "report": "asyncpush.cli.report:report",
    "check": "asyncpush.cli.check:check",
    "iam": "asyncpush.cli.iam:iam",
    "inspect": "asyncpush.cli.inspect:inspect",
    "schema": "asyncpush.cli.schema:schema",
    "serve": "asyncpush.cli.serve:serve",
    "demo": "asyncpush.cli.demo:demo",
    "completion": "asyncpush.cli.completion:completion",
}

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@click.group(
    cls=LazyGroup,
    commands_in=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="asyncpush")
def cli() -> None:
    """Push container images into Amazon ECR, many at once."""


def main() -> None:
    """Run the command line and end the process with its exit code."""
    _fill_standard_streams()
    sys.exit(_run())


def _fill_standard_streams() -> None:
    """Open those that the process was started without: 0 to 2 are no other file's numbers."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)  # noqa: FBT003 - it is positional alone
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - as long as we run


def _run() -> int:
    """Run the command line where somebody may have gone, or a disk be full, whom it writes to."""
    try:
        code = _run_command()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has gone; there is nobody left to tell.
        sys.stderr.close()
        return ExitCode.FAILED
    except OSError as exc:
        if exc.errno not in _CANNOT_WRITE or exc.filename is not None:
            raise
        print_error(f"standard output cannot be written: {exc.strerror}")
        # What is left in its buffer would fail once more when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitCode.FAILED
    return code


def _run_command() -> int:
    # botocore logs what it also raises, with a traceback; the error line says it once.
    logging.getLogger("botocore").addHandler(logging.NullHandler())
    logging.getLogger("aiobotocore").addHandler(logging.NullHandler())
    configure_logging()
    try:
        code = cli.main(prog_name="asyncpush", standalone_mode=False)
    except click.exceptions.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as exc:
        command = getattr(exc, "ctx", None)
        path = command.command_path if command else "asyncpush"
        print_error(f"{exc.format_message().rstrip('.')}; see {path} --help")
        return ExitCode.USAGE
    except AsyncpushError as exc:
        for problem in exc.problems if isinstance(exc, DocumentError) else [exc]:
            print_error(problem)
        if isinstance(exc, UsageError):
            return ExitCode.USAGE
        return ExitCode.CREDENTIALS if isinstance(exc, CredentialsError) else ExitCode.FAILED
    return int(code or 0)
