"""Printed policies, enforced: with them a job runs, and without any one action it fails on that."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet import (
    KEYS,
    ONE,
    REGISTRIES,
    TWO,
    all_tags,
    items_for,
    options_for,
    serving,
    wanted_tags,
    write_layouts,
)
from support import PUSH_ACTIONS, asyncpush, environment

from asyncpush import AwsOptions, ImageStatus, Pusher, PushItem, PushReport
from asyncpush.engine.events import Warned
from asyncpush.engine.replication import open_replication
from asyncpush.engine.replication_wait import ReplicationWait, WaitOptions, pushed_images
from asyncpush.errors import AccessDeniedError, AsyncpushError
from asyncpush.iam.document import dumps
from asyncpush.iam.resource import registry_policy
from asyncpush.localregistry import DistributionOptions, Key, RunningRegistry
from asyncpush.registries.base import RepositorySettings
from asyncpush.registries.ecr.session import open_client
from asyncpush.replication.results import ReplicationReport
from asyncpush.replication.rules import Destination, Rule

pytestmark = pytest.mark.anyio

Policies = dict[str, dict[str, Any]]
QUOTAS = {"PutImage": 1000, "CreateRepository": 1000}
CREATE = RepositorySettings(tags={"owner": "platform"})
# What a denial names: an ARN, or * for what has no resource.
ARN = f"arn:aws:ecr:eu-central-1:{ONE}:repository/app000"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of 12 repositories in three registries of two accounts, each with a profile."""
    folder = tmp_path_factory.mktemp("iam")
    write_layouts(folder / "layouts", 4, 1, layer=500, shared=2000)
    document = {
        "version": 1,
        "registries": [
            {"accounts": [ONE], "regions": ["eu-central-1", "us-east-1"], "profile": "one"},
            {"accounts": [TWO], "regions": ["eu-central-1"], "profile": "two"},
        ],
        "sources": [{"layouts": "layouts/*"}],
        "targets": [{"repository": "{directory}"}],
        "create_repositories": {"tags": {"owner": "platform"}},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(document))
    return folder


@functools.cache
def printed(folder: Path, *extras: str) -> Policies:
    """The policies that the command writes for the job, by the account whose key gets them."""
    out = folder / "-".join(("policies", *extras))
    options = ["--with", ",".join(extras)] if extras else []
    done = asyncpush(
        "iam",
        "policy",
        "--job",
        folder / "job.yaml",
        "--out",
        out,
        *options,
        env=environment(None, ""),
    )
    assert done.returncode == 0, done.stderr
    assert "policy-1.json: for profile one" in done.stdout
    one, two = (json.loads((out / f"policy-{n}.json").read_text()) for n in (1, 2))
    return {ONE: one, TWO: two}


def without(policies: Policies, action: str) -> Policies:
    """The same policies, but that account one is not allowed an action."""
    document = json.loads(json.dumps(policies[ONE]))
    left = []
    for statement in document["Statement"]:
        actions = statement["Action"]
        statement["Action"] = [a for a in _listed(actions) if a != f"ecr:{action}"]
        if statement["Action"]:
            left.append(statement)
    assert left != policies[ONE]["Statement"]
    return {ONE: {**document, "Statement": left}, TWO: policies[TWO]}


def _listed(actions: str | list[str]) -> list[str]:
    return [actions] if isinstance(actions, str) else actions


def keys(policies: Policies) -> Iterable[Key]:
    return [replace(KEYS[account], policy=policies[account]) for account in KEYS]


def layouts_of(folder: Path) -> list[Path]:
    return sorted((folder / "layouts").iterdir())


async def push(server: RunningRegistry, items: list[PushItem], **options: Any) -> PushReport:
    async with Pusher(options_for(server, quotas=QUOTAS, attempts=1, **options)) as pusher:
        return await pusher.push(items)


def items_here(layouts: list[Path]) -> list[PushItem]:
    """Every layout to a repository of its name in the first registry alone."""
    return [PushItem(layout, f"{REGISTRIES[0].host}/{layout.name}") for layout in layouts]


def assert_denied(error: AsyncpushError | None, action: str, resource: str) -> None:
    assert isinstance(error, AccessDeniedError)
    line = str(error)
    assert f"is not authorized to perform: ecr:{action} on resource: {resource} " in line
    assert f"allow ecr:{action} on {resource} for this principal" in line


