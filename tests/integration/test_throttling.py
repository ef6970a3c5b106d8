"""Rates of the registry: a push that keeps to them is not throttled, any other still completes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import ACCOUNT, HOST, KEY_ID, REGION, SECRET

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions, PushReport
from asyncpush.localregistry import Key, LocalRegistry, LocalRegistryOptions
from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio

RATES = {"PutImage": 20.0, "InitiateLayerUpload": 50.0, "CompleteLayerUpload": 50.0}
TARGET = f"{HOST}/throttled/app"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    writer = LayoutWriter(tmp_path / "layout")
    for i in range(80):
        layer = writer.blob(b"layer %d" % i, mediatypes.OCI_LAYER)
        writer.entry(writer.image([layer]), f"v{i}")
    return writer.close()


@pytest.fixture(params=["native", "distribution"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def push(
    tmp_path: Path, layout: Path, transport: Any, quotas: dict[str, float]
) -> PushReport:
    registry = LocalRegistry(
        tmp_path / "store", [Key(KEY_ID, SECRET, ACCOUNT)], LocalRegistryOptions(rates=RATES)
    )
    async with registry.run() as server:
        await server.ensure_repository(ACCOUNT, REGION, "throttled/app")
        aws = AwsOptions(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=server.url)
        async with Pusher(PushOptions(aws=aws, quotas=quotas, transport=transport)) as pusher:
            report = await pusher.push([PushItem(layout, TARGET)])
        assert report.ok, [str(image.error) for image in report.failed]
        tags = await server.tags(ACCOUNT, REGION, "throttled/app")
        assert tags == {e.ref_name: e.digest for e in Layout(layout).entries}
        throttled = sum(
            count
            for (_, error), count in server.calls.counters.errors.items()
            if error == "ThrottlingException"
        )
        assert throttled == report.throttles
    return report


async def test_push_that_knows_the_quotas_is_not_throttled(
    tmp_path: Path, layout: Path, transport: str
) -> None:
    report = await push(tmp_path, layout, transport, RATES)

    assert report.throttles == 0
    assert report.calls[HOST]["PutImage"]["calls"] == 80


async def test_push_that_is_told_too_much_is_throttled_and_ends_complete(
    tmp_path: Path, layout: Path, transport: str
) -> None:
    report = await push(tmp_path, layout, transport, dict.fromkeys(RATES, 400.0))

    figures = report.calls[HOST]
    assert sum(call["throttled"] for call in figures.values()) == report.throttles > 0
    assert figures["PutImage"]["calls"] == 80 + figures["PutImage"]["throttled"]
