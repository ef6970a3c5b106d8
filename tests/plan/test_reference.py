"""References: every host and ARN that AWS documents, and a helpful word about all others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpush.errors import InvalidReferenceError, without_user
from asyncpush.oci.digest import compute
from asyncpush.plan.reference import (
    Reference,
    Registry,
    Repository,
    is_tag,
    parse_reference,
    without_password,
)

A = "111122223333"
DIGEST = compute(b"")
HOSTS = [
    (f"{A}.dkr.ecr.eu-west-1.amazonaws.com", "aws", False, False),
    (f"{A}.dkr.ecr-fips.us-east-1.amazonaws.com", "aws", True, False),
    (f"{A}.dkr.ecr.us-gov-west-1.amazonaws.com", "aws-us-gov", False, False),
    (f"{A}.dkr.ecr-fips.us-gov-east-1.amazonaws.com", "aws-us-gov", True, False),
    (f"{A}.dkr.ecr.cn-north-1.amazonaws.com.cn", "aws-cn", False, False),
    (f"{A}.dkr.ecr.eusc-de-east-1.amazonaws.eu", "aws-eusc", False, False),
    (f"{A}.dkr.ecr.us-iso-east-1.c2s.ic.gov", "aws-iso", False, False),
    (f"{A}.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", "aws-iso-b", False, False),
    (f"{A}.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", "aws-iso-e", False, False),
    (f"{A}.dkr.ecr.us-isof-south-1.csp.hci.ic.gov", "aws-iso-f", False, False),
    (f"{A}.dkr-ecr.eu-west-1.on.aws", "aws", False, True),
    (f"{A}.dkr-ecr-fips.us-gov-west-1.on.aws", "aws-us-gov", True, True),
    (f"{A}.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", "aws-cn", False, True),
]


@pytest.mark.parametrize(("host", "partition", "fips", "dual_stack"), HOSTS)
@pytest.mark.parametrize("scheme", ["", "docker://"])
def test_every_registry_host_is_understood(
    scheme: str, host: str, partition: str, fips: bool, dual_stack: bool
) -> None:
    reference = parse_reference(f"{scheme}{host}/team/app:v1@{DIGEST}")
    registry = reference.repository.registry
    region = registry.region
    assert (registry.account, registry.partition) == (A, partition)
    assert (registry.fips, registry.dual_stack, registry.host) == (fips, dual_stack, host)
    assert (reference.repository.name, reference.tag, reference.digest) == (
        "team/app",
        "v1",
        DIGEST,
    )
    assert reference.repository.arn == f"arn:{partition}:ecr:{region}:{A}:repository/team/app"


@pytest.mark.parametrize(("host", "partition", "fips", "dual_stack"), HOSTS)
def test_every_arn_leads_to_its_registry(
    host: str, partition: str, fips: bool, dual_stack: bool
) -> None:
    by_host = parse_reference(f"{host}/team/app").repository
    by_arn = parse_reference(f"{by_host.arn}:v1")
    assert (by_arn.repository.arn, by_arn.tag) == (by_host.arn, "v1")
    if not fips and not dual_stack:
        assert by_arn.repository == by_host


def test_a_repository_of_one_letter_is_one_everywhere_but_in_ecr() -> None:
    assert parse_reference("docker://127.0.0.1:5000/a:v1").repository.name == "a"
    with pytest.raises(InvalidReferenceError, match="a registry takes no repository named 'A'"):
        parse_reference("docker://127.0.0.1:5000/A")
    with pytest.raises(InvalidReferenceError, match="ECR takes no repository named 'a'"):
        parse_reference(f"{HOSTS[0][0]}/a")


COMPONENTS = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-{1,3})[a-z0-9]+){0,2}", fullmatch=True)
REFERENCES = st.builds(
    Reference,
    st.builds(
        Repository,
        st.sampled_from([parse_reference(f"{h}/app").repository.registry for h, *_ in HOSTS]),
        st.lists(COMPONENTS, min_size=1, max_size=3)
        .map("/".join)
        .filter(lambda name: 2 <= len(name) <= 256),
    ),
    st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
    st.none() | st.binary(max_size=4).map(compute),
)


@given(REFERENCES)
@settings(deadline=None)
def test_what_is_written_is_read_back(reference: Reference) -> None:
    assert parse_reference(str(reference)) == reference


@given(st.text() | st.text().map(lambda rest: f"{HOSTS[0][0]}/{rest}"))
@settings(deadline=None)
def test_any_other_text_is_refused_in_our_own_words(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReferenceError as exc:
        refusal = exc
    else:
        assert parse_reference(str(reference)) == reference
        return
    assert refusal.where["reference"] == without_user(without_password(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("docker://user:hush@registry.example/app", "docker://***@registry.example/app"),
        (f"https://user:hush@{HOSTS[0][0]}/app", f"https://***@{HOSTS[0][0]}/app"),
        (f"user:hush@{HOSTS[0][0]}/app", f"***@{HOSTS[0][0]}/app"),
        ("app:v1@sha256:123", "app:v1@sha256:123"),
    ],
)
def test_refusal_tells_no_password(text: str, shown: str) -> None:
    with pytest.raises(InvalidReferenceError) as refused:
        parse_reference(text)
    assert refused.value.where["reference"] == shown
    assert "hush" not in str(refused.value)


H = HOSTS[0][0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no ECR reference.*write ACCOUNT.dkr.ecr.REGION"),
        ("app:v1", "no ECR reference"),
        ("docker.io/library/alpine", "no ECR reference"),
        ("public.ecr.aws/alias/app", "no ECR reference"),
        (f"https://{H}/app", "no ECR reference"),
        (H, "no ECR reference"),
        (f"{A}0.dkr.ecr.eu-west-1.amazonaws.com/app", "no ECR reference"),
        ("\u0661" * 12 + ".dkr.ecr.eu-west-1.amazonaws.com/app", "no ECR reference"),
        (f"{H}.evil.example/app", "no ECR reference"),
        (f"{A}.dkr-ecr.eu-west-1.amazonaws.com/app", f"did you mean {H}?"),
        (f"{A}.dkr.ecr.eu-west-1.on.aws/app", f"did you mean {A}.dkr-ecr.eu-west-1.on.aws?"),
        (f"{H}/", "no repository named ''.*2 to 256 characters"),
        (f"{H}/a", "no repository named 'a'"),
        (f"{H}/{'a' * 257}", "no repository named"),
        (f"{H}/App", "no repository named 'App'"),
        (f"{H}/team//app", "no repository named"),
        (f"{H}/../app", "no repository named"),
        (f"{H}/app/", "no repository named"),
        (f"{H}/app_", "no repository named"),
        (f"{H}/app\n", "no repository named"),
        (f"{H}/app:", "no tag ''.*1 to 300"),
        (f"{H}/app:-v1", "no tag '-v1'"),
        (f"{H}/app:v1:v2", "no tag 'v1:v2'"),
        (f"{H}/app:{'v' * 301}", "no tag"),
        (f"{H}/app@", "not a digest: ''"),
        (f"{H}/app@sha256:abc", "64 lower-case hex digits"),
        (f"{H}/app@{DIGEST}:v1", "not a digest"),
        (f"arn:aws-moon:ecr:eu-west-1:{A}:repository/app", "partition aws-moon is unknown"),
        (f"arn:aws:ecr:eu-west-1:{A}:repository/", "no ECR reference"),
        (f"arn:aws:s3:eu-west-1:{A}:repository/app", "no ECR reference"),
    ],
)
def test_a_wrong_reference_is_told_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(InvalidReferenceError, match=message):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "good"),
    [("v1", True), ("_", True), ("1.0-rc_2", True), ("v" * 300, True), ("v" * 301, False)]
    + [(text, False) for text in ("", ".v1", "-v1", "a/b", "a:b", "v1\n", "ü")],
)
def test_tags_follow_the_grammar(text: str, good: bool) -> None:
    assert is_tag(text) is good


def test_a_registry_defaults_to_the_plain_endpoint() -> None:
    assert str(Registry(A, "eu-west-1")) == H
