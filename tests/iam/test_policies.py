"""The policies that are printed: the forms of AWS, what was asked for, sizes that IAM takes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpush.errors import UsageError
from asyncpush.iam.actions import EXTRAS, PUSH, Extra
from asyncpush.iam.document import MANAGED_POLICY_CHARACTERS, dumps, size
from asyncpush.iam.identity import push_policies, push_policy
from asyncpush.iam.names import key_of, parse_resource
from asyncpush.iam.resource import parse_principal, registry_policy, repository_policy
from asyncpush.localregistry.access.policy import Decision, Policy
from asyncpush.plan.reference import Registry

ARN = "arn:aws:ecr:region:111122223333:repository/repository-name"
# "IAM permissions for pushing an image to an Amazon ECR private repository", user guide.
AWS_ANY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "ecr:CompleteLayerUpload",
                "ecr:GetAuthorizationToken",
                "ecr:UploadLayerPart",
                "ecr:InitiateLayerUpload",
                "ecr:BatchCheckLayerAvailability",
                "ecr:PutImage",
            ],
            "Resource": "*",
        }
    ],
}
AWS_SCOPED = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "ecr:CompleteLayerUpload",
                "ecr:UploadLayerPart",
                "ecr:InitiateLayerUpload",
                "ecr:BatchCheckLayerAvailability",
                "ecr:PutImage",
            ],
            "Resource": ARN,
        },
        {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
    ],
}


def test_without_repositories_it_is_the_policy_of_aws() -> None:
    assert dumps(push_policy()) == json.dumps(AWS_ANY, indent=2)


def test_with_a_repository_it_is_the_scoped_policy_of_aws() -> None:
    (policy,) = push_policies([ARN])
    assert dumps(policy) == json.dumps(AWS_SCOPED, indent=2)


@pytest.mark.parametrize("extra", Extra)
def test_each_extra_adds_its_actions_alone(extra: Extra) -> None:
    (plain,) = push_policies([ARN])
    (more,) = push_policies([ARN], {extra})
    repositories, registry = more["Statement"]
    assert repositories["Action"] == [*PUSH, *EXTRAS[extra].repository]
    assert repositories["Resource"] == ARN
    assert registry["Resource"] == "*"
    added = EXTRAS[extra].registry
    expected = ["ecr:GetAuthorizationToken", *added] if added else "ecr:GetAuthorizationToken"
    assert registry["Action"] == expected
    anywhere = push_policy({extra})["Statement"][0]
    assert set(anywhere["Action"]) == {
        *AWS_ANY["Statement"][0]["Action"],
        *EXTRAS[extra].repository,
        *EXTRAS[extra].registry,
    }
    assert plain == AWS_SCOPED


def test_extras_that_share_an_action_name_it_once() -> None:
    (policy,) = push_policies([ARN], {Extra.VERIFY, Extra.ROLLBACK, Extra.CHECK})
    actions = policy["Statement"][0]["Action"]
    assert actions == [*PUSH, "ecr:BatchGetImage", "ecr:DescribeRepositories"]


def test_repositories_are_grouped_by_account() -> None:
    arns = [
        f"arn:aws:ecr:{region}:{account}:repository/{name}"
        for region in ("us-east-1", "eu-west-1")
        for account in ("222222222222", "111111111111")
        for name in ("b/x", "a/x")
    ]
    (policy,) = push_policies(arns)
    first, second, token = policy["Statement"]
    assert first["Resource"] == sorted(a for a in arns if ":111111111111:" in a)
    assert second["Resource"] == sorted(a for a in arns if ":222222222222:" in a)
    assert token["Action"] == "ecr:GetAuthorizationToken"


def test_what_creation_takes_depends_on_how_repositories_are_created() -> None:
    key = "arn:aws:kms:eu-west-1:111122223333:key/k"
    (policy,) = push_policies([ARN], {Extra.CREATE}, tagged=True, kms_keys=[key])
    repositories, _, kms = policy["Statement"]
    assert repositories["Action"] == [*PUSH, "ecr:CreateRepository", "ecr:TagResource"]
    assert kms == {
        "Effect": "Allow",
        "Action": ["kms:CreateGrant", "kms:DescribeKey"],
        "Resource": key,
    }


ARNS = st.builds(
    lambda region, account, name: f"arn:aws-us-gov:ecr:{region}:{account}:repository/{name}",
    st.sampled_from(["us-gov-west-1", "us-gov-east-1"]),
    st.sampled_from(["111122223333", "444455556666", "777788889999"]),
    st.integers(0, 10**6).map(lambda n: f"team/{'long-name/' * (n % 20)}app-{n}"),
)


@settings(deadline=None, max_examples=30)
@given(st.sets(ARNS, min_size=1, max_size=150), st.sets(st.sampled_from(list(Extra))))
def test_documents_allow_exactly_what_was_asked_for_and_are_not_too_large(
    arns: set[str], extras: set[Extra]
) -> None:
    documents = push_policies(arns, extras)
    allowed: list[str] = []
    for policy in documents:
        assert size(policy) <= MANAGED_POLICY_CHARACTERS
        assert size(policy) == len("".join(dumps(policy).split()))
        Policy(policy)
        *repositories, token = policy["Statement"]
        assert token["Resource"] == "*"
        for statement in repositories:
            resource = statement["Resource"]
            listed = [resource] if isinstance(resource, str) else resource
            assert len({arn.split(":")[4] for arn in listed}) == 1
            allowed += listed
    assert sorted(allowed) == sorted(arns)
    # None could have been left out.
    total = sum(size(policy) for policy in documents)
    assert len(documents) <= -(-total // (MANAGED_POLICY_CHARACTERS - 1000))


def test_a_thousand_repositories_are_several_documents_that_together_allow_them() -> None:
    arns = [f"arn:aws:ecr:eu-west-1:111122223333:repository/team/app{i:04}" for i in range(1000)]
    policies = [Policy(document) for document in push_policies(arns)]
    assert 9 < len(policies) < 12
    for arn in arns:
        decisions = [policy.decide("ecr:PutImage", arn) for policy in policies]
        assert decisions.count(Decision.ALLOWED) == 1
    assert all(p.decide("ecr:PutImage", f"{arns[0]}0") is not Decision.ALLOWED for p in policies)


def test_a_resource_that_no_policy_has_room_for_is_an_error() -> None:
    keys = [f"arn:aws:kms:eu-west-1:111122223333:key/{i:036}" for i in range(75)]
    with pytest.raises(UsageError, match="more than a policy takes"):
        push_policies([ARN], {Extra.CREATE}, kms_keys=keys)


@pytest.mark.parametrize(
    ("text", "arn"),
    [
        (
            "111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1",
            "arn:aws:ecr:eu-west-1:111122223333:repository/team/app",
        ),
        (
            "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn/team/app",
            "arn:aws-cn:ecr:cn-north-1:111122223333:repository/team/app",
        ),
        (
            "111122223333.dkr.ecr-fips.us-gov-west-1.amazonaws.com/team/app",
            "arn:aws-us-gov:ecr:us-gov-west-1:111122223333:repository/team/app",
        ),
        (
            "111122223333.dkr.ecr.us-iso-east-1.c2s.ic.gov/team/app",
            "arn:aws-iso:ecr:us-iso-east-1:111122223333:repository/team/app",
        ),
        (ARN, ARN),
        (ARN.replace("repository-name", "team/*"), ARN.replace("repository-name", "team/*")),
    ],
)
def test_repositories_are_named_by_reference_arn_or_pattern(text: str, arn: str) -> None:
    assert parse_resource(text) == arn


@pytest.mark.parametrize(
    "text",
    [
        "docker://localhost:5000/team/app",
        "arn:aws:ecr:*:111122223333:repository/app",
        "arn:aws:ecr:eu-west-1:*:repository/app",
        "arn:aws:s3:::bucket/*",
        "*",
        "team/app",
    ],
)
def test_what_names_no_repository_of_ecr_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_resource(text)


def test_keys_are_named_by_arn_and_never_by_alias() -> None:
    registry = Registry("111122223333", "cn-north-1", "amazonaws.com.cn")
    arn = "arn:aws-cn:kms:cn-north-1:111122223333:key/k"
    assert key_of("k", registry) == arn
    assert key_of(arn, registry) == arn
    assert key_of("alias/team", registry) is None
    assert key_of("arn:aws:kms:eu-west-1:111122223333:alias/team", registry) is None


def test_repository_policy_names_principals_and_the_five_actions() -> None:
    role = "arn:aws:iam::444455556666:role/ci/push"
    policy = repository_policy([role, "777788889999", role], {Extra.VERIFY})
    assert policy == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "AllowPush",
                "Effect": "Allow",
                "Principal": {"AWS": [role, "arn:aws:iam::777788889999:root"]},
                "Action": [*PUSH, "ecr:BatchGetImage"],
            }
        ],
    }


@pytest.mark.parametrize("extra", [Extra.CREATE, Extra.REPLICATION_RULES])
def test_repository_policy_cannot_allow_what_concerns_no_repository_that_is_there(
    extra: Extra,
) -> None:
    with pytest.raises(UsageError):
        repository_policy(["444455556666"], {extra})


def test_repository_policy_that_ecr_would_not_take_is_an_error() -> None:
    with pytest.raises(UsageError, match="a repository takes 10,240"):
        repository_policy(f"arn:aws:iam::444455556666:role/r{i}" for i in range(400))


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "1234",
        "arn:aws:iam::444455556666:role/*",
        "arn:aws:iam::*:root",
        "arn:aws:iam::444455556666:group/x",
        "arn:aws:ecr:eu-west-1:444455556666:repository/x",
        "arn:aws:iam::444455556666:role/a b",
    ],
)
def test_everybody_and_nobody_are_no_principals(text: str) -> None:
    with pytest.raises(UsageError, match="is no principal"):
        parse_principal(text)


@pytest.mark.parametrize(
    "text",
    [
        "arn:aws-cn:iam::444455556666:root",
        "arn:aws:iam::444455556666:user/path/name",
        "arn:aws:sts::444455556666:assumed-role/push/session",
    ],
)
def test_principals_are_taken_as_they_are(text: str) -> None:
    assert parse_principal(text) == text


def test_registry_policy_has_a_statement_for_each_source() -> None:
    destination = Registry("111122223333", "us-gov-west-1")
    policy = registry_policy(destination, ["444455556666", "777788889999"], ["prod-", "team/"])
    assert [s["Principal"]["AWS"] for s in policy["Statement"]] == [
        "arn:aws-us-gov:iam::444455556666:root",
        "arn:aws-us-gov:iam::777788889999:root",
    ]
    for statement in policy["Statement"]:
        assert statement["Action"] == ["ecr:CreateRepository", "ecr:ReplicateImage"]
        assert statement["Resource"] == [
            f"arn:aws-us-gov:ecr:us-gov-west-1:111122223333:repository/{prefix}*"
            for prefix in ("prod-", "team/")
        ]


@pytest.mark.parametrize(
    ("source", "prefix"), [("12", "a-"), ("111122223333", "a-"), ("444455556666", "*")]
)
def test_registry_policy_refuses_what_cannot_be_meant(source: str, prefix: str) -> None:
    with pytest.raises(UsageError):
        registry_policy(Registry("111122223333", "us-east-1"), [source], [prefix])
