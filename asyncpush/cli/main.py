"""The command ``asyncpush``: its commands, and one line and an exit code for every user's error."""

from __future__ import annotations

import logging
import sys

import click

from asyncpush.cli.exitcodes import ExitCode
from asyncpush.cli.lazy import LazyGroup
from asyncpush.cli.logs import configure_logging
from asyncpush.cli.output import print_error
from asyncpush.errors import AsyncpushError, CredentialsError, DocumentError, UsageError

_COMMANDS = {
    "push": "asyncpush.cli.push:push",
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
    sys.exit(_run())


def _run() -> int:
    # botocore logs what it also raises, with a traceback; the error line says it once.
    logging.getLogger("botocore").addHandler(logging.NullHandler())
    logging.getLogger("aiobotocore").addHandler(logging.NullHandler())
    configure_logging()
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as exc:
        print_error(f"{exc.format_message().rstrip('.')}; see asyncpush --help")
        return ExitCode.USAGE
    except AsyncpushError as exc:
        for problem in exc.problems if isinstance(exc, DocumentError) else [exc]:
            print_error(problem)
        if isinstance(exc, UsageError):
            return ExitCode.USAGE
        return ExitCode.CREDENTIALS if isinstance(exc, CredentialsError) else ExitCode.FAILED
    except BrokenPipeError:
        # Whoever read the output has gone; there is nobody left to tell.
        sys.stderr.close()
        return ExitCode.FAILED
    return int(code or 0)
