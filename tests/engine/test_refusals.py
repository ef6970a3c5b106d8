"""Refused mounts: a pair of repositories, a target or the whole registry is left alone."""

from __future__ import annotations

from asyncpush.engine.refusals import Refusals
from asyncpush.plan.reference import Registry, Repository

REGISTRY = Registry("111122223333", "eu-central-1")
LEADER, ONE, TWO, THREE, FOUR = (
    Repository(REGISTRY, name) for name in ("leader", "one", "two", "three", "four")
)


def test_three_refusals_without_a_success_settle_that_a_registry_mounts_nothing() -> None:
    refusals = Refusals()
    assert not refusals.refused(LEADER, ONE)
    assert not refusals.allows(LEADER, ONE)
    assert refusals.allows(LEADER, TWO)
    assert not refusals.refused(LEADER, TWO)
    assert not refusals.off
    assert refusals.refused(LEADER, THREE)
    assert refusals.off
    assert not refusals.allows(LEADER, FOUR)
    assert not refusals.refused(LEADER, FOUR)  # told once


def test_after_a_success_refusals_are_about_pairs() -> None:
    refusals = Refusals()
    refusals.mounted(LEADER, ONE)
    assert refusals.any_proven
    assert refusals.is_proven(ONE)
    assert not refusals.is_proven(TWO)
    for _ in range(5):
        assert not refusals.refused(LEADER, TWO)
    assert not refusals.off
    # What has mounted from the leader is encrypted as the leader is.
    assert not refusals.allows(ONE, TWO)
    assert refusals.allows(THREE, TWO)
    refusals.mounted(THREE, TWO)
    assert refusals.allows(THREE, TWO)
    assert refusals.allows(LEADER, FOUR)


def test_refusals_of_those_who_have_mounted_settle_that_it_was_switched_off() -> None:
    refusals = Refusals()
    refusals.mounted(LEADER, ONE)
    assert not refusals.refused(LEADER, ONE)
    refusals.mounted(TWO, ONE)
    assert not refusals.refused(LEADER, ONE)
    assert not refusals.refused(TWO, ONE)
    assert refusals.refused(THREE, ONE)
    assert refusals.off


def test_a_target_that_three_sources_refuse_is_left_alone() -> None:
    refusals = Refusals()
    refusals.mounted(LEADER, ONE)
    for source in (LEADER, TWO, THREE):
        assert refusals.allows(source, FOUR)
        refusals.refused(source, FOUR)
    assert not refusals.allows(Repository(REGISTRY, "five"), FOUR)


def test_no_repository_mounts_from_itself() -> None:
    assert not Refusals().allows(ONE, ONE)


def test_trouble_settles_at_once_where_nothing_was_mounted_yet() -> None:
    refusals = Refusals()
    assert refusals.troubled()
    assert refusals.off
    assert not refusals.troubled()  # told once


def test_trouble_settles_after_a_few_in_a_row_where_mounts_worked() -> None:
    refusals = Refusals()
    refusals.mounted(LEADER, ONE)
    assert [refusals.troubled(), refusals.troubled()] == [False, False]
    refusals.mounted(LEADER, TWO)
    assert [refusals.troubled(), refusals.troubled()] == [False, False]
    assert refusals.troubled()
    assert not refusals.allows(LEADER, THREE)
