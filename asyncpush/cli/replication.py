"""``asyncpush replication``: the group of its commands, and the options that all of them have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from asyncpush.cli.lazy import LazyGroup
from asyncpush.cli.options import aws_options

_COMMANDS = {
    "show": "asyncpush.cli.replication_rules:show",
    "plan": "asyncpush.cli.replication_rules:plan",
    "apply": "asyncpush.cli.replication_rules:apply",
    "wait": "asyncpush.cli.replication_wait:wait",
}


@click.group(cls=LazyGroup, commands_in=_COMMANDS)
def replication() -> None:
    """Show, plan and apply a registry's replication rules; wait for what they copy."""


def asking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all its commands: how AWS is asked, and how the answer is printed."""
    return aws_options(
        click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")(command)
    )
