"""Several registries that lack the same blobs read them together, whatever their speed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet import REGISTRIES, all_tags, names_of, options_for, serving, wanted_tags
from origins import Scripted, layers_of, remote

from asyncpush import Event, LayerComplete, Pusher, PushItem, PushOptions, PushReport
from asyncpush.engine.reading import window
from asyncpush.localregistry import CallInfo, Fault, RunningRegistry
from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


def write(folder: Path, count: int, images: int) -> list[Path]:
    """Layouts of images that share a layer of 22 MiB; each has one of 6 MiB of its own."""
    base = os.urandom(22 * MIB)
    layouts = []
    for i in range(count):
        writer = LayoutWriter(folder / f"app{i}")
        shared = writer.blob(base, mediatypes.OCI_LAYER)
        for j in range(images):
            own = writer.blob(os.urandom(6 * MIB + j), mediatypes.OCI_LAYER)
            writer.entry(writer.image([shared, own]), f"v{j}")
        layouts.append(writer.close())
    return layouts


def slowly(delays: dict[str, float]) -> Callable[[CallInfo], Fault | None]:
    """Let a registry's Region take a while for each part."""

    def fault(call: CallInfo) -> Fault | None:
        if call.action in ("UploadLayerPart", "v2.PatchUpload", "v2.PutUpload"):
            key = f"{call.account[0]}{call.region[:2]}"
            return Fault(delay=delays.get(key, 0.0))
        return None

    return fault


def origin_of(layouts: list[Path]) -> Scripted:
    """All blobs of some layouts, in memory."""
    origin = Scripted(piece=256 * 1024)
    for layout in layouts:
        for file in (layout / "blobs" / "sha256").iterdir():
            origin.blobs[f"sha256:{file.name}"] = file.read_bytes()
    return origin


async def push(
    server: RunningRegistry,
    layouts: list[Path],
    origin: Scripted,
    options: PushOptions,
    on_event: Callable[[Event], None] | None = None,
) -> tuple[PushReport, int]:
    """Push all layouts to all registries from an origin; the report, and the unique bytes."""
    items = [
        PushItem(layout, f"{registry.host}/{layout.name}")
        for layout in layouts
        for registry in REGISTRIES
    ]
    async with Pusher(options, on_event=on_event) as pusher:
        plan, rejected = await pusher.plan(items)
        assert not rejected
        report = await pusher.push_plan(remote(plan, origin))
    assert report.ok, [str(image.error) for image in report.failed]
    assert await all_tags(server, [*names_of(layouts)]) == wanted_tags(layouts)
    assert origin.open == 0
    return report, sum(layers_of(plan).values())


@pytest.mark.parametrize("transport", ["native", "distribution", "auto"])
async def test_a_blob_is_read_once_for_three_registries_of_different_speed(
    tmp_path: Path, transport: str
) -> None:
    layouts = write(tmp_path, 1, 8)
    origin = origin_of(layouts)
    delays = slowly({"1eu": 0.0, "1us": 0.1, "4eu": 0.3})
    async with serving(tmp_path / "store", [*names_of(layouts)], delays) as server:
        options = options_for(server, transport=transport, memory=64 * MIB)
        _, unique = await push(server, layouts, origin, options)
        assert unique <= origin.given <= 1.05 * unique


async def test_repositories_that_mount_read_nothing_more(tmp_path: Path) -> None:
    layouts = write(tmp_path, 4, 2)
    origin = origin_of(layouts)
    delays = slowly({"1us": 0.05, "4eu": 0.1})
    async with serving(tmp_path / "store", [*names_of(layouts)], delays) as server:
        options = options_for(server, transport="auto", memory=64 * MIB)
        report, unique = await push(server, layouts, origin, options)
        assert report.bytes_mounted >= 9 * 22 * MIB
        assert origin.given <= 1.05 * unique


async def test_a_registry_that_hangs_holds_the_others_up_for_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "PATIENCE", 0.3)
    layouts = write(tmp_path, 1, 2)
    origin = origin_of(layouts)
    completed: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, LayerComplete) and event.size > MIB:
            completed.append(event.repository.partition(".")[0])

    async with serving(tmp_path / "store", [*names_of(layouts)], slowly({"4eu": 3.0})) as server:
        options = options_for(server, transport="distribution")
        await push(server, layouts, origin, options, note)
    assert completed[:6] == ["111122223333"] * 6
    assert completed[6:] == ["444455556666"] * 3
