"""From a replication file to rules: every mistake that can be known without a registry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from asyncpush.documents.problems import located, validate
from asyncpush.documents.yaml import Key, Lines, read_document
from asyncpush.errors import (
    AsyncpushError,
    DocumentError,
    InvalidReferenceError,
    UsageError,
)
from asyncpush.plan.reference import Registry, parse_registry
from asyncpush.replication.document import ReplicationDocument, RuleDocument
from asyncpush.replication.rules import Destination, Rule, all_destinations

# "Private image replication", considerations: unique destinations across all rules.
_MOST_DESTINATIONS = 25
# Regions of the partitions that have names of their own; replication stays within a partition.
_PARTITIONS = ("cn-", "us-gov-", "eusc-", "us-iso-", "us-isob-", "eu-isoe-", "us-isof-")


@dataclass(frozen=True, slots=True)
class ReplicationFile:
    """A replication file that has been read: the rules that a registry should have."""

    registry: Registry
    rules: tuple[Rule, ...]


def load_replication(path: Path) -> ReplicationFile:
    """Read and check a replication file.

    :param path: the file, YAML or JSON.
    :raises DocumentError: it holds mistakes.
    :raises UsageError: it cannot be read.
    """
    content, lines = read_document(path, "replication file")
    document = validate(ReplicationDocument, content, path, lines)
    return _Loader(path, lines).load(document)


def parse_source(text: str) -> Registry:
    """Read the host of a registry that replicates, or could.

    :raises InvalidReferenceError: it is none, or not ECR's.
    """
    registry = parse_registry(text)
    if not isinstance(registry, Registry):
        raise InvalidReferenceError(f"{registry} is not ECR's, and replicates nothing")
    return registry


@dataclass
class _Loader:
    path: Path
    lines: Lines
    problems: list[UsageError] = field(default_factory=list)

    def load(self, document: ReplicationDocument) -> ReplicationFile:
        try:
            registry = parse_source(document.registry)
        except AsyncpushError as exc:
            self._add(exc.message, ("registry",), exc.advice)
            raise DocumentError(self.problems) from None
        rules: list[Rule] = []
        for i, rule in enumerate(document.rules):
            loaded = self._rule(rule, registry, ("rules", i))
            if loaded in rules:
                self._add("the rule is here for the second time", ("rules", i))
            rules.append(loaded)
        if (count := len(all_destinations(rules))) > _MOST_DESTINATIONS:
            self._add(
                f"the rules have {count} different destinations, and a registry takes"
                f" {_MOST_DESTINATIONS}",
                ("rules",),
            )
        if self.problems:
            raise DocumentError(self.problems)
        return ReplicationFile(registry, tuple(rules))

    def _rule(self, rule: RuleDocument, source: Registry, where: Key) -> Rule:
        destinations: list[Destination] = []
        for i, one in enumerate(rule.destinations):
            at = (*where, "destinations", i)
            destination = Destination(one.account or source.account, one.region)
            if destination in destinations:
                self._add(f"the destination {destination} is here for the second time", at)
            if destination == Destination(source.account, source.region):
                self._add("the destination is the registry itself", at, "choose another Region")
            if _partition(destination.region) != _partition(source.region):
                self._add(
                    f"{destination.region} is in another AWS partition than {source.region}",
                    (*at, "region"),
                    "replication does not leave a partition",
                )
            destinations.append(destination)
        prefixes = rule.prefixes or []
        for i, prefix in enumerate(prefixes):
            if prefix in prefixes[:i]:
                self._add(
                    f"the prefix {prefix} is here for the second time", (*where, "prefixes", i)
                )
        return Rule(frozenset(destinations), frozenset(prefixes))

    def _add(self, message: str, where: Key, advice: str = "") -> None:
        self.problems.append(
            located(UsageError(message, advice=advice), self.path, self.lines, where)
        )


def _partition(region: str) -> str:
    return next((prefix for prefix in _PARTITIONS if region.startswith(prefix)), "")
