"""Several registries that lack the same blobs read them together, whatever their speed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from fleet import REGISTRIES, all_tags, options_for, serving, wanted_tags
from origins import Scripted, layers_of, remote

from asyncpush import Pusher, PushItem
from asyncpush.localregistry import CallInfo, DistributionOptions, Fault
from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
NO_MOUNTS = DistributionOptions()


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


@pytest.mark.parametrize("transport", ["native", "distribution", "auto"])
async def test_a_blob_is_read_once_for_three_registries_of_different_speed(
    tmp_path: Path, transport: str
) -> None:
    layouts = write(tmp_path, 1, 8)
    names = [layout.name for layout in layouts]
    origin = origin_of(layouts)
    delays = slowly({"1eu": 0.0, "1us": 0.1, "4eu": 0.3})
    async with serving(tmp_path / "store", names, delays) as server:
        options = options_for(server, transport=transport, memory=64 * MIB)
        async with Pusher(options) as pusher:
            items = [
                PushItem(layout, f"{registry.host}/{layout.name}")
                for layout in layouts
                for registry in REGISTRIES
            ]
            plan, rejected = await pusher.plan(items)
            assert not rejected
            report = await pusher.push_plan(remote(plan, origin))
        assert report.ok, [str(image.error) for image in report.failed]
        assert await all_tags(server, names) == wanted_tags(layouts)
        unique = sum(layers_of(plan).values())
        print(origin.given / unique, report.seconds)
        assert unique <= origin.given <= 1.05 * unique
        assert origin.open == 0
