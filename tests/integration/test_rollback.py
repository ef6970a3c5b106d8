"""A release that cannot be completed returns what it has moved, whatever it was answered."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from releases import releasing, roots, tag_results, write_release
from support import HOST, asyncpush, environment
from transports import count, does, tag_of

from asyncpush import ImageStatus, PushReport, Warned
from asyncpush.engine.events import Event, TagsMoving
from asyncpush.engine.results import TagStatus
from asyncpush.errors import TransientError
from asyncpush.localregistry import CallInfo, Fault

pytestmark = pytest.mark.anyio

TAGS = {"aa": ["v1"], "bb": ["v1"]}
BOTH = {"atomic": True, "rollback": True}
REFUSED = Fault(code="KmsException", message="no key", delay=0.2)


@pytest.fixture(params=["native", "distribution"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def moves(call: CallInfo, repository: str) -> bool:
    """Whether a call lets a tag of a repository point elsewhere."""
    return does(call.action, "PutImage") and bool(tag_of(call)) and call.repository == repository


def statuses(report: PushReport) -> dict[str, TagStatus]:
    return {name: tag.status for (name, _), tag in tag_results(report).items()}


async def test_a_tag_whose_move_was_not_answered_at_first_is_returned(
    tmp_path: Path, transport: str
) -> None:
    old, new = (write_release(tmp_path, name, TAGS) for name in ("old", "new"))
    async with releasing(tmp_path, list(TAGS), transport) as it:
        assert (await it.push(old, journal=False)).ok
        lost: list[CallInfo] = []

        def faults(call: CallInfo) -> Fault | None:
            if moves(call, "aa") and not lost:
                lost.append(call)
                return Fault(drop="after")
            return REFUSED if moves(call, "bb") else None

        it.faults = faults
        report = await it.push(new, **BOTH)
        assert lost
        assert await it.tags(list(TAGS)) == roots(old)
        assert statuses(report) == {"aa": TagStatus.RETURNED, "bb": TagStatus.NOT_MOVED}
        assert tag_results(report)["aa", "v1"].previous == roots(old)["aa", "v1"]
        assert report.count(ImageStatus.STAGED) == report.count(ImageStatus.FAILED) == 1


async def test_without_rollback_such_a_tag_is_reported_as_moved(
    tmp_path: Path, transport: str
) -> None:
    old, new = (write_release(tmp_path, name, TAGS) for name in ("old", "new"))
    async with releasing(tmp_path, list(TAGS), transport) as it:
        assert (await it.push(old, journal=False)).ok
        lost: list[CallInfo] = []

        def faults(call: CallInfo) -> Fault | None:
            if moves(call, "aa") and not lost:
                lost.append(call)
                return Fault(drop="after")
            return None

        it.faults = faults
        for options in ({}, {"atomic": True}):
            report = await it.push(new, journal=False, **options)
            assert report.ok
            assert statuses(report)["aa"] is (TagStatus.UNCHANGED if options else TagStatus.MOVED)
            assert report.count(ImageStatus.EXISTS) == (2 if options else 0)
        assert lost


async def test_a_tag_that_was_moved_and_never_answered_is_returned(
    tmp_path: Path, transport: str
) -> None:
    old, new = (write_release(tmp_path, name, TAGS) for name in ("old", "new"))
    async with releasing(tmp_path, list(TAGS), transport) as it:
        assert (await it.push(old, journal=False)).ok
        put: list[CallInfo] = []

        def lose(call: CallInfo) -> Fault | None:
            if moves(call, "aa") and not put:
                put.append(call)
                return Fault(drop="after")
            return None

        it.faults = lose
        report = await it.push(new, **BOTH, attempts=1)
        assert len(put) == 1
        assert await it.tags(list(TAGS)) == roots(old)
        assert statuses(report)["aa"] is TagStatus.RETURNED
        (failed,) = report.failed
        assert failed.reference == f"{HOST}/aa:v1"
        assert isinstance(failed.error, TransientError)


async def test_without_rollback_such_a_tag_is_reported_as_unknown(tmp_path: Path) -> None:
    old, new = (write_release(tmp_path, name, TAGS) for name in ("old", "new"))
    async with releasing(tmp_path, list(TAGS)) as it:
        assert (await it.push(old, journal=False)).ok
        it.faults = lambda call: Fault(drop="after") if moves(call, "aa") else None
        report = await it.push(new, atomic=True, attempts=1)
        assert statuses(report) == {"aa": TagStatus.UNKNOWN, "bb": TagStatus.MOVED}
        assert await it.tags(list(TAGS)) == roots(new)


async def test_a_tag_that_a_killed_run_moved_is_returned(tmp_path: Path, transport: str) -> None:
    old, new = (write_release(tmp_path, name, TAGS) for name in ("old", "new"))
    async with releasing(tmp_path, list(TAGS), transport) as it:
        assert (await it.push(old, journal=False)).ok
        assert await it.killed(
            lambda: it.push(new, **BOTH, images=1), lambda call: moves(call, "aa")
        )
        assert (await it.tags(list(TAGS)))["aa", "v1"] == roots(new)["aa", "v1"]

        it.faults = lambda call: REFUSED if moves(call, "bb") else None
        report = await it.push(new, **BOTH)
        assert await it.tags(list(TAGS)) == roots(old)
        assert statuses(report) == {"aa": TagStatus.RETURNED, "bb": TagStatus.NOT_MOVED}

        # What others do between two runs is what the second one returns.
        theirs = write_release(tmp_path, "theirs", TAGS)
        it.faults = lambda call: None
        assert (await it.push(theirs, journal=False)).ok
        it.faults = lambda call: REFUSED if moves(call, "bb") else None
        report = await it.push(new, **BOTH)
        assert await it.tags(list(TAGS)) == roots(theirs)
        assert statuses(report) == {"aa": TagStatus.RETURNED, "bb": TagStatus.NOT_MOVED}


async def test_a_tag_that_others_move_during_the_release_is_left_to_them(tmp_path: Path) -> None:
    old, new, theirs = (write_release(tmp_path, name, TAGS) for name in ("old", "new", "theirs"))
    async with releasing(tmp_path, list(TAGS)) as it:
        assert (await it.push(old, journal=False)).ok
        put: list[CallInfo] = []

        def refuse(call: CallInfo) -> Fault | None:
            if not moves(call, "bb") or put:
                return None
            put.append(call)
            return Fault(code="KmsException", message="no key", delay=1.5)

        it.faults = refuse
        done: list[PushReport] = []

        async def release() -> None:
            done.append(await it.push(new, **BOTH))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(release)
            with anyio.fail_after(10):
                while not put or (await it.tags(["aa"])) != {("aa", "v1"): roots(new)["aa", "v1"]}:
                    await anyio.sleep(0.01)
            assert (await it.push({"aa": theirs["aa"]}, journal=False)).ok
        assert await it.tags(list(TAGS)) == roots(old) | {("aa", "v1"): roots(theirs)["aa", "v1"]}
        assert statuses(done[0]) == dict.fromkeys(TAGS, TagStatus.NOT_MOVED)
        assert any("was moved by somebody else" in str(event) for event in it.events)


async def test_where_tags_cannot_be_asked_no_tag_moves_and_the_report_says_why(
    tmp_path: Path, transport: str
) -> None:
    old, new = (write_release(tmp_path, name, TAGS) for name in ("old", "new"))
    async with releasing(tmp_path, list(TAGS), transport) as it:
        assert (await it.push(old, journal=False)).ok
        moving: list[Event] = []

        def faults(call: CallInfo) -> Fault | None:
            # Over /v2/ each commit asks as well; here only what asks for tags fails.
            asks = does(call.action, "BatchGetImage") and call.repository == "bb"
            tagged = call.action == "BatchGetImage" or call.params.get("ref") == "v1"
            return Fault(code="ServerException", status=500) if asks and tagged else None

        it.faults = faults
        it.on_event = lambda event: moving.append(event) if isinstance(event, TagsMoving) else None
        report = await it.push(new, **BOTH, attempts=2)
        assert not report.ok
        assert report.complete
        assert not moving
        assert await it.tags(list(TAGS)) == roots(old)
        (failed,) = report.failed
        assert failed.reference == f"{HOST}/bb:v1"
        assert isinstance(failed.error, TransientError)
        assert report.count(ImageStatus.STAGED) == 1
        assert set(statuses(report).values()) == {TagStatus.NOT_MOVED}


async def test_its_report_is_written_by_the_command_line(tmp_path: Path) -> None:
    new = write_release(tmp_path, "new", TAGS)
    async with releasing(tmp_path, list(TAGS)) as it:
        it.faults = lambda call: (
            Fault(code="ServerException", status=500) if call.action == "BatchGetImage" else None
        )
        command = [str(new["aa"]), f"{HOST}/aa", "--atomic", "--rollback", "--attempts", "1"]
        report = tmp_path / "report.json"
        env = environment(it.server.url)
        done = await anyio.to_thread.run_sync(
            lambda: asyncpush("push", *command, "--report", report, "--no-journal", env=env)
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        document = json.loads(report.read_text())
        assert [image["status"] for image in document["images"]] == ["failed"]
        assert document["images"][0]["error"]["where"]["call"] == "BatchGetImage"


async def test_the_first_tag_that_is_refused_stops_the_release(tmp_path: Path) -> None:
    tags = {"aa": [f"v{i:02}" for i in range(60)]}
    old, new = (write_release(tmp_path, name, tags) for name in ("old", "new"))
    async with releasing(tmp_path, list(tags)) as it:
        assert (await it.push(old, journal=False, quotas={"PutImage": 1000})).ok
        before = await it.tags(list(tags))
        staged = 0

        def moving(event: Event) -> None:
            nonlocal staged
            if isinstance(event, TagsMoving):
                staged = count(it.server.calls, "PutImage")

        it.on_event = moving
        refuse = Fault(code="KmsException", message="no key")
        it.faults = lambda call: refuse if moves(call, "aa") and tag_of(call) == "v00" else None
        it.server.calls.clear()
        report = await it.push(new, **BOTH, quotas={"PutImage": 40})
        assert staged == 60
        # One that is refused, and maybe one or two whose turn had come by then, and their return.
        assert count(it.server.calls, "PutImage") - staged <= 5
        assert await it.tags(list(tags)) == before
        assert report.count(ImageStatus.STAGED) == 59
        told = report.calls[HOST]["PutImage"]["calls"]
        assert told == count(it.server.calls, "PutImage")


async def test_a_tag_that_cannot_be_returned_is_reported_as_moved(tmp_path: Path) -> None:
    old, new = (write_release(tmp_path, name, TAGS) for name in ("old", "new"))
    async with releasing(tmp_path, list(TAGS)) as it:
        assert (await it.push(old, journal=False)).ok
        put: list[CallInfo] = []

        def faults(call: CallInfo) -> Fault | None:
            if moves(call, "bb"):
                return REFUSED
            if moves(call, "aa"):
                put.append(call)
                return REFUSED if len(put) > 1 else None
            return None

        it.faults = faults
        report = await it.push(new, **BOTH)
        assert statuses(report) == {"aa": TagStatus.MOVED, "bb": TagStatus.NOT_MOVED}
        assert (await it.tags(["aa"]))["aa", "v1"] == roots(new)["aa", "v1"]
        warnings = [event for event in it.events if isinstance(event, Warned)]
        assert any("the tag v1 was not returned" in event.message for event in warnings)
        # The next run knows what it was.
        it.faults = lambda call: REFUSED if moves(call, "bb") else None
        report = await it.push(new, **BOTH)
        assert statuses(report) == {"aa": TagStatus.RETURNED, "bb": TagStatus.NOT_MOVED}
        assert await it.tags(list(TAGS)) == roots(old)
