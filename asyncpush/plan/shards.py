"""Cutting a plan into shards, so that several machines can share one job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from asyncpush.plan.graph import Plan, RepositoryPlan
from asyncpush.plan.limits import MIB
from asyncpush.plan.reference import AnyRegistry

# What a manifest costs beside its bytes, in bytes: at ECR's ten PutImage a second, a commit takes
# as long as some megabytes of layers.
_MANIFEST_WEIGHT = 4 * MIB


@dataclass(frozen=True, slots=True)
class Shard:
    """One machine's part of a plan.

    ``sharing`` tells for each registry how many shards push to it: each may use that fraction of
    the registry's quotas.
    """

    plan: Plan
    sharing: Mapping[AnyRegistry, int]


def cut(plan: Plan, count: int) -> list[Shard]:
    """Cut a plan by repository into shards of about the same work.

    A pure function of the plan: machines that plan the same job cut it alike, whatever the order in
    which they found its sources. A repository is never cut, so nothing goes twice. The heaviest
    repository goes to the lightest shard, and so on (longest processing time first).

    :param count: how many shards; those beyond the number of repositories stay empty.
    """
    shards = [Plan() for _ in range(count)]
    loads = [0] * count
    heaviest_first = sorted(
        plan.repositories.values(), key=lambda r: (-_weight(r), str(r.repository))
    )
    for repository in heaviest_first:
        lightest = min(range(count), key=lambda i: (loads[i], i))
        loads[lightest] += _weight(repository)
        shards[lightest].repositories[repository.repository] = repository
    # They cost nothing, and one machine's report is enough for them.
    shards[0].unchanged = plan.unchanged
    sharing = Counter(
        registry for shard in shards for registry in {r.registry for r in shard.repositories}
    )
    return [Shard(shard, sharing) for shard in shards]


def _weight(repository: RepositoryPlan) -> int:
    layers = sum(blob.size for blob in repository.blobs.values())
    return layers + len(repository.manifests) * _MANIFEST_WEIGHT
