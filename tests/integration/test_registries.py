"""Many registries in one push: each at its own speed, with its own credentials and troubles."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet import (
    KEYS,
    REGISTRIES,
    TWO,
    all_tags,
    items_for,
    options_for,
    serving,
    wanted_tags,
    write_layouts,
)

from asyncpush import ImageStatus, Pusher
from asyncpush.engine.events import RepositoryCreated
from asyncpush.errors import AccessDeniedError
from asyncpush.localregistry import CallInfo, Fault
from asyncpush.plan.shards import cut
from asyncpush.registries.base import RepositorySettings

pytestmark = pytest.mark.anyio


async def test_each_registry_is_asked_with_its_own_key(tmp_path: Path) -> None:
    layouts = write_layouts(tmp_path / "layouts", 3, 2)
    async with serving(tmp_path / "store", [layout.name for layout in layouts]) as server:
        async with Pusher(options_for(server)) as pusher:
            report = await pusher.push(items_for(layouts))
        assert report.ok
        assert await all_tags(server, [p.name for p in layouts]) == wanted_tags(layouts)
        assert {(call.account, call.access_key_id) for call in server.calls} == {
            (account, key.access_key_id) for account, key in KEYS.items()
        }
        assert set(report.calls) == {registry.host for registry in REGISTRIES}
        # One authorization for each registry.
        assert server.calls.counters.calls["GetAuthorizationToken"] == 3


@pytest.mark.parametrize("trouble", ["denies", "hangs", "drops"])
async def test_a_registry_in_trouble_leaves_the_others_complete(
    tmp_path: Path, trouble: str
) -> None:
    layouts = write_layouts(tmp_path / "layouts", 10, 2)

    def refuse(call: CallInfo) -> Fault | None:
        if call.account != TWO:
            return None
        return {
            "denies": Fault(code="AccessDeniedException", message="no"),
            "hangs": Fault(delay=1.5, code="ServerException", status=500),
            "drops": Fault(drop="before"),
        }[trouble]

    events: list[object] = []
    async with serving(tmp_path / "store", [p.name for p in layouts], refuse) as server:
        options = options_for(server, images=4, layers=2, attempts=2, retry_base=0.01)
        async with Pusher(options, on_event=events.append) as pusher:
            report = await pusher.push(items_for(layouts))
        tags = await all_tags(server, [p.name for p in layouts])
    wanted = wanted_tags(layouts)
    for repository, found in tags.items():
        assert found == ({} if repository.startswith(TWO) else wanted[repository])
    assert report.count(ImageStatus.PUSHED) == 40
    assert report.count(ImageStatus.FAILED) == 20
    assert all(image.reference.startswith(TWO) for image in report.failed)
    if trouble == "denies":
        assert all(isinstance(image.error, AccessDeniedError) for image in report.failed)
    if trouble == "hangs":
        # The others did not wait for it: all of them ended before its second image did.
        last = max(i for i, r in enumerate(report.images) if not r.reference.startswith(TWO))
        assert sum(r.reference.startswith(TWO) for r in report.images[:last]) <= 4


async def test_missing_repositories_are_created_when_asked_for(tmp_path: Path) -> None:
    layouts = write_layouts(tmp_path / "layouts", 2, 3)
    events: list[object] = []
    create = RepositorySettings(mutability="IMMUTABLE")
    async with serving(tmp_path / "store", []) as server:
        async with Pusher(options_for(server, create=create), on_event=events.append) as pusher:
            report = await pusher.push(items_for(layouts))
        assert report.ok, [image.error for image in report.failed]
        assert await all_tags(server, [p.name for p in layouts]) == wanted_tags(layouts)
        assert server.calls.counters.calls["CreateRepository"] == 6
    assert sum(isinstance(event, RepositoryCreated) for event in events) == 6


@pytest.mark.parametrize("transport", ["native", "hybrid"])
async def test_a_preview_creates_no_repository_also_where_a_push_would(
    tmp_path: Path, transport: str
) -> None:
    layouts = write_layouts(tmp_path / "layouts", 2, 3)
    async with serving(tmp_path / "store", []) as server:
        options = options_for(server, create=RepositorySettings(), transport=transport)
        async with Pusher(options) as pusher:
            preview = await pusher.preview(items_for(layouts))
            assert not any(image.error for image in preview.images)
            assert all(sums.missing == sums.blobs for sums in preview.registries.values())
            assert server.calls.counters.calls["CreateRepository"] == 0
            report = await pusher.push(items_for(layouts))
        assert report.ok, [image.error for image in report.failed]
        assert server.calls.counters.calls["CreateRepository"] == 6


async def test_without_being_asked_no_repository_is_created(tmp_path: Path) -> None:
    layouts = write_layouts(tmp_path / "layouts", 1, 1)
    async with serving(tmp_path / "store", []) as server:
        async with Pusher(options_for(server)) as pusher:
            report = await pusher.push(items_for(layouts))
        assert len(report.failed) == 3
        assert server.calls.counters.calls["CreateRepository"] == 0


async def test_shards_together_push_everything_once_under_shared_quotas(tmp_path: Path) -> None:
    layouts = write_layouts(tmp_path / "layouts", 6, 2)
    async with serving(tmp_path / "store", [p.name for p in layouts]) as server:
        rates = []
        for number in range(3):
            async with Pusher(options_for(server)) as pusher:
                plan, rejected = await pusher.plan(items_for(layouts))
                shard = cut(plan, 3)[number]
                report = await pusher.push_plan(shard.plan, rejected, sharing=shard.sharing)
            assert report.ok
            rates += [calls["PutImage"]["quota"] for calls in report.calls.values()]
        assert await all_tags(server, [p.name for p in layouts]) == wanted_tags(layouts)
        assert server.calls.counters.calls["PutImage"] == 6 * 2 * 3
        assert sum(rates) <= 3 * 10 + 1e-6
