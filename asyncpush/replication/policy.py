"""The registry policy that a destination in another account must have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asyncpush.plan.reference import Registry
from asyncpush.replication.actions import GRANTED_BY_DESTINATION
from asyncpush.replication.rules import Destination, Rules, all_destinations


@dataclass(frozen=True, slots=True)
class DestinationPolicy:
    """A policy, as PutRegistryPolicy takes it, and the registry that it is for."""

    destination: Destination
    document: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The policy as JSON-ready data."""
        return {
            "account": self.destination.account,
            "region": self.destination.region,
            "policy": self.document,
        }


def destination_policies(source: Registry, rules: Rules) -> list[DestinationPolicy]:
    """What the destinations in other accounts must allow, each for just what comes to it.

    Within an account, replication across Regions needs no policy (user guide, "Private registry
    permissions").
    """
    return [
        DestinationPolicy(destination, _document(source, destination, rules))
        for destination in all_destinations(rules)
        if destination.account != source.account
    ]


def _document(source: Registry, destination: Destination, rules: Rules) -> dict[str, Any]:
    coming = [rule for rule in rules if destination in rule.destinations]
    prefixes = sorted({prefix for rule in coming for prefix in rule.prefixes})
    if any(not rule.prefixes for rule in coming):
        prefixes = [""]
    arn = f"arn:{source.partition}:ecr:{destination.region}:{destination.account}:repository/"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": f"ReplicationFrom{source.account}",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:{source.partition}:iam::{source.account}:root"},
                "Action": [f"ecr:{action}" for action in GRANTED_BY_DESTINATION],
                "Resource": [f"{arn}{prefix}*" for prefix in prefixes],
            }
        ],
    }
