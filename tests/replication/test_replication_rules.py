"""Rules: what they cover, how ECR writes them, how two sets differ, what destinations allow."""

from __future__ import annotations

from collections import Counter

import boto3
import pytest
from botocore.validate import validate_parameters
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.errors import RegistryError
from asyncpush.plan.reference import Registry
from asyncpush.replication.difference import compare
from asyncpush.replication.policy import destination_policies
from asyncpush.replication.rules import (
    Destination,
    Rule,
    destinations_of,
    read_rules,
    write_rules,
)

SOURCE = Registry("111122223333", "eu-central-1")
OWN = Destination("111122223333", "us-east-1")
OTHER = Destination("444455556666", "eu-central-1")

DESTINATIONS = st.builds(
    Destination, st.sampled_from(["111122223333", "444455556666"]), st.sampled_from(["a-b-1", "c"])
)
RULES = st.lists(
    st.builds(
        Rule,
        st.frozensets(DESTINATIONS, min_size=1, max_size=3),
        st.frozensets(st.sampled_from(["team/", "base", "x-1"]), max_size=2),
    ),
    max_size=4,
)


def rule(*destinations: Destination, prefixes: tuple[str, ...] = ()) -> Rule:
    return Rule(frozenset(destinations), frozenset(prefixes))


def test_a_rule_covers_what_begins_with_one_of_its_prefixes() -> None:
    rules = [rule(OWN, prefixes=("team", "base/")), rule(OTHER, prefixes=("team/app",))]
    assert destinations_of(rules, "team/app") == (OWN, OTHER)
    assert destinations_of(rules, "teamwork") == (OWN,)
    assert destinations_of(rules, "base") == ()
    assert destinations_of(rules, "a/team") == ()


def test_a_rule_without_prefixes_covers_everything() -> None:
    assert destinations_of([rule(OTHER)], "any/thing") == (OTHER,)


@given(RULES)
def test_rules_are_read_as_they_are_written(rules: list[Rule]) -> None:
    assert list(read_rules(write_rules(rules))) == rules


def test_written_rules_keep_to_the_service_model() -> None:
    client = boto3.client("ecr", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    shape = client.meta.service_model.operation_model("PutReplicationConfiguration").input_shape
    for rules in ([], [rule(OWN)], [rule(OWN, OTHER, prefixes=("team/",)), rule(OTHER)]):
        validate_parameters({"replicationConfiguration": write_rules(rules)}, shape)


def test_a_filter_of_an_unknown_type_is_no_guess() -> None:
    configuration = write_rules([rule(OWN, prefixes=("team/",))])
    configuration["rules"][0]["repositoryFilters"][0]["filterType"] = "SUFFIX_MATCH"
    with pytest.raises(RegistryError, match="SUFFIX_MATCH"):
        read_rules(configuration)


@given(RULES, RULES)
def test_a_difference_leads_from_the_one_to_the_other(
    current: list[Rule], wanted: list[Rule]
) -> None:
    difference = compare(current, wanted)
    before = [*difference.kept, *difference.removed, *(c.before for c in difference.changed)]
    after = [*difference.kept, *difference.added, *(c.after for c in difference.changed)]
    assert Counter(before) == Counter(current)
    assert Counter(after) == Counter(wanted)
    assert bool(difference) == (Counter(current) != Counter(wanted))


def test_the_order_of_rules_is_no_difference() -> None:
    rules = [rule(OWN), rule(OTHER, prefixes=("team/",))]
    assert not compare(rules, rules[::-1])


def test_a_rule_for_the_same_repositories_changes() -> None:
    difference = compare([rule(OWN, prefixes=("team/",))], [rule(OTHER, prefixes=("team/",))])
    (change,) = difference.changed
    assert (change.added, change.removed) == ({OTHER}, {OWN})
    assert not difference.added
    assert not difference.removed


def test_only_other_accounts_need_a_policy_and_for_what_comes_to_them_alone() -> None:
    rules = [
        rule(OWN),
        rule(OTHER, prefixes=("team/", "base")),
        rule(OTHER, OWN, prefixes=("shared/",)),
    ]
    (policy,) = destination_policies(SOURCE, rules)
    assert policy.destination == OTHER
    (statement,) = policy.document["Statement"]
    assert statement["Principal"] == {"AWS": "arn:aws:iam::111122223333:root"}
    assert statement["Action"] == ["ecr:CreateRepository", "ecr:ReplicateImage"]
    arn = "arn:aws:ecr:eu-central-1:444455556666:repository/"
    assert statement["Resource"] == [f"{arn}base*", f"{arn}shared/*", f"{arn}team/*"]


def test_a_rule_for_all_repositories_needs_all_resources() -> None:
    rules = [rule(OTHER, prefixes=("team/",)), rule(OTHER)]
    (policy,) = destination_policies(SOURCE, rules)
    assert policy.document["Statement"][0]["Resource"] == [
        "arn:aws:ecr:eu-central-1:444455556666:repository/*"
    ]


def test_a_policy_stays_in_its_partition() -> None:
    source = Registry("111122223333", "cn-north-1", "amazonaws.com.cn")
    (policy,) = destination_policies(source, [rule(Destination("444455556666", "cn-northwest-1"))])
    (statement,) = policy.document["Statement"]
    assert statement["Principal"]["AWS"].startswith("arn:aws-cn:iam::")
    assert statement["Resource"][0].startswith("arn:aws-cn:ecr:cn-northwest-1:")
