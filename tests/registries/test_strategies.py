"""Which registry gets which requests for a blob."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from asyncpush.registries.base import WHOLE, UploadSession
from asyncpush.registries.distribution.strategies import (
    AZURE,
    CHUNK,
    ONE_PATCH,
    ONE_PUT,
    api_host,
    part_size_of,
    strategy_of_host,
)

ECR = "111122223333.dkr.ecr.eu-central-1.amazonaws.com"
DISTRIBUTION = {
    "docker-distribution-api-version": "registry/2.0",
    "docker-upload-uuid": "a-session",
    "range": "0-0",
}


@pytest.mark.parametrize(
    ("host", "strategy"),
    [
        ("ghcr.io", ONE_PATCH),
        ("GHCR.io:443", ONE_PATCH),
        ("gcr.io", ONE_PUT),
        ("eu.gcr.io", ONE_PUT),
        ("us-docker.pkg.dev", ONE_PUT),
        ("europe-west3-docker.pkg.dev", ONE_PUT),
        ("team.azurecr.io", AZURE),
        ("team.eastus.data.azurecr.cn", AZURE),
        ("docker.io", ONE_PUT),
        ("index.docker.io", ONE_PUT),
        ("registry-1.docker.io", ONE_PUT),
        ("notghcr.io", None),
        ("ghcr.io.example.com", None),
        ("mygcr.io", None),
        ("docker.pkg.dev", None),
        ("azurecr.io", None),
        ("registry.example.com:5000", None),
        ("127.0.0.1:5000", None),
        ("[::1]:5000", None),
        ("public.ecr.aws", None),
    ],
)
def test_registries_are_known_by_their_whole_host(host: str, strategy: object) -> None:
    assert strategy_of_host(host) is strategy


@pytest.mark.parametrize(
    "host",
    [
        ECR,
        "111122223333.dkr.ecr-fips.us-east-1.amazonaws.com",
        "111122223333.dkr-ecr.eu-west-1.on.aws",
        "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn",
    ],
)
def test_ecr_keeps_chunks_and_proves_them_itself(host: str) -> None:
    strategy = strategy_of_host(host)
    assert strategy is not None
    assert part_size_of(host, {}) == CHUNK
    assert not strategy.confirms(whole=True)
    assert not strategy.confirms(whole=False)


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        ({}, WHOLE),
        ({"Docker-Distribution-Api-Version": "registry/2.0"}, WHOLE),
        ({k: v for k, v in DISTRIBUTION.items() if k != "range"}, WHOLE),
        ({**DISTRIBUTION, "range": "0-17"}, WHOLE),
        (DISTRIBUTION, CHUNK),
        ({"OCI-Chunk-Min-Length": "5242880"}, CHUNK),
        ({"OCI-Chunk-Min-Length": str(CHUNK + 1)}, CHUNK + 1),
        ({"OCI-Chunk-Min-Length": "none"}, CHUNK),
    ],
)
def test_chunks_take_evidence_that_they_are_kept(headers: dict[str, str], size: int) -> None:
    answer = CIMultiDict(headers)
    assert part_size_of("registry.example.com", answer) == size
    assert UploadSession("s", size).whole == (size == WHOLE)


def test_what_is_known_of_a_host_outweighs_its_answers() -> None:
    evidence = CIMultiDict({**DISTRIBUTION, "OCI-Chunk-Min-Length": "1"})
    for host in ("ghcr.io", "gcr.io", "us-docker.pkg.dev", "docker.io"):
        assert part_size_of(host, evidence) == WHOLE
    assert part_size_of("team.azurecr.io", evidence) == AZURE.most < 20_000_000
    assert part_size_of(ECR, CIMultiDict({"OCI-Chunk-Min-Length": str(CHUNK * 2)})) == CHUNK * 2


@given(st.text(), st.text(), st.text())
def test_no_answer_and_no_host_does_harm(host: str, least: str, found: str) -> None:
    answer = CIMultiDict({**DISTRIBUTION, "OCI-Chunk-Min-Length": least, "Range": found})
    # What the journal stores is a 64-bit integer.
    assert CHUNK <= part_size_of(host, answer) <= WHOLE < 2**63
    assert part_size_of("a", CIMultiDict({"OCI-Chunk-Min-Length": "9" * 5000})) == CHUNK


def test_the_api_of_docker_hub_has_a_host_of_its_own() -> None:
    assert api_host("docker.io") == api_host("Index.Docker.io") == "registry-1.docker.io"
    assert api_host("registry.example.com:5000") == "registry.example.com:5000"
