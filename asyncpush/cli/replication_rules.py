"""``asyncpush replication show|plan|apply``: a registry's rules, and those of a file."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click

from asyncpush.cli.exitcodes import ExitCode
from asyncpush.cli.options import aws_of
from asyncpush.cli.output import print_json
from asyncpush.cli.replication import asking_options
from asyncpush.cli.replication_text import describe_rule, print_difference, print_policy
from asyncpush.cli.run import run
from asyncpush.engine.events import Event
from asyncpush.engine.options import PushOptions
from asyncpush.engine.replication import RegistryReplication, open_replication
from asyncpush.errors import AsyncpushError, UsageError
from asyncpush.plan.reference import Registry
from asyncpush.replication.difference import Difference, compare
from asyncpush.replication.load import ReplicationFile, load_replication, parse_source
from asyncpush.replication.policy import destination_policies
from asyncpush.replication.rules import Rule, write_rules
from asyncpush.text import plural


@click.command()
@click.argument("registry")
@asking_options
@click.pass_context
def show(context: click.Context, /, registry: str, **flags: Any) -> None:
    """Show the replication rules of a registry (takes ecr:DescribeRegistry).

    REGISTRY is a host such as ACCOUNT.dkr.ecr.REGION.amazonaws.com.
    """
    source = parse_source(registry)
    rules: list[Rule] = []

    async def work(calls: RegistryReplication) -> None:
        rules.extend(await calls.rules())

    if not _with_registry(source, flags, work):
        context.exit(ExitCode.INTERRUPTED)
    if flags["as_json"]:
        print_json({"registry": source.host, "replicationConfiguration": write_rules(rules)})
        return
    nothing = "" if rules else ", nothing is replicated"
    click.echo(f"{source}: {plural(len(rules), 'rule')}{nothing}")
    for rule in rules:
        click.echo(f"  {describe_rule(rule)}")


@click.command()
@click.argument("rules", metavar="RULES.yaml", type=click.Path(path_type=Path))
@asking_options
@click.pass_context
def plan(context: click.Context, /, rules: Path, **flags: Any) -> None:
    """Show what would change in a registry's rules to be as a file has them.

    Prints also the registry policies that destinations in other accounts need. Takes
    ecr:DescribeRegistry and changes nothing.
    """
    wanted = load_replication(rules)
    found: list[Difference] = []

    async def work(calls: RegistryReplication) -> None:
        found.append(compare(await calls.rules(), wanted.rules))

    if not _with_registry(wanted.registry, flags, work):
        context.exit(ExitCode.INTERRUPTED)
    _print_plan(wanted, found[0], as_json=flags["as_json"])


@click.command()
@click.argument("rules", metavar="RULES.yaml", type=click.Path(path_type=Path))
@click.option("-y", "--yes", is_flag=True, help="Apply without asking.")
@asking_options
@click.pass_context
def apply(context: click.Context, /, rules: Path, *, yes: bool, **flags: Any) -> None:
    """Let a registry have the replication rules of a file, and no others.

    Shows the difference and asks before anything changes. Takes ecr:DescribeRegistry and
    ecr:PutReplicationConfiguration.
    """
    wanted = load_replication(rules)
    seen: list[Rule] = []

    async def look(calls: RegistryReplication) -> None:
        seen.extend(await calls.rules())

    async def change(calls: RegistryReplication) -> None:
        if compare(seen, await calls.rules()):
            raise AsyncpushError(
                "the rules have changed since they were shown; nothing was applied",
                advice="look again",
                registry=wanted.registry.host,
            )
        await calls.put_rules(wanted.rules)

    if not _with_registry(wanted.registry, flags, look):
        context.exit(ExitCode.INTERRUPTED)
    difference = compare(seen, wanted.rules)
    _print_plan(wanted, difference, as_json=flags["as_json"])
    if not difference:
        return
    # Asked between two connections: nothing may wait for a person with the event loop in its hand.
    if not _confirmed(wanted, yes=yes):
        click.echo("nothing was applied", err=True)
        context.exit(ExitCode.FAILED)
    if not _with_registry(wanted.registry, flags, change):
        context.exit(ExitCode.INTERRUPTED)
    if not flags["as_json"]:
        click.echo(f"applied: {wanted.registry} has {plural(len(wanted.rules), 'rule')} now")


def _with_registry(
    registry: Registry,
    flags: dict[str, Any],
    work: Callable[[RegistryReplication], Awaitable[None]],
) -> bool:
    """Do work on a registry's rules; False if a signal ended it."""
    options = PushOptions(aws=aws_of(flags))

    def ignore(event: Event) -> None:  # noqa: ARG001 - a command of two calls shows no progress
        return

    async def opened() -> None:
        async with open_replication(registry, options, ignore) as calls:
            await work(calls)

    return run(opened)


def _confirmed(wanted: ReplicationFile, *, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(
            "nobody can be asked whether to apply this", advice="look at it, and give --yes"
        )
    return click.confirm(f"apply this to {wanted.registry}?", err=True)


def _print_plan(wanted: ReplicationFile, difference: Difference, *, as_json: bool) -> None:
    policies = destination_policies(wanted.registry, wanted.rules)
    if as_json:
        print_json(
            {
                "registry": wanted.registry.host,
                **difference.to_dict(),
                "destination_policies": [policy.to_dict() for policy in policies],
            }
        )
        return
    print_difference(wanted.registry, difference)
    for policy in policies:
        print_policy(policy)
