"""Faults that a test asks for: each is met once, and does to the state what it says."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import HTTPClientError
from registry_driver import NAME, SMALL_PARTS, answers, complete, connect, put_part, sha256

from asyncpush.localregistry import CallInfo, Fault, LocalRegistry

pytestmark = pytest.mark.anyio

DATA = bytes(range(32))


class Faults:
    """Gives the planned fault to the first call of an action, and keeps what it was asked."""

    def __init__(self, **plan: Fault) -> None:
        self.plan = plan
        self.asked: list[CallInfo] = []

    def __call__(self, info: CallInfo) -> Fault | None:
        self.asked.append(info)
        return self.plan.get(info.action) if info.number == 1 else None


def registry_with(path: Path, faults: Faults) -> LocalRegistry:
    return LocalRegistry(path, options=replace(SMALL_PARTS, faults=faults))


async def begin(ecr: Any) -> str:
    await ecr.create_repository(repositoryName=NAME)
    return str((await ecr.initiate_layer_upload(repositoryName=NAME))["uploadId"])


async def test_error_is_answered_instead_of_acting(tmp_path: Path) -> None:
    faults = Faults(
        UploadLayerPart=Fault(code="ThrottlingException", message="Rate exceeded"),
        CompleteLayerUpload=Fault(code="ServerException", status=500),
    )
    async with registry_with(tmp_path, faults).run() as server, connect(server) as ecr:
        session = await begin(ecr)
        with answers("ThrottlingException", "Rate exceeded"):
            await put_part(ecr, session, 0, DATA)
        await put_part(ecr, session, 0, DATA)
        with answers("ServerException") as error:
            await complete(ecr, session, sha256(DATA))
        assert error["ResponseMetadata"]["HTTPStatusCode"] == 500
        await complete(ecr, session, sha256(DATA))
    info = next(info for info in faults.asked if info.action == "UploadLayerPart")
    assert (info.repository, info.number, info.region) == (NAME, 1, "eu-west-1")
    assert info.params["uploadId"] == session
    assert info.params["partFirstByte"] == 0


async def test_connection_cut_before_acting_loses_the_call(tmp_path: Path) -> None:
    faults = Faults(UploadLayerPart=Fault(drop="before"), CreateRepository=Fault(drop="before"))
    async with registry_with(tmp_path, faults).run() as server, connect(server) as ecr:
        with pytest.raises(HTTPClientError):
            await ecr.create_repository(repositoryName=NAME)
        session = await begin(ecr)
        with pytest.raises(HTTPClientError):
            await put_part(ecr, session, 0, DATA)
        await put_part(ecr, session, 0, DATA)
        await complete(ecr, session, sha256(DATA))
        assert server.calls.of("UploadLayerPart")[0].error == "ConnectionDropped"
        assert server.calls.of("UploadLayerPart")[0].status == 0


async def test_connection_cut_after_acting_loses_the_answer_alone(tmp_path: Path) -> None:
    faults = Faults(UploadLayerPart=Fault(drop="after"), CompleteLayerUpload=Fault(drop="after"))
    async with registry_with(tmp_path, faults).run() as server, connect(server) as ecr:
        session = await begin(ecr)
        with pytest.raises(HTTPClientError):
            await put_part(ecr, session, 0, DATA)
        with answers("InvalidLayerPartException") as error:
            await put_part(ecr, session, 0, DATA)
        assert error["lastValidByteReceived"] == 31
        with pytest.raises(HTTPClientError):
            await complete(ecr, session, sha256(DATA))
        checked = await ecr.batch_check_layer_availability(
            repositoryName=NAME, layerDigests=[sha256(DATA)]
        )
        assert checked["layers"][0]["layerAvailability"] == "AVAILABLE"


async def test_delay_holds_one_call_and_no_other(tmp_path: Path) -> None:
    faults = Faults(InitiateLayerUpload=Fault(delay=0.2))
    async with registry_with(tmp_path, faults).run() as server, connect(server) as ecr:
        started = time.monotonic()
        await begin(ecr)
        assert time.monotonic() - started >= 0.2
        started = time.monotonic()
        await ecr.initiate_layer_upload(repositoryName=NAME)
        assert time.monotonic() - started < 0.2
