"""A finished migration again: one call to the source a tag, 100 tags a call to the target, no byte.

``ASYNCPUSH_TAGS=2000`` runs it with as many tags; by default there are fewer, for the time it takes
to push them once.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from support import ACCOUNT, HOST, KEY_ID, PUSH_ACTIONS, REGION, SECRET, asyncpush, environment

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions, PushReport
from asyncpush.localregistry import (
    DistributionOptions,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
)
from asyncpush.localregistry.identity import Registry
from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio

TAGS = int(os.environ.get("ASYNCPUSH_TAGS", "400"))
TAGS_OF_AN_IMAGE = 4
REPOSITORY = "team/app"
SIX_ACTIONS = Key(
    "AKIDTESTSSIXACTIONS0",
    SECRET,
    ACCOUNT,
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [f"ecr:{name}" for name in sorted(PUSH_ACTIONS)],
                "Resource": "*",
            }
        ],
    },
)
NO_QUOTAS = {"PutImage": 5000, "InitiateLayerUpload": 5000, "CompleteLayerUpload": 5000}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    writer = LayoutWriter(tmp_path_factory.mktemp("unchanged") / "layout")
    shared = writer.blob(os.urandom(10_000), mediatypes.OCI_LAYER)
    for number in range(0, TAGS, TAGS_OF_AN_IMAGE):
        image = writer.image([shared, writer.blob(os.urandom(100), mediatypes.OCI_LAYER)])
        for tag in range(number, number + TAGS_OF_AN_IMAGE):
            writer.entry(image, f"v{tag}")
    return writer.close()


@asynccontextmanager
async def serving(store: Path) -> AsyncIterator[RunningRegistry]:
    """A registry of both APIs that anybody may read."""
    options = LocalRegistryOptions(
        distribution=DistributionOptions(anonymous_push=True),
        default_registry=Registry(ACCOUNT, REGION),
    )
    keys = [Key(KEY_ID, SECRET, ACCOUNT), SIX_ACTIONS]
    async with LocalRegistry(store, keys, options).run() as server:
        await server.ensure_repository(ACCOUNT, REGION, REPOSITORY)
        yield server


def options_for(server: RunningRegistry, key_id: str = KEY_ID, **options: Any) -> PushOptions:
    aws = AwsOptions(access_key_id=key_id, secret_access_key=SECRET, endpoint_url=server.url)
    return PushOptions(aws=aws, quotas=NO_QUOTAS, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, layout: Path) -> Path:
    """The store of a registry that all of it was pushed to."""
    store = tmp_path_factory.mktemp("finished") / "store"

    async def first_run() -> None:
        async with serving(store) as server, Pusher(options_for(server)) as pusher:
            report = await pusher.push([PushItem(layout, f"{HOST}/{REPOSITORY}")])
            assert report.ok
            assert len(report.images) == TAGS

    anyio.run(first_run)
    return store


@pytest.fixture
def target_store(tmp_path: Path, finished: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "target")


async def push_again(
    source: str | Path, server: RunningRegistry, options: PushOptions
) -> PushReport:
    server.calls.clear()
    async with Pusher(options) as pusher:
        report = await pusher.push([PushItem(source, f"{HOST}/{REPOSITORY}")])
    assert report.nothing_to_do
    assert len(report.images) == TAGS
    return report


def calls_of(server: RunningRegistry, actions: Sequence[str]) -> int:
    return sum(server.calls.counters.calls[action] for action in actions)


@pytest.mark.parametrize("transport", ["native", "distribution", "auto"])
async def test_a_second_run_from_a_layout_asks_about_100_tags_in_a_call(
    target_store: Path, layout: Path, transport: str
) -> None:
    async with serving(target_store) as server:
        report = await push_again(layout, server, options_for(server, transport=transport))
        assert_untouched(server)
        assert report.avoidable_puts == 0


@pytest.mark.parametrize("transport", ["native", "distribution", "auto"])
@pytest.mark.parametrize("kind", ["docker", "ecr"])
async def test_a_second_run_from_a_registry_asks_it_for_one_head_a_tag(
    tmp_path: Path, target_store: Path, finished: Path, kind: str, transport: str
) -> None:
    origin = shutil.copytree(finished, tmp_path / "source")
    async with serving(origin) as source, serving(target_store) as server:
        options = options_for(server, transport=transport, source_aws=options_for(source).aws)
        text = f"{HOST}/{REPOSITORY}"
        if kind == "docker":
            text = f"docker://{source.url.removeprefix('http://')}/{REPOSITORY}"
        source.calls.clear()
        await push_again(text, server, options)
        assert_untouched(server)
        counters = source.calls.counters
        assert counters.calls["v2.HeadManifest"] == TAGS
        others = counters.calls.total() - TAGS
        # The list of tags, page by page, and what it takes to sign in.
        assert others <= 3 + TAGS // 100, counters.calls
        assert not calls_of(source, ["v2.GetManifest", "v2.GetBlob"])


def assert_untouched(server: RunningRegistry) -> None:
    counters = server.calls.counters
    assert counters.layer_bytes_received == 0
    assert not calls_of(server, ["PutImage", "v2.PutManifest"])
    assert counters.calls.total() <= TAGS / 10, counters.calls


@pytest.mark.parametrize("atomic", [False, True])
async def test_with_six_actions_it_puts_each_manifest_and_says_what_a_seventh_saves(
    target_store: Path, layout: Path, atomic: bool
) -> None:
    async with serving(target_store) as server:
        options = options_for(server, SIX_ACTIONS.access_key_id, atomic=atomic)
        report = await push_again(layout, server, options)
        counters = server.calls.counters
        assert counters.layer_bytes_received == 0
        # A release puts each image by digest before it puts its tags.
        puts = TAGS + (TAGS // TAGS_OF_AN_IMAGE if atomic else 0)
        assert counters.calls["PutImage"] == report.avoidable_puts == puts
        # A denial is remembered.
        assert counters.calls["BatchGetImage"] == 1


async def test_what_a_seventh_action_saves_is_in_summary_and_report(
    tmp_path: Path, target_store: Path, layout: Path
) -> None:
    path = tmp_path / "report.json"

    def run(key_id: str) -> tuple[str, dict[str, Any], str]:
        env = environment(server.url, key_id)
        command = ["push", f"{layout}:v0", f"{HOST}/{REPOSITORY}", "--report", path]
        done = asyncpush(*command, env=env)
        assert done.returncode == 0, done.stderr
        shown = asyncpush("report", path, env=env).stdout
        return done.stdout, json.loads(path.read_text()), shown

    async with serving(target_store) as server:
        out, document, shown = await anyio.to_thread.run_sync(run, SIX_ACTIONS.access_key_id)
        line = "1 PutImage call could be saved by granting ecr:BatchGetImage"
        assert line in out
        assert line in shown
        assert document["totals"]["avoidable_puts"] == 1
        assert document["registries"][HOST]["avoidable_puts"] == 1
        out, document, shown = await anyio.to_thread.run_sync(run, KEY_ID)
        assert "could be saved" not in out + shown
        assert document["totals"]["avoidable_puts"] == 0
