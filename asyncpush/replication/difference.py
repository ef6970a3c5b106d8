"""The difference between the rules that a registry has and those that it should have."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from asyncpush.replication.rules import Destination, Rule, Rules, write_rules


@dataclass(frozen=True, slots=True)
class Change:
    """A rule for the same repositories whose destinations change."""

    before: Rule
    after: Rule

    @property
    def added(self) -> frozenset[Destination]:
        """Destinations that come."""
        return self.after.destinations - self.before.destinations

    @property
    def removed(self) -> frozenset[Destination]:
        """Destinations that go."""
        return self.before.destinations - self.after.destinations


@dataclass(frozen=True, slots=True)
class Difference:
    """What must happen to a registry's rules; each rule is in one of the four."""

    added: tuple[Rule, ...]
    removed: tuple[Rule, ...]
    changed: tuple[Change, ...]
    kept: tuple[Rule, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def to_dict(self) -> dict[str, Any]:
        """The difference as JSON-ready data, rules as ECR writes them."""
        return {
            "changed": bool(self),
            "add": write_rules(self.added)["rules"],
            "remove": write_rules(self.removed)["rules"],
            "change": [
                {"before": before, "after": after}
                for change in self.changed
                for before, after in [write_rules([change.before, change.after])["rules"]]
            ],
            "keep": write_rules(self.kept)["rules"],
        }


def compare(current: Rules, wanted: Rules) -> Difference:
    """How two sets of rules differ.

    Rules have no names, and their order says nothing, since every rule that covers a repository
    applies. So equal rules are the same rule, and among the others those for the same repositories.
    """
    here, there = Counter(current), Counter(wanted)
    kept = here & there
    leaving = list((here - kept).elements())
    coming = list((there - kept).elements())
    changed: list[Change] = []
    for after in list(coming):
        before = next((rule for rule in leaving if rule.prefixes == after.prefixes), None)
        if before is not None:
            leaving.remove(before)
            coming.remove(after)
            changed.append(Change(before, after))
    return Difference(
        added=tuple(coming),
        removed=tuple(leaving),
        changed=tuple(changed),
        kept=tuple(kept.elements()),
    )
