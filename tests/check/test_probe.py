"""The questions of a check: what their answers prove, and that nothing comes of asking them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.errors import (
    AccessDeniedError,
    ClockError,
    CredentialsError,
    RegistryError,
    RepositoryNotFoundError,
)
from asyncpush.localregistry import (
    CallInfo,
    Fault,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
)
from asyncpush.plan.reference import Registry
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.registries.ecr.probe import EcrProbe, Mutability, open_probe
from asyncpush.registries.ecr.session import is_aws

pytestmark = pytest.mark.anyio

REGISTRY = Registry("111122223333", "eu-west-1")
ARN = f"arn:aws:ecr:eu-west-1:{REGISTRY.account}:repository/team/app"
PROOFS = {
    "UploadLayerPart": EcrProbe.upload_part,
    "CompleteLayerUpload": EcrProbe.complete_upload,
    "PutImage": EcrProbe.put_manifest,
}


def key(actions: Iterable[str] | None = None) -> Key:
    policy = None
    if actions is not None:
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": ARN}
        policy = {"Version": "2012-10-17", "Statement": [statement]}
    return Key("AKIDPROBEPROBEPROBE0", "secret", REGISTRY.account, policy=policy)


@asynccontextmanager
async def probing(
    root: Path, allowed: Iterable[str] | None = None, **options: Any
) -> AsyncIterator[tuple[RunningRegistry, EcrProbe]]:
    """A registry with the repository team/app, and the questions to it."""
    own = key(allowed)
    settings = LocalRegistryOptions(**options)
    async with LocalRegistry(root, [own], settings).run() as server:
        await server.ensure_repository(REGISTRY.account, REGISTRY.region, "team/app")
        aws = AwsOptions(
            access_key_id=own.access_key_id,
            secret_access_key=own.secret_access_key,
            endpoint_url=server.url,
        )
        async with open_probe(REGISTRY, aws, connections=2, user_agent="test") as probe:
            yield server, probe


def content(root: Path) -> tuple[list[str], list[str]]:
    """All that a local registry keeps."""
    files = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    with closing(sqlite3.connect(f"file:{root / 'registry.sqlite3'}?mode=ro", uri=True)) as db:
        return [f for f in files if not f.endswith(("-wal", "-shm"))], list(db.iterdump())


@pytest.mark.parametrize("action", PROOFS)
async def test_an_allowed_action_is_proven_and_changes_nothing(tmp_path: Path, action: str) -> None:
    async with probing(tmp_path, [f"ecr:{action}"]) as (server, probe):
        before = content(tmp_path)
        assert await PROOFS[action](probe, "team/app")
        assert content(tmp_path) == before
        assert set(server.calls.counters.calls) == {action}
        (record,) = server.calls
        assert record.status == 400
        assert record.acknowledged_bytes == 0


@pytest.mark.parametrize("action", PROOFS)
async def test_a_denied_action_is_told(tmp_path: Path, action: str) -> None:
    others = [f"ecr:{name}" for name in PROOFS if name != action]
    async with probing(tmp_path, others) as (_, probe):
        with pytest.raises(AccessDeniedError, match=f"perform: ecr:{action} on resource: {ARN}"):
            await PROOFS[action](probe, "team/app")


@pytest.mark.parametrize("action", PROOFS)
async def test_a_repository_that_does_not_exist_is_told_and_proves_the_action(
    tmp_path: Path, action: str
) -> None:
    async with probing(tmp_path) as (_, probe):
        assert not await PROOFS[action](probe, "no/such")


@pytest.mark.parametrize("action", PROOFS)
async def test_another_answer_proves_nothing(tmp_path: Path, action: str) -> None:
    def other(call: CallInfo) -> Fault:
        return Fault(code="InvalidParameterException", message="before any policy was asked")

    async with probing(tmp_path, faults=other) as (_, probe):
        with pytest.raises(RegistryError, match="before any policy"):
            await PROOFS[action](probe, "team/app")


async def test_questions_that_read_prove_themselves(tmp_path: Path) -> None:
    async with probing(tmp_path) as (_, probe):
        await probe.authorize()
        assert await probe.available("team/app", [probe.nothing]) == set()
        assert await probe.mutability(["team/app"]) == {"team/app": Mutability(immutable=False)}
        assert await probe.tagged("team/app", ["v1"]) == {}
        with pytest.raises(RepositoryNotFoundError):
            await probe.available("no/such", [probe.nothing])
    async with probing(tmp_path, ["ecr:PutImage"]) as (_, probe):
        for ask in (
            probe.authorize(),
            probe.available("team/app", [probe.nothing]),
            probe.mutability(["team/app"]),
            probe.tagged("team/app", ["v1"]),
        ):
            with pytest.raises(AccessDeniedError):
                await ask


@pytest.mark.parametrize("off", [-3600.0, -250.0, 0.0, 250.0, 3600.0])
async def test_the_clocks_difference_is_known_from_every_answer(tmp_path: Path, off: float) -> None:
    async with probing(tmp_path, clock=lambda: time.time() + off) as (_, probe):
        assert probe.skew is None
        if abs(off) > 300:
            with pytest.raises(ClockError):
                await probe.authorize()
        else:
            await probe.authorize()
        assert probe.skew == pytest.approx(off, abs=60)


async def test_credentials_say_where_they_are_from(tmp_path: Path) -> None:
    async with probing(tmp_path) as (_, probe):
        identity = await probe.identify()
    assert identity.source == "the program"
    assert identity.key == "...OBE0"
    assert identity.account is None
    assert "STS is not asked" in identity.unknown


async def test_missing_credentials_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    aws = AwsOptions(endpoint_url="http://127.0.0.1:1")
    async with open_probe(REGISTRY, aws, connections=1, user_agent="test") as probe:
        with pytest.raises(CredentialsError, match="Unable to locate credentials"):
            await probe.identify()
    with pytest.raises(CredentialsError, match="nobody"):
        async with open_probe(
            REGISTRY, AwsOptions(profile="nobody"), connections=1, user_agent="test"
        ):
            pass


@pytest.mark.parametrize(
    ("immutable", "excluded", "tag", "fixed"),
    [
        (True, (), "v1", True),
        (False, (), "v1", False),
        (True, ("dev-*", "latest"), "dev-7", False),
        (True, ("dev-*", "latest"), "latest", False),
        (True, ("dev-*", "latest"), "v1-dev-7", True),
        (True, ("*-rc*",), "v1-rc2", False),
        (False, ("v*",), "v1", True),
        (False, ("v*",), "main", False),
    ],
)
def test_filters_exclude_tags_from_what_holds_for_the_others(
    immutable: bool, excluded: tuple[str, ...], tag: str, fixed: bool
) -> None:
    assert Mutability(immutable, excluded).fixes(tag) == fixed


@given(st.text("ab.-_", min_size=1, max_size=6), st.text("ab.-_", min_size=1, max_size=8))
def test_a_filter_without_a_wildcard_means_one_tag(text: str, tag: str) -> None:
    assert Mutability(immutable=False, excluded=(text,)).fixes(tag) == (text == tag)


@pytest.mark.parametrize(
    ("endpoint", "aws"),
    [
        ("https://api.ecr.eu-central-1.amazonaws.com", True),
        ("https://api.ecr.cn-north-1.amazonaws.com.cn", True),
        ("https://ecr.us-east-1.api.aws", True),
        ("https://api.ecr.us-iso-east-1.c2s.ic.gov", True),
        ("https://vpce-1.api.ecr.eu-west-1.vpce.amazonaws.com:443", True),
        ("http://127.0.0.1:5000", False),
        ("https://amazonaws.com.example.org", False),
        ("https://evilamazonaws.com", False),
    ],
)
def test_endpoints_of_aws_are_known_by_their_domain(endpoint: str, aws: bool) -> None:
    assert is_aws(endpoint) == aws
