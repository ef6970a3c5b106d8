"""What a Pusher promises: one push at a time, a report that is right, errors with their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import boto3
import pytest
from releases import Releases, releasing, roots, tag_results, write_release
from support import HOST, KEY_ID, PUSH_ACTIONS, REGION, SECRET
from transports import count

from asyncpush import (
    AwsOptions,
    ImageFinished,
    Pusher,
    PushItem,
    PushOptions,
    PushReport,
    open_journal,
)
from asyncpush.engine.events import Event
from asyncpush.engine.results import TagStatus
from asyncpush.errors import UsageError
from asyncpush.localregistry import Fault
from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio

TAGS = {"aa": ["latest"], "bb": ["latest"]}
SIX = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [f"ecr:{name}" for name in sorted(PUSH_ACTIONS)],
            "Resource": "*",
        }
    ],
}


def options_for(it: Releases, **options: object) -> PushOptions:
    aws = AwsOptions(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=it.server.url)
    return PushOptions(aws=aws, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", [None, SIX], ids=["may-ask", "six-actions"])
@pytest.mark.parametrize("atomic", [False, True])
async def test_a_journal_is_not_believed_about_tags_that_others_move(
    tmp_path: Path, policy: dict[str, object] | None, *, atomic: bool
) -> None:
    monday = write_release(tmp_path, "monday", TAGS)
    tuesday = write_release(tmp_path, "tuesday", {"aa": ["latest"]})
    async with releasing(tmp_path, list(TAGS), policy=policy) as it:
        refuse = Fault(code="KmsException", message="no key")
        it.faults = lambda call: (
            refuse if call.repository == "bb" and call.params.get("imageTag") else None
        )
        report = await it.push(monday, atomic=atomic)
        assert len(report.failed) == 1
        assert (await it.tags(["aa"])) == {("aa", "latest"): roots(monday)["aa", "latest"]}

        it.faults = lambda call: None
        assert (await it.push(tuesday, journal=False)).ok
        it.server.calls.clear()
        report = await it.push(monday, atomic=atomic)
        assert report.ok
        assert await it.tags(list(TAGS)) == roots(monday)
        assert tag_results(report)["aa", "latest"].status is TagStatus.MOVED
        # One denial for the registry, or one question for each repository, and in each phase.
        questions = 1 if policy else 4 if atomic else 2
        assert count(it.server.calls, "BatchGetImage") == questions

        # Where nobody has moved them, that is proven where it may be asked.
        it.server.calls.clear()
        report = await it.push(monday, atomic=atomic)
        assert report.ok
        statuses = {tag.status for tag in tag_results(report).values()}
        assert statuses == {TagStatus.MOVED_EARLIER}
        assert count(it.server.calls, "PutImage") == (2 if policy else 0)


async def test_an_untagged_image_that_was_removed_is_pushed_again(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layout")
    writer.entry(writer.image([writer.blob(b"layer", mediatypes.OCI_LAYER)]), None)
    layout = writer.close()
    async with releasing(tmp_path, ["aa"]) as it:
        assert (await it.push({"aa": layout})).ok
        (digest,) = await anyio.to_thread.run_sync(_images, it)
        await anyio.to_thread.run_sync(_remove, it, digest)
        assert not await anyio.to_thread.run_sync(_images, it)
        assert (await it.push({"aa": layout})).ok
        assert await anyio.to_thread.run_sync(_images, it) == {digest}


async def test_an_image_that_goes_twice_under_one_tag_was_moved_by_this_run(
    tmp_path: Path,
) -> None:
    release = write_release(tmp_path, "new", {"aa": ["v1"]})
    async with releasing(tmp_path, ["aa"]) as it, Pusher(options_for(it)) as pusher:
        items = [PushItem(release["aa"], f"{HOST}/aa")] * 2
        async with open_journal(it.journal, "job", "job") as journal:
            report = await pusher.push(items, journal)
        statuses = [tag.status for image in report.images for tag in image.tags]
        assert statuses == [TagStatus.MOVED] * 2
        assert count(it.server.calls, "PutImage") == 1


async def test_every_image_that_a_registry_fails_names_its_own_repository(tmp_path: Path) -> None:
    names = ["aa", "bb", "cc"]
    release = write_release(tmp_path, "new", {name: ["v1", "v2"] for name in names})
    async with releasing(tmp_path, names) as it:
        it.faults = lambda call: (
            Fault(code="AccessDeniedException", message="no")
            if call.action == "GetAuthorizationToken"
            else None
        )
        report = await it.push(release)
        assert len(report.failed) == 6
        for image in report.failed:
            assert image.error is not None
            where = image.reference.rpartition(":")[0]
            assert image.error.where["repository"] == where
            assert image.to_dict()["error"]["where"]["repository"] == where


async def test_a_second_push_beside_a_first_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    release = write_release(tmp_path, "new", TAGS)
    async with (
        releasing(tmp_path, list(TAGS)) as it,
        Pusher(options_for(it)) as pusher,
    ):
        items = [PushItem(path, f"{HOST}/{name}") for name, path in release.items()]
        done: list[PushReport] = []

        async def push() -> None:
            done.append(await pusher.push(items))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(push)
            await anyio.lowlevel.checkpoint()
            with pytest.raises(UsageError, match="pushing already"):
                await pusher.push(items[:1])
            plan, rejected = await pusher.plan(items[:1])
            with pytest.raises(UsageError, match="pushing already"):
                await pusher.push_plan(plan, rejected)
        (report,) = done
        assert report.ok
        assert len(report.images) == 2
        assert await it.tags(list(TAGS)) == roots(release)
        # One after the other is what it is for, and each report is of its own push.
        again = await pusher.push(items[:1])
        assert again.ok
        assert len(again.images) == 1
        assert report.calls[HOST]["PutImage"]["calls"] == 2
        assert {name: call["calls"] for name, call in again.calls[HOST].items()} == {
            "BatchGetImage": 1
        }


async def test_a_manifest_that_waits_for_its_next_try_holds_no_memory(tmp_path: Path) -> None:
    tags = {"aa": ["v1"], "bb": ["v1"]}
    release = {}
    for name in tags:
        writer = LayoutWriter(tmp_path / name)
        layer = writer.blob(name.encode(), mediatypes.OCI_LAYER)
        # A manifest that takes all of the memory on its way.
        writer.entry(writer.image([layer] * 2_000), "v1")
        release[name] = writer.close()
    async with releasing(tmp_path, list(tags)) as it:
        it.faults = lambda call: (
            Fault(code="ServerException", status=500)
            if call.action == "PutImage" and call.repository == "aa"
            else None
        )
        with anyio.fail_after(20), anyio.CancelScope() as scope:

            def ended(event: Event) -> None:
                if isinstance(event, ImageFinished):
                    scope.cancel()

            it.on_event = ended
            # The wait is drawn from 0 to 10,000 seconds.
            await it.push(release, memory=2**20, retry_base=10_000.0, retry_cap=10_000.0)
        assert await it.tags(list(tags)) == {("bb", "v1"): roots(release)["bb", "v1"]}


def _images(it: Releases) -> set[str]:
    answer = _client(it).list_images(repositoryName="aa")
    return {image["imageDigest"] for image in answer["imageIds"]}


def _remove(it: Releases, digest: str) -> None:
    _client(it).batch_delete_image(repositoryName="aa", imageIds=[{"imageDigest": digest}])


def _client(it: Releases) -> Any:
    return boto3.client(
        "ecr",
        region_name=REGION,
        endpoint_url=it.server.url,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
    )
