"""Replication rules: which repositories a registry replicates, and where to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncpush.errors import RegistryError

_PREFIX_MATCH = "PREFIX_MATCH"


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """A registry that images are replicated to: an account in a Region."""

    account: str
    region: str

    def __str__(self) -> str:
        return f"{self.account} in {self.region}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a registry.

    :param destinations: where to.
    :param prefixes: of the names of the repositories that it covers; empty covers all. A prefix
        ends where it likes: ``team`` covers ``teamwork/app``, too.
    """

    destinations: frozenset[Destination]
    prefixes: frozenset[str] = frozenset()

    def covers(self, repository: str) -> bool:
        """Whether images of a repository are replicated by this rule."""
        return not self.prefixes or any(repository.startswith(p) for p in self.prefixes)


Rules = Sequence[Rule]


def destinations_of(rules: Rules, repository: str) -> tuple[Destination, ...]:
    """Where images of a repository are replicated to, by all rules together."""
    return tuple(
        sorted({d for rule in rules if rule.covers(repository) for d in rule.destinations})
    )


def all_destinations(rules: Iterable[Rule]) -> tuple[Destination, ...]:
    """Every destination of any rule, once."""
    return tuple(sorted({d for rule in rules for d in rule.destinations}))


def read_rules(configuration: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Read rules as ECR gives them (service model, ReplicationConfiguration).

    :raises RegistryError: a filter of a type that is not known here: what it covers would be a
        guess.
    """
    return tuple(
        Rule(
            destinations=frozenset(
                Destination(d["registryId"], d["region"]) for d in rule["destinations"]
            ),
            prefixes=frozenset(_prefix(f) for f in rule.get("repositoryFilters") or ()),
        )
        for rule in configuration["rules"]
    )


def write_rules(rules: Rules) -> dict[str, Any]:
    """Rules as ECR takes them, in an order that depends on nothing but what they say."""
    return {"rules": [_to_api(rule) for rule in rules]}


def _to_api(rule: Rule) -> dict[str, Any]:
    destinations = [
        {"region": d.region, "registryId": d.account} for d in sorted(rule.destinations)
    ]
    filters = [{"filter": p, "filterType": _PREFIX_MATCH} for p in sorted(rule.prefixes)]
    # The list of filters has 1 to 100 of them (RepositoryFilterList); none is no list.
    return {"destinations": destinations, **({"repositoryFilters": filters} if filters else {})}


def _prefix(repository_filter: Mapping[str, str]) -> str:
    kind = repository_filter["filterType"]
    if kind != _PREFIX_MATCH:
        raise RegistryError(
            f"the registry has a replication rule with a filter of type {kind}, which is unknown",
            advice="use a newer version of asyncpush",
            call="DescribeRegistry",
        )
    return repository_filter["filter"]
