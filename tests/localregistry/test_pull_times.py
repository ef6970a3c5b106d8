"""When images were pulled: recorded by pulls, listed by DescribeImages, kept by older roots."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from oci_driver import serving
from registry_driver import NAME, SMALL_PARTS, connect, push_image

from asyncpush.localregistry import LocalRegistry

pytestmark = pytest.mark.anyio


async def pulled(ecr: Any, tag: str) -> datetime | None:
    found = await ecr.describe_images(repositoryName=NAME, imageIds=[{"imageTag": tag}])
    time: datetime | None = found["imageDetails"][0].get("lastRecordedPullTime")
    return time


async def test_pulls_are_recorded_once_a_day(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    options = replace(SMALL_PARTS, clock=lambda: now, max_clock_skew=10**9)
    registry = LocalRegistry(tmp_path / "root", options=options)
    async with registry.run() as server, connect(server) as ecr:
        await ecr.create_repository(repositoryName=NAME)
        await push_image(ecr, "one", "v1")
        assert await pulled(ecr, "v1") is None
        get = {"repositoryName": NAME, "imageIds": [{"imageTag": "v1"}]}
        await ecr.batch_get_image(**get)
        assert await pulled(ecr, "v1") == datetime.fromtimestamp(now, UTC)
        now += 3600
        await ecr.batch_get_image(**get)
        assert await pulled(ecr, "v1") == datetime.fromtimestamp(now - 3600, UTC)
        now += 86400
        await ecr.batch_get_image(**get)
        assert await pulled(ecr, "v1") == datetime.fromtimestamp(now, UTC)


async def test_a_get_over_distribution_is_a_pull_and_a_head_is_none(tmp_path: Path) -> None:
    async with serving(tmp_path / "root") as (_, ecr, oci):
        await ecr.create_repository(repositoryName=NAME)
        await push_image(ecr, "one", "v1")
        async with oci.head(f"/v2/{NAME}/manifests/v1") as answer:
            assert answer.status == 200
        assert await pulled(ecr, "v1") is None
        async with oci.get(f"/v2/{NAME}/manifests/v1") as answer:
            assert answer.status == 200
        assert await pulled(ecr, "v1") is not None


async def test_a_root_of_the_format_before_is_brought_up(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path / "root", options=SMALL_PARTS)
    async with registry.run() as server, connect(server) as ecr:
        await ecr.create_repository(repositoryName=NAME)
        await push_image(ecr, "one", "v1")
    with sqlite3.connect(tmp_path / "root" / "registry.sqlite3") as connection:
        connection.execute("ALTER TABLE manifests DROP COLUMN pulled")
        connection.execute("PRAGMA user_version=2")
    connection.close()
    async with registry.run() as server, connect(server) as ecr:
        assert await pulled(ecr, "v1") is None
        await ecr.batch_get_image(repositoryName=NAME, imageIds=[{"imageTag": "v1"}])
        assert await pulled(ecr, "v1") is not None
        await push_image(ecr, "two", "v2")
