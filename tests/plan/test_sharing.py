"""Who leads: those who bring the most to others for the least, before all who wait for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.oci import mediatypes
from asyncpush.oci.digest import Digest, compute
from asyncpush.oci.layout import BlobData
from asyncpush.plan.graph import PlannedBlob, PlannedImage, PlannedManifest, RepositoryPlan
from asyncpush.plan.limits import MIB
from asyncpush.plan.reference import Registry, Repository
from asyncpush.plan.sharing import (
    Sharing,
    Speed,
    foreseen,
    share,
    shared_digests,
    worth_waiting,
)

REGISTRY = Registry("111122223333", "eu-central-1")


def named(name: str) -> Digest:
    return compute(name.encode())


class World:
    """Images of a registry, and what its repositories have."""

    def __init__(self) -> None:
        self.graphs: dict[str, RepositoryPlan] = {}
        self.there: defaultdict[Repository, set[Digest]] = defaultdict(set)

    def image(self, repository: str, blobs: Mapping[str, int]) -> PlannedImage:
        where = Repository(REGISTRY, repository)
        graph = self.graphs.setdefault(repository, RepositoryPlan(where))
        digests = {named(name): size for name, size in blobs.items()}
        for digest, size in digests.items():
            graph.blobs[digest] = PlannedBlob(digest, size, BlobData(b""))
        root = compute(f"{repository} {len(graph.images)}".encode())
        graph.manifests[root] = PlannedManifest(
            root, mediatypes.OCI_MANIFEST, 1, BlobData(b""), tuple(digests), (), None, False
        )
        image = PlannedImage(repository, where, root, (), (root,))
        graph.images.append(image)
        return image

    def has(self, repository: str, *blobs: str) -> None:
        self.there[Repository(REGISTRY, repository)] |= {named(blob) for blob in blobs}

    def share(self, *begun: tuple[str, str]) -> Sharing | None:
        pairs = {(Repository(REGISTRY, repository), named(blob)) for repository, blob in begun}
        return share(list(self.graphs.values()), self.there, pairs)

    def order(self, *begun: tuple[str, str]) -> list[str]:
        sharing = self.share(*begun)
        assert sharing is not None
        return [image.repository.name for image in sharing.images]

    def left(self, image: PlannedImage) -> dict[Digest, int]:
        graph = self.graphs[image.repository.name]
        there = self.there[image.repository]
        return {d: blob.size for d, blob in graph.blobs_of(image).items() if d not in there}


def test_nothing_is_planned_where_nothing_can_be_mounted() -> None:
    world = World()
    world.image("one", {"a": 1, "b": 1})
    world.image("two", {"c": 1})
    world.image("one", {"a": 1})
    assert shared_digests(world.graphs.values()) == set()
    assert world.share() is None
    world.image("two", {"b": 1})
    assert shared_digests(world.graphs.values()) == {named("b")}
    assert world.share() is not None
    world.has("one", "b")
    assert world.share() is not None
    world.has("two", "b")
    assert world.share() is None


def test_the_one_that_has_least_to_send_beside_leads() -> None:
    world = World()
    world.image("large", {"base": 200 * MIB, "own large": 900 * MIB})
    world.image("small", {"base": 200 * MIB, "own small": MIB})
    world.image("medium", {"base": 200 * MIB, "own medium": 90 * MIB})
    assert world.order() == ["small", "large", "medium"]
    sharing = world.share()
    assert sharing is not None
    blob = sharing.blobs[named("base")]
    assert (blob.leader.name, blob.leads, blob.followers) == ("small", 0, 2)
    assert blob.saved == 400 * MIB
    assert not sharing.follows(Repository(REGISTRY, "small"), named("base"))
    assert sharing.follows(Repository(REGISTRY, "large"), named("base"))
    assert not sharing.follows(Repository(REGISTRY, "large"), named("own large"))


def test_a_repository_that_has_a_blob_leads_it_whatever_it_has_to_send_beside() -> None:
    world = World()
    world.image("new", {"base": 200 * MIB})
    world.image("old", {"base": 200 * MIB, "own": 900 * MIB})
    world.has("old", "base")
    assert world.order() == ["old", "new"]
    sharing = world.share()
    assert sharing is not None
    assert sharing.blobs[named("base")].saved == 200 * MIB


def test_a_half_sent_blob_is_led_by_its_repository() -> None:
    world = World()
    world.image("small", {"base": 200 * MIB})
    world.image("large", {"base": 200 * MIB, "own": 900 * MIB})
    assert world.order() == ["small", "large"]
    assert world.order(("large", "base")) == ["large", "small"]
    assert world.order(("large", "own")) == ["small", "large"]


def test_each_group_has_a_leader_and_who_waits_for_less_goes_first() -> None:
    world = World()
    for i in range(3):
        world.image(f"ml{i}", {"cuda": 4000 * MIB, f"ml{i}": MIB})
    for i in range(3):
        world.image(f"web{i}", {"alpine": 5 * MIB, f"web{i}": MIB})
    world.image("lonely", {"lonely": 50 * MIB})
    order = world.order()
    assert set(order[:2]) == {"ml0", "web0"}
    assert order[2:] == ["lonely", "web1", "web2", "ml1", "ml2"]


def test_one_image_may_lead_several_blobs_and_another_the_rest() -> None:
    world = World()
    world.image("ab", {"a": 90 * MIB, "b": 90 * MIB})
    world.image("a", {"a": 90 * MIB})
    world.image("bc", {"b": 90 * MIB, "c": 10 * MIB})
    world.image("c", {"c": 10 * MIB})
    sharing = world.share()
    assert sharing is not None
    leaders = {blob.leader.name for blob in sharing.blobs.values()}
    assert leaders == {"ab", "bc"} or leaders == {"ab", "c"}
    assert sharing.blobs[named("a")].leader == sharing.blobs[named("b")].leader


SIZES = {f"blob{i}": 10**i for i in range(1, 9)}
REPOSITORIES = st.sampled_from([f"app{i}" for i in range(5)])
BLOBS = st.sets(st.sampled_from(sorted(SIZES)), max_size=4)


@given(
    st.lists(st.tuples(REPOSITORIES, BLOBS), min_size=1, max_size=12),
    st.sets(st.tuples(REPOSITORIES, st.sampled_from(sorted(SIZES)))),
    st.sets(st.tuples(REPOSITORIES, st.sampled_from(sorted(SIZES)))),
)
def test_all_images_have_a_turn_and_nobody_follows_who_comes_later(
    images: list[tuple[str, set[str]]],
    there: set[tuple[str, str]],
    begun: set[tuple[str, str]],
) -> None:
    world = World()
    planned = [world.image(name, {blob: SIZES[blob] for blob in blobs}) for name, blobs in images]
    for name, blob in there:
        world.has(name, blob)
    sharing = world.share(*begun)
    holders: defaultdict[Digest, list[Repository]] = defaultdict(list)
    for graph in world.graphs.values():
        for digest in graph.blobs:
            holders[digest].append(graph.repository)
    lacking = {
        digest: [r for r in repositories if digest not in world.there[r]]
        for digest, repositories in holders.items()
    }
    mountable = {
        digest
        for digest, lack in lacking.items()
        if len(holders[digest]) > 1 and (len(lack) > 1 or len(holders[digest]) > len(lack) > 0)
    }
    if sharing is None:
        assert not mountable
        return
    assert sorted(map(id, sharing.images)) == sorted(map(id, planned))
    assert set(sharing.blobs) == mountable
    for digest, blob in sharing.blobs.items():
        leader = sharing.images[blob.leads]
        assert leader.repository == blob.leader
        assert digest in world.graphs[leader.repository.name].blobs_of(leader)
        assert blob.followers == len(set(lacking[digest]) - {blob.leader})
        # Whoever has it is asked before whoever would have to send it.
        assert (blob.leader in lacking[digest]) == (len(lacking[digest]) == len(holders[digest]))
    mounted = foreseen(sharing, world.left, None)
    for repository, digest in mounted:
        assert sharing.blobs[digest].leads < sharing.turns[repository, digest]
        assert repository in lacking[digest]
    # What is not held by anybody is sent exactly once; waiting for commits mounts less at most.
    for digest in mountable:
        if len(lacking[digest]) == len(holders[digest]):
            assert sum(d == digest for _, d in mounted) == len(lacking[digest]) - 1
    assert foreseen(sharing, world.left, Speed(commits=10)) <= mounted


@pytest.mark.parametrize(
    ("saved", "beside", "commits", "worth"),
    [
        # 39 others wait for a base of 200 MB that the leader sends with a little of its own.
        (39 * 200, 1, 1, True),
        # One waits for 200 MB beside which the leader sends 5 GB, and 39 others for as much.
        (200, 5000, 1, False),
        (40 * 200, 5000, 1, True),
        # A hundred kilobytes are sent before a manifest is committed at ten a second...
        (0.1, 0, 1, False),
        # ... unless a thousand repositories send them; an index commits more than one manifest.
        (100, 0, 1, True),
        (100, 0, 20, False),
        # Nothing is worth no wait at all.
        (0, 0, 0, False),
    ],
)
def test_waiting_is_worth_it_when_what_it_saves_takes_longer(
    saved: float, beside: float, commits: int, worth: bool
) -> None:
    speed = Speed(bytes=100e6, commits=10)
    assert worth_waiting(round(saved * 1e6), round(beside * 1e6), commits, speed) is worth


def test_a_slow_line_waits_for_what_a_fast_one_sends() -> None:
    five = 5 * MIB
    assert worth_waiting(five, 0, 1, Speed(bytes=10e6, commits=10))
    assert not worth_waiting(five, 0, 1, Speed(bytes=100e6, commits=10))