async def test_with_the_printed_policy_the_job_runs(tmp_path: Path, folder: Path) -> None:
    layouts = layouts_of(folder)
    names = [layout.name for layout in layouts]
    async with serving(tmp_path / "store", names, keys=keys(printed(folder))) as server:
        report = await push(server, items_for(layouts))
        assert report.ok
        assert report.count(ImageStatus.PUSHED) == 12
        assert await all_tags(server, names) == wanted_tags(layouts)
        calls = server.calls.counters
        assert set(calls.calls) == PUSH_ACTIONS | {"BatchGetImage"}
        # A push can do without it: each registry denies it once, and is not asked again.
        assert calls.errors == {("BatchGetImage", "AccessDeniedException"): 3}
        assert calls.calls["BatchGetImage"] == 3


@pytest.mark.parametrize("action", sorted(PUSH_ACTIONS))
async def test_without_one_action_it_fails_on_that_action(
    tmp_path: Path, folder: Path, action: str
) -> None:
    layouts = layouts_of(folder)
    names = [layout.name for layout in layouts]
    policies = without(printed(folder), action)
    async with serving(tmp_path / "store", names, keys=keys(policies)) as server:
        report = await push(server, items_for(layouts))
        found = await all_tags(server, names)
    assert len(report.failed) == 8
    for image in report.failed:
        host, _, name = image.reference.partition(":")[0].partition("/")
        (registry,) = (r for r in REGISTRIES if r.host == host)
        assert registry.account == ONE
        arn = f"arn:aws:ecr:{registry.region}:{ONE}:repository/{name}"
        assert_denied(image.error, action, "*" if action == "GetAuthorizationToken" else arn)
    wanted = wanted_tags(layouts)
    for repository, tags in found.items():
        assert tags == ({} if repository.startswith(ONE) else wanted[repository])


async def test_creation_takes_its_actions_and_no_others(tmp_path: Path, folder: Path) -> None:
    items = items_here(layouts_of(folder)[:1])
    policies = printed(folder, "create")
    async with serving(tmp_path / "store", [], keys=keys(policies)) as server:
        assert (await push(server, items, create=CREATE)).ok
        called = set(server.calls.counters.calls)
        assert called == {*PUSH_ACTIONS, "BatchGetImage", "CreateRepository"}
    for action in ("CreateRepository", "TagResource"):
        lacking = without(policies, action)
        async with serving(tmp_path / action, [], keys=keys(lacking)) as server:
            report = await push(server, items, create=CREATE)
        (image,) = report.failed
        assert_denied(image.error, action, ARN)


@pytest.mark.parametrize(
    ("extra", "deep", "actions"),
    [
        ("verify", False, ["BatchGetImage"]),
        ("verify-deep", True, ["BatchGetImage", "GetDownloadUrlForLayer"]),
    ],
)
async def test_verification_takes_its_actions_and_no_others(
    tmp_path: Path, folder: Path, extra: str, deep: bool, actions: list[str]
) -> None:
    layouts = layouts_of(folder)[:1]
    policies = printed(folder, extra)
    for lacking in [None, *actions]:
        allowed = policies if lacking is None else without(policies, lacking)
        store = tmp_path / str(lacking)
        async with (
            serving(store, [layouts[0].name], keys=keys(allowed)) as server,
            Pusher(options_for(server, quotas=QUOTAS, attempts=1)) as pusher,
        ):
            plan, _ = await pusher.plan(items_here(layouts))
            assert (await pusher.push_plan(plan)).ok
            verified = await pusher.verify(plan, deep=deep)
        problems = [p for verdict in verified.verdicts for p in verdict.problems]
        if lacking is None:
            assert verified.ok, problems
        else:
            assert problems
            for problem in problems:
                assert_denied(problem, lacking, ARN)


