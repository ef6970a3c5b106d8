"""Mounts: which blobs of another repository are shared, and that a refusal is an upload session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from oci_driver import (
    Oci,
    finish,
    log_in,
    push_blob,
    push_small_image,
    serving,
    start,
)
from registry_driver import NAME, REGION, answers, connect, push_image, sha256

from asyncpush.localregistry import DEFAULT_KEY, DistributionOptions, Key, RunningRegistry

pytestmark = pytest.mark.anyio

OTHER = "team/other"
LAYER = b"layer of 1"
ECR = DistributionOptions(mounting="ecr", blob_mounting=True)


async def mount(
    oci: Oci, digest: str = sha256(LAYER), source: str | None = NAME, target: str = OTHER
) -> int:
    origin = "" if source is None else f"&from={source}"
    address = f"/v2/{target}/blobs/uploads/?mount={digest}{origin}"
    async with oci.post(address) as response:
        if response.status == 201:
            assert response.headers["Location"] == f"/v2/{target}/blobs/{digest}"
            assert response.headers["Docker-Content-Digest"] == digest
        elif response.status == 202:
            # A refusal is an ordinary upload session.
            where = response.headers["Location"]
            async with oci.get(where) as session:
                assert (session.status, session.headers["Range"]) == (204, "0-0")
        return response.status


async def create(ecr: Any, **more: Any) -> None:
    await ecr.create_repository(repositoryName=NAME)
    await ecr.create_repository(repositoryName=OTHER, **more)


def refusals(server: RunningRegistry) -> list[str | None]:
    return [call.mount for call in server.calls.of("v2.MountBlob")]


async def test_mounted_blob_is_a_layer_like_any_other(tmp_path: Path) -> None:
    async with serving(tmp_path, ECR) as (server, ecr, oci):
        await create(ecr)
        await push_image(ecr, "1", "v1")
        assert await mount(oci) == 201
        assert await mount(oci, sha256("config of 1")) == 201
        await ecr.delete_repository(repositoryName=NAME, force=True)
        async with oci.get(f"/v2/{OTHER}/blobs/{sha256(LAYER)}") as response:
            assert await response.read() == LAYER
        assert (server.calls.counters.mounts, server.calls.counters.mounts_refused) == (2, 0)
        assert refusals(server) == ["mounted", "mounted"]
        sent = server.calls.counters.layer_bytes_received
        assert sent == len(LAYER) + len("config of 1")
    async with (
        serving(tmp_path, ECR) as (_, _, oci),
        oci.get(f"/v2/{OTHER}/blobs/{sha256(LAYER)}") as response,
    ):
        assert await response.read() == LAYER


async def test_switched_off_nothing_is_mounted(tmp_path: Path) -> None:
    async with serving(tmp_path, DistributionOptions(mounting="off")) as (server, ecr, oci):
        await create(ecr)
        await push_image(ecr, "1")
        assert await mount(oci) == 202
        assert server.calls.counters.mounts_refused == 1
        assert refusals(server) == ["off"]


async def test_by_the_specification_any_blob_of_the_source_is_mounted(tmp_path: Path) -> None:
    async with serving(tmp_path, DistributionOptions(mounting="on")) as (server, ecr, oci):
        await create(ecr, encryptionConfiguration={"encryptionType": "KMS"})
        await push_blob(oci, NAME, LAYER)
        assert await mount(oci) == 201
        assert await mount(oci, sha256(b"absent")) == 202
        assert await mount(oci, source=None) == 202
        assert await mount(oci, source="not/there") == 202
        assert refusals(server)[1:] == ["no such blob", "no source", "no such blob"]


async def test_ecr_mounts_once_the_account_has_switched_it_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, ecr, oci):
        await create(ecr)
        await push_image(ecr, "1")
        setting = {"name": "BLOB_MOUNTING"}
        assert (await ecr.get_account_setting(**setting))["value"] == "DISABLED"
        assert await mount(oci) == 202
        answer = await ecr.put_account_setting(**setting, value="ENABLED")
        assert (answer["name"], answer["value"]) == ("BLOB_MOUNTING", "ENABLED")
        assert await mount(oci) == 201
        async with connect(server, region="eu-west-2") as elsewhere:
            assert (await elsewhere.get_account_setting(**setting))["value"] == "DISABLED"
    async with serving(tmp_path) as (server, ecr, oci):
        assert (await ecr.get_account_setting(**setting))["value"] == "ENABLED"
        await ecr.put_account_setting(**setting, value="DISABLED")
        assert await mount(oci, sha256("config of 1")) == 202
        assert refusals(server) == ["off for the account"]


async def test_account_settings_that_are_not_there_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, ecr, _):
        with answers("InvalidParameterException", "BLOB_MOUNTING"):
            await ecr.put_account_setting(name="BASIC_SCAN_TYPE_VERSION", value="AWS_NATIVE")
        with answers("InvalidParameterException", "ENABLED or DISABLED"):
            await ecr.put_account_setting(name="BLOB_MOUNTING", value="on")
        with answers("InvalidParameterException"):
            await ecr.get_account_setting(name="x" * 65)


async def test_ecr_mounts_what_a_manifest_references(tmp_path: Path) -> None:
    async with serving(tmp_path, ECR) as (server, ecr, oci):
        await create(ecr)
        await push_blob(oci, NAME, LAYER)
        assert await mount(oci) == 202
        image = (await push_small_image(oci, NAME, "1", "v1"))[1]
        assert await mount(oci) == 201
        await ecr.batch_delete_image(repositoryName=NAME, imageIds=[{"imageDigest": image}])
        assert await mount(oci, sha256("config of 1")) == 202
        assert refusals(server) == ["not referenced", "mounted", "not referenced"]


@pytest.mark.parametrize(
    ("ours", "theirs", "status"),
    [
        ("AES256", "AES256", 201),
        ("AES256", "KMS", 202),
        ("KMS", "KMS", 201),
        ("KMS", "KMS_DSSE", 202),
        ("KMS alias/one", "KMS alias/two", 202),
        ("KMS alias/one", f"KMS arn:aws:kms:{REGION}:{DEFAULT_KEY.account}:alias/one", 201),
    ],
)
async def test_ecr_mounts_between_repositories_of_equal_encryption(
    tmp_path: Path, ours: str, theirs: str, status: int
) -> None:
    def configuration(text: str) -> dict[str, str]:
        return dict(zip(("encryptionType", "kmsKey"), text.split(), strict=False))

    async with serving(tmp_path, ECR) as (_, ecr, oci):
        for name, text in ((NAME, ours), (OTHER, theirs)):
            answer = await ecr.create_repository(
                repositoryName=name, encryptionConfiguration=configuration(text)
            )
            described = answer["repository"]["encryptionConfiguration"]
            assert described["encryptionType"] == text.split()[0]
        await push_image(ecr, "1")
        assert await mount(oci) == status


async def test_mounting_needs_the_permission_to_read_the_source(tmp_path: Path) -> None:
    def statement(action: str, name: str) -> dict[str, str]:
        arn = f"arn:aws:ecr:*:*:repository/{name}" if name != "*" else "*"
        return {"Effect": "Allow", "Action": f"ecr:{action}", "Resource": arn}

    push = [
        statement(action, OTHER)
        for action in ("InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload")
    ]
    token = statement("GetAuthorizationToken", "*")
    read = statement("GetDownloadUrlForLayer", NAME)
    may = Key("AKIDMAYMAYMAYMAYMAY0", "s", policy={"Statement": [token, *push, read]})
    may_not = Key("AKIDNOTNOTNOTNOTNOT0", "s", policy={"Statement": [token, *push]})
    no_push = Key("AKIDREADREADREADREA0", "s", policy={"Statement": [token, read]})
    keys = (DEFAULT_KEY, may, may_not, no_push)
    async with serving(tmp_path, ECR, keys) as (server, ecr, _):
        await create(ecr)
        await push_image(ecr, "1")
        async with connect(server, may_not) as client, await log_in(client, server.url) as oci:
            assert await mount(oci) == 202
            assert refusals(server) == ["no permission"]
            assert await finish(oci, await start(oci, OTHER), sha256(b"own"), b"own") == 201
        async with connect(server, may) as client, await log_in(client, server.url) as oci:
            assert await mount(oci) == 201
        async with connect(server, no_push) as client, await log_in(client, server.url) as oci:
            assert await mount(oci) == 403


async def test_target_must_be_there_and_the_digest_one(tmp_path: Path) -> None:
    async with serving(tmp_path, ECR) as (_, ecr, oci):
        await create(ecr)
        assert await mount(oci, target="not/there") == 404
        assert await mount(oci, digest="sha256:12") == 400
