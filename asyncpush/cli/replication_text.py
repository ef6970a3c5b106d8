"""How replication reads: rules, differences, policies, what became of images."""

from __future__ import annotations

import json

import click

from asyncpush.plan.reference import Registry
from asyncpush.replication.difference import Difference
from asyncpush.replication.policy import DestinationPolicy
from asyncpush.replication.results import ReplicationReport, ReplicationStatus
from asyncpush.replication.rules import Rule
from asyncpush.text import duration, plural


def describe_rule(rule: Rule) -> str:
    """One rule in one line."""
    what = ", ".join(f"{prefix}*" for prefix in sorted(rule.prefixes)) or "all repositories"
    return f"{what} -> {', '.join(map(str, sorted(rule.destinations)))}"


def print_difference(registry: Registry, difference: Difference) -> None:
    """Write what would change to standard output."""
    if not difference:
        click.echo(
            f"{registry}: nothing to do, {plural(len(difference.kept), 'rule')} as in the file"
        )
        return
    click.echo(
        f"{registry}: {len(difference.added)} to add, {len(difference.changed)} to change,"
        f" {len(difference.removed)} to remove, {len(difference.kept)} as in the file"
    )
    for rule in difference.kept:
        click.echo(f"    {describe_rule(rule)}")
    for rule in difference.removed:
        click.echo(f"  - {describe_rule(rule)}")
    for change in difference.changed:
        click.echo(f"  ~ {describe_rule(change.after)}")
        for sign, destinations in (("-", change.removed), ("+", change.added)):
            for destination in sorted(destinations):
                click.echo(f"      {sign} {destination}")
    for rule in difference.added:
        click.echo(f"  + {describe_rule(rule)}")


def print_policy(policy: DestinationPolicy) -> None:
    """Write a destination's registry policy to standard output."""
    click.echo(
        f"the registry of account {policy.destination} must allow this in its registry policy"
        " (aws ecr put-registry-policy, which replaces the policy that is there):"
    )
    click.echo(json.dumps(policy.document, indent=2))


def print_replication(report: ReplicationReport) -> None:
    """Write the sum of a waiting for replication to standard output."""
    counts = [
        f"{report.count(status)} {word}"
        for status, word in (
            (ReplicationStatus.COMPLETE, "complete"),
            (ReplicationStatus.FAILED, "failed"),
            (ReplicationStatus.IN_PROGRESS, "not ended"),
            (ReplicationStatus.NOT_STARTED, "not begun"),
            (ReplicationStatus.UNKNOWN, "unknown"),
            (ReplicationStatus.NOT_COVERED, "covered by no rule"),
        )
        if report.count(status)
    ]
    click.echo(
        f"replication of {plural(len(report.images), 'image')}:"
        f" {', '.join(counts) or 'none to wait for'}; waited {duration(report.seconds)}"
    )
