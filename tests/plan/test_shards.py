"""Shards: nothing lost, nothing twice, the same cut everywhere."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import BlobData
from asyncpush.plan.graph import Plan, PlannedBlob, RepositoryPlan
from asyncpush.plan.reference import Registry, Repository
from asyncpush.plan.shards import cut

REGISTRIES = [Registry("111122223333", r) for r in ("eu-central-1", "us-east-1", "eu-west-1")]


def plan_of(sizes: list[int], seed: int = 0) -> Plan:
    plan = Plan()
    order = list(enumerate(sizes))
    random.Random(seed).shuffle(order)
    for i, size in order:
        repository = Repository(REGISTRIES[i % 3], f"team/app{i}")
        digest = Digest(f"sha256:{i:064x}")
        blob = PlannedBlob(digest, size, BlobData(b""))
        plan.repositories[repository] = RepositoryPlan(repository, {digest: blob})
    return plan


@given(st.lists(st.integers(1, 10**10), max_size=40), st.integers(1, 9), st.integers())
def test_every_repository_is_in_exactly_one_shard_whatever_the_order(
    sizes: list[int], count: int, seed: int
) -> None:
    shards = cut(plan_of(sizes), count)
    again = cut(plan_of(sizes, seed), count)
    assert len(shards) == count
    assert [set(s.plan.repositories) for s in shards] == [set(s.plan.repositories) for s in again]
    repositories = [r for shard in shards for r in shard.plan.repositories]
    assert sorted(map(str, repositories)) == sorted(map(str, plan_of(sizes).repositories))


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=40), st.integers(1, 9))
def test_quotas_are_shared_among_the_shards_that_use_a_registry(
    sizes: list[int], count: int
) -> None:
    shards = cut(plan_of(sizes), count)
    for registry in {r.registry for shard in shards for r in shard.plan.repositories}:
        users = [s for s in shards if any(r.registry == registry for r in s.plan.repositories)]
        assert sum(1 / shard.sharing[registry] for shard in users) <= 1.0000001
        assert len(users) == shards[0].sharing[registry]


def test_equal_repositories_are_spread_evenly() -> None:
    shards = cut(plan_of([1000] * 30), 3)
    assert [len(s.plan.repositories) for s in shards] == [10, 10, 10]
