"""Listing an ECR registry: page by page, with times, and what a denial says to do."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import pytest
from registry_driver import ACCOUNT, REGION, SMALL_PARTS, connect, manifest_text, put_image, upload

from asyncpush.errors import (
    AccessDeniedError,
    CredentialsError,
    RegistryError,
    RepositoryNotFoundError,
)
from asyncpush.localregistry import DEFAULT_KEY, Key, LocalRegistry, RunningRegistry
from asyncpush.plan.reference import Registry
from asyncpush.registries.ecr import listing as listings
from asyncpush.registries.ecr.listing import EcrListing
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.registries.ecr.session import open_client

pytestmark = pytest.mark.anyio
T = TypeVar("T")
LIMITED = Key(
    "AKIDLISTSNOTHING0000",
    "secret-of-the-tests",
    ACCOUNT,
    user="limited",
    policy={
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "ecr:BatchGetImage", "Resource": "*"}],
    },
)
WHERE = Registry(ACCOUNT, REGION)


@contextlib.asynccontextmanager
async def listing_of(server: RunningRegistry, key: Key = DEFAULT_KEY) -> AsyncIterator[EcrListing]:
    aws = AwsOptions(
        access_key_id=key.access_key_id,
        secret_access_key=key.secret_access_key,
        endpoint_url=server.url,
    )
    async with open_client(WHERE, aws, 4, "tests") as client:
        yield EcrListing(client, WHERE)


async def on_thread(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningRegistry]:
    keys = (DEFAULT_KEY, LIMITED)
    registry = LocalRegistry(tmp_path / "root", keys, options=SMALL_PARTS)
    async with registry.run() as running:
        yield running


async def test_names_and_tags_come_page_by_page_with_times(
    server: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "_PAGE", 2)
    names = [f"team/r{i}" for i in range(5)]
    async with connect(server) as ecr:
        for name in names:
            await ecr.create_repository(repositoryName=name)
        digests = []
        for i in range(3):
            text = manifest_text(await upload(ecr, f"config {i}".encode(), name=names[0]), [])
            digests.append(await put_image(ecr, text, f"v{i}", repositoryName=names[0]))
            await put_image(ecr, text, f"v{i}.0", repositoryName=names[0])
        untagged = manifest_text(await upload(ecr, b"untagged", name=names[0]), [])
        await put_image(ecr, untagged, repositoryName=names[0])
        await ecr.batch_get_image(repositoryName=names[0], imageIds=[{"imageTag": "v1"}])
    async with listing_of(server) as listing:
        assert await on_thread(lambda: list(listing.repositories("team/*"))) == names
        tags = {tag.name: tag for tag in await on_thread(lambda: list(listing.tags(names[0])))}
        assert await on_thread(lambda: list(listing.tags(names[1]))) == []
    assert sorted(tags) == ["v0", "v0.0", "v1", "v1.0", "v2", "v2.0"]
    assert tags["v1"].digest == tags["v1.0"].digest == digests[1]
    now = datetime.now(UTC)
    assert all(
        tag.pushed_at is not None and now - tag.pushed_at < timedelta(minutes=5)
        for tag in tags.values()
    )
    assert {name for name, tag in tags.items() if tag.pulled_at} == {"v1", "v1.0"}
    assert listing.push_times
    assert listing.pull_times


async def test_a_page_is_asked_for_when_it_is_needed(
    server: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "_PAGE", 2)
    asked: list[str] = []

    def ask(name: str, call: Callable[[], Any]) -> Any:
        asked.append(name)
        return listings.ask_once(name, call)

    async with connect(server) as ecr:
        for i in range(5):
            await ecr.create_repository(repositoryName=f"r{i}")
    async with listing_of(server) as plain:
        listing = EcrListing(plain._client, WHERE, ask)
        names = listing.repositories("*")
        assert await on_thread(lambda: [next(names), next(names)]) == ["r0", "r1"]
        assert asked == ["DescribeRepositories"]
        assert await on_thread(lambda: list(names)) == ["r2", "r3", "r4"]
        assert asked == ["DescribeRepositories"] * 3


async def test_a_denial_says_what_to_list_instead(server: RunningRegistry) -> None:
    async with connect(server) as ecr:
        await ecr.create_repository(repositoryName="team/app")
    async with listing_of(server, LIMITED) as listing:
        with pytest.raises(AccessDeniedError) as caught:
            await on_thread(lambda: list(listing.repositories("team/*")))
        line = str(caught.value)
        assert "name the repositories in images: instead of a pattern" in line
        assert "ecr:DescribeRepositories" in line
        assert f"images {WHERE.host}/team/*" in line
        with pytest.raises(AccessDeniedError) as caught:
            await on_thread(lambda: list(listing.tags("team/app")))
        assert f"name images with their tags: {WHERE.host}/team/app:TAG" in str(caught.value)


async def test_a_repository_that_is_not_there_and_keys_that_are_none(
    server: RunningRegistry,
) -> None:
    async with listing_of(server) as listing:
        with pytest.raises(RepositoryNotFoundError) as caught:
            await on_thread(lambda: list(listing.tags("team/none")))
    assert "check name, account and Region of the source" in str(caught.value)
    assert "create" not in str(caught.value)
    wrong = Key("AKIDNOBODYKNOWSTHIS0", "another-secret", ACCOUNT)
    async with listing_of(server, wrong) as listing:
        with pytest.raises(CredentialsError):
            await on_thread(lambda: list(listing.tags("team/none")))


async def test_pagination_that_loops_is_an_error() -> None:
    class Looping:
        async def describe_repositories(self, **arguments: Any) -> dict[str, Any]:
            return {"repositories": [{"repositoryName": "a"}], "nextToken": "again"}

        async def describe_images(self, **arguments: Any) -> dict[str, Any]:
            return {"imageDetails": [], "nextToken": "again"}

    listing = EcrListing(Looping(), WHERE)
    with pytest.raises(RegistryError, match="the listing loops"):
        await on_thread(lambda: list(listing.repositories("*")))
    with pytest.raises(RegistryError, match="the listing loops"):
        await on_thread(lambda: list(listing.tags("a")))
