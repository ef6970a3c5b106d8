"""All or nothing: no tag moves anywhere before everything is everywhere."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from fleet import (
    REGISTRIES,
    all_tags,
    items_for,
    options_for,
    serving,
    wanted_tags,
    write_layouts,
)
from transports import count, does, tag_of

from asyncpush import ImageStatus, Pusher, PushReport, open_journal
from asyncpush.engine.results import TagStatus
from asyncpush.localregistry import CallInfo, Fault, RunningRegistry

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["native", "distribution"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def push(
    server: RunningRegistry, layouts: list[Path], transport: str, **options: object
) -> PushReport:
    async with Pusher(options_for(server, transport=transport, **options)) as pusher:
        return await pusher.push(items_for(layouts))


class Faults:
    """Faults that a test switches on when it is ready."""

    def __init__(self) -> None:
        self.fault = lambda call: None

    def __call__(self, call: CallInfo) -> Fault | None:
        return self.fault(call)


@pytest.fixture
def layouts(tmp_path: Path) -> list[Path]:
    return write_layouts(tmp_path / "layouts", 4, 3)


@pytest.mark.parametrize("transport", ["native", "distribution", "hybrid"])
async def test_a_failure_at_the_end_of_phase_one_moves_no_tag_anywhere(
    tmp_path: Path, layouts: list[Path], transport: str
) -> None:
    names = [layout.name for layout in layouts]
    faults = Faults()
    async with serving(tmp_path / "store", names, faults) as server:
        first = write_layouts(tmp_path / "first", 4, 3)
        assert (await push(server, first, transport)).ok
        before = await all_tags(server, names)
        server.calls.clear()

        refused: list[str] = []

        def refuse(call: CallInfo) -> Fault | None:
            last = call.account == REGISTRIES[2].account and call.repository == names[-1]
            if last and does(call.action, "CompleteLayerUpload"):
                refused.append(str(call.repository))
                return Fault(code="KmsException", message="no key", delay=0.5)
            return None

        faults.fault = refuse
        seen = []
        ended = anyio.Event()

        async def poll() -> None:
            while not ended.is_set():
                seen.append(await all_tags(server, names) == before)
                await anyio.sleep(0.05)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poll)
            report = await push(server, layouts, transport, atomic=True)
            ended.set()

        assert refused
        assert len(seen) > 5
        assert all(seen)
        assert await all_tags(server, names) == before
        assert not report.ok
        assert report.count(ImageStatus.FAILED) == 3
        assert report.count(ImageStatus.STAGED) == len(items_for(layouts)) * 3 - 3
        statuses = {tag.status for image in report.images for tag in image.tags}
        assert statuses == {TagStatus.NOT_MOVED}

        # Everything else is there by digest, so the next run has little left to do.
        faults.fault = lambda call: None
        server.calls.clear()
        report = await push(server, layouts, transport, atomic=True)
        assert report.ok
        uploads = count(server.calls, "CompleteLayerUpload")
        # Others have the base layer, and may give it.
        assert uploads + server.calls.counters.mounts == 7
        assert server.calls.counters.mounts == (transport != "native")
        assert await all_tags(server, names) == wanted_tags(layouts)


async def test_an_image_that_cannot_be_read_moves_no_tag(
    tmp_path: Path, layouts: list[Path], transport: str
) -> None:
    names = [layout.name for layout in layouts]
    (layouts[1] / "index.json").write_text("{")
    async with serving(tmp_path / "store", names) as server:
        report = await push(server, layouts, transport, atomic=True)
        assert not report.ok
        assert not any((await all_tags(server, names)).values())


async def test_a_tag_that_cannot_move_returns_those_that_did(
    tmp_path: Path, layouts: list[Path], transport: str
) -> None:
    names = [layout.name for layout in layouts]
    faults = Faults()
    async with serving(tmp_path / "store", names, faults) as server:
        assert (await push(server, write_layouts(tmp_path / "first", 4, 2), transport)).ok
        before = await all_tags(server, names)

        def refuse(call: CallInfo) -> Fault | None:
            if does(call.action, "PutImage") and tag_of(call) == "v1":
                mine = call.account == REGISTRIES[2].account and call.repository == names[0]
                # Late enough for others to have moved.
                return Fault(code="KmsException", message="no key", delay=0.4) if mine else None
            return None

        faults.fault = refuse
        quotas = {"PutImage": 1000}
        report = await push(server, layouts, transport, atomic=True, rollback=True, quotas=quotas)
        assert not report.ok
        after = await all_tags(server, names)
        # v2 is new in this release: a push cannot delete it, and says so.
        for repository, tags in before.items():
            assert {t: d for t, d in after[repository].items() if t != "v2"} == tags
        assert report.count(ImageStatus.FAILED) == 1
        tags = {(i.reference, t.tag): t for i in report.images for t in i.tags}
        assert {t.status for (_, tag), t in tags.items() if tag == "v0"} == {TagStatus.RETURNED}
        assert all(t.previous for (_, tag), t in tags.items() if tag == "v0")
        assert {t.status for (_, tag), t in tags.items() if tag == "v2"} == {TagStatus.MOVED}
        refused = {t.status for (_, tag), t in tags.items() if tag == "v1"}
        assert refused == {TagStatus.RETURNED, TagStatus.NOT_MOVED}


async def test_without_rollback_what_moved_stays_and_the_next_run_completes_it(
    tmp_path: Path, layouts: list[Path], transport: str
) -> None:
    names = [layout.name for layout in layouts]
    faults = Faults()
    async with serving(tmp_path / "store", names, faults) as server:
        first = True

        def refuse_once(call: CallInfo) -> Fault | None:
            nonlocal first
            if does(call.action, "PutImage") and tag_of(call) and first:
                first = False
                return Fault(code="KmsException", message="no key")
            return None

        faults.fault = refuse_once
        journal = tmp_path / "journal"
        async with Pusher(options_for(server, transport=transport, atomic=True)) as pusher:
            async with open_journal(journal, "job", "job") as notes:
                report = await pusher.push(items_for(layouts), notes)
            assert report.count(ImageStatus.FAILED) == 1
            moved = [
                tag
                for image in report.images
                for tag in image.tags
                if tag.status is TagStatus.MOVED
            ]
            assert len(moved) == 4 * 3 * 3 - 1
            server.calls.clear()
            async with open_journal(journal, "job", "job") as notes:
                report = await pusher.push(items_for(layouts), notes)
        assert report.ok
        assert count(server.calls, "PutImage") == 1
        assert await all_tags(server, names) == wanted_tags(layouts)


async def test_where_reading_tags_is_not_granted_rollback_warns_and_goes_on(
    tmp_path: Path, layouts: list[Path], transport: str
) -> None:
    names = [layout.name for layout in layouts]

    def deny(call: CallInfo) -> Fault | None:
        denied = does(call.action, "BatchGetImage")
        return Fault(code="AccessDeniedException", message="no") if denied else None

    events: list[object] = []
    async with serving(tmp_path / "store", names, deny) as server:
        async with Pusher(
            options_for(server, transport=transport, atomic=True, rollback=True),
            on_event=events.append,
        ) as pusher:
            report = await pusher.push(items_for(layouts))
        assert report.ok
        assert await all_tags(server, names) == wanted_tags(layouts)
        assert any("tags that move cannot be returned" in str(event) for event in events)
