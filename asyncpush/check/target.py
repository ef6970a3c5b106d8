"""What a check is about: repositories, with the blobs and tags that a push brings there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from asyncpush.oci.digest import Digest
from asyncpush.plan.graph import Plan
from asyncpush.plan.reference import Reference, Repository


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A repository, and what it must hold when the push is done, as far as that is known."""

    repository: Repository
    blobs: Sequence[Digest] = ()
    tags: Mapping[str, Digest] = field(default_factory=dict)


def targets_of_plan(plan: Plan) -> list[Target]:
    """The targets of a push whose sources are known."""
    return [
        Target(repository, list(graph.blobs), graph.tags)
        for repository, graph in plan.repositories.items()
    ]


def targets_of_references(references: Iterable[Reference]) -> list[Target]:
    """Targets without sources; a reference with tag and digest tells what its tag must be."""
    tags: dict[Repository, dict[str, Digest]] = {}
    for reference in references:
        wanted = tags.setdefault(reference.repository, {})
        if reference.tag is not None and reference.digest is not None:
            wanted[reference.tag] = reference.digest
    return [Target(repository, (), wanted) for repository, wanted in tags.items()]
