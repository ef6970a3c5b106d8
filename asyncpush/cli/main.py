"""The command ``asyncpush``: its commands, and one line and an exit code for every user's error."""

from __future__ import annotations

import logging
import sys

import click

from asyncpush.cli.completion import completion
from asyncpush.cli.demo import demo
from asyncpush.cli.exitcodes import ExitCode
from asyncpush.cli.iam import iam
from asyncpush.cli.inspect import inspect
from asyncpush.cli.job import plan, run_job
from asyncpush.cli.output import print_error
from asyncpush.cli.push import push
from asyncpush.cli.report import report
from asyncpush.cli.schema import schema
from asyncpush.cli.serve import serve
from asyncpush.cli.verify import verify
from asyncpush.errors import AsyncpushError, CredentialsError, UsageError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="asyncpush")
def cli() -> None:
    """Push container images into Amazon ECR, many at once."""


_COMMANDS = (
    push,
    run_job,
    plan,
    verify,
    report,
    iam,
    inspect,
    schema,
    serve,
    demo,
    completion,
)
for _command in _COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(_run())


def _run() -> int:
    # botocore logs what it also raises, with a traceback; the error line says it once.
    logging.getLogger("botocore").addHandler(logging.NullHandler())
    logging.getLogger("aiobotocore").addHandler(logging.NullHandler())
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as exc:
        print_error(f"{exc.format_message().rstrip('.')}; see asyncpush --help")
        return ExitCode.USAGE
    except AsyncpushError as exc:
        print_error(exc)
        if isinstance(exc, UsageError):
            return ExitCode.USAGE
        return ExitCode.CREDENTIALS if isinstance(exc, CredentialsError) else ExitCode.FAILED
    except BrokenPipeError:
        # Whoever read the output has gone; there is nobody left to tell.
        sys.stderr.close()
        return ExitCode.FAILED
    return int(code or 0)