async def test_rollback_takes_its_action_and_does_without_it(tmp_path: Path, folder: Path) -> None:
    layouts = layouts_of(folder)[:1]
    policies = printed(folder, "rollback")
    for lacking in (None, "BatchGetImage"):
        allowed = policies if lacking is None else without(policies, lacking)
        events: list[object] = []
        store = tmp_path / str(lacking)
        async with serving(store, [layouts[0].name], keys=keys(allowed)) as server:
            options = options_for(server, quotas=QUOTAS, atomic=True, rollback=True)
            async with Pusher(options, on_event=events.append) as pusher:
                assert (await pusher.push(items_here(layouts))).ok
        warnings = [event.message for event in events if isinstance(event, Warned)]
        assert bool(warnings) == (lacking is not None)
        if lacking is not None:
            assert any(f"perform: ecr:{lacking} on resource: {ARN} " in text for text in warnings)


async def test_mounts_take_their_action_and_a_push_does_without_them(
    tmp_path: Path, folder: Path
) -> None:
    layouts = write_layouts(tmp_path / "layouts", 4, 1, layer=500, shared=500_000)
    mounting = DistributionOptions(mounting="ecr", blob_mounting=True)
    policies = printed(folder, "mount")
    for lacking in (None, "GetDownloadUrlForLayer"):
        allowed = policies if lacking is None else without(policies, lacking)
        names = [layout.name for layout in layouts]
        store = tmp_path / str(lacking)
        async with serving(store, names, keys=keys(allowed), distribution=mounting) as server:
            report = await push(server, items_here(layouts), transport="hybrid")
            assert report.ok
            mounts = server.calls.counters.mounts
        # The first image brings the layer, the three others mount it.
        assert mounts == (3 if lacking is None else 0)
        assert bool(report.bytes_mounted) == (lacking is None)


ADMIN = Key("AKIDFLEETADMINISTER0", "secret-of-the-admin", TWO)
AWAY = Destination(TWO, "us-east-1")


async def replicate(server: RunningRegistry, layout: Path) -> ReplicationReport:
    """Give account one's registry a rule, push an image there, and wait for it in account two."""
    source = REGISTRIES[0]
    options = options_for(server, quotas=QUOTAS, attempts=1)
    async with open_replication(source, options, lambda event: None) as replication:
        await replication.rules()
        await replication.put_rules([Rule(frozenset({AWAY}))])
    async with Pusher(options) as pusher:
        report = await pusher.push(items_here([layout]))
    assert report.ok
    wait = ReplicationWait(options, lambda event: None, WaitOptions(first=0.02, timeout=30))
    return await wait.run(pushed_images(report))


async def test_replication_takes_its_actions_and_the_destinations_policy(
    tmp_path: Path, folder: Path
) -> None:
    layout = layouts_of(folder)[0]
    destination = replace(REGISTRIES[0], account=AWAY.account, region=AWAY.region)
    policies = printed(folder, "replication", "replication-rules")
    for lacking in (None, "DescribeRegistry", "DescribeImageReplicationStatus"):
        allowed = policies if lacking is None else without(policies, lacking)
        store = tmp_path / str(lacking)
        async with serving(store, [layout.name], keys=[*keys(allowed), ADMIN]) as server:
            aws = AwsOptions(
                access_key_id=ADMIN.access_key_id,
                secret_access_key=ADMIN.secret_access_key,
                endpoint_url=server.url,
            )
            async with open_client(destination, aws, 1, "test") as ecr:
                text = dumps(registry_policy(destination, [ONE], ["app"]))
                await ecr.put_registry_policy(policyText=text)
            if lacking == "DescribeRegistry":
                with pytest.raises(AccessDeniedError) as caught:
                    await replicate(server, layout)
                assert_denied(caught.value, lacking, "*")
                continue
            report = await replicate(server, layout)
            (image,) = report.images
            if lacking is None:
                assert report.ok, report.to_dict()
                tags = await server.tags(AWAY.account, AWAY.region, "app000")
                assert tags == {"v0": image.digest}
            else:
                assert_denied(image.error, lacking, ARN)


async def test_rules_take_their_action(tmp_path: Path, folder: Path) -> None:
    policies = without(
        printed(folder, "replication", "replication-rules"), "PutReplicationConfiguration"
    )
    async with serving(tmp_path / "store", [], keys=keys(policies)) as server:
        with pytest.raises(AccessDeniedError) as caught:
            await replicate(server, layouts_of(folder)[0])
    assert_denied(caught.value, "PutReplicationConfiguration", "*")
