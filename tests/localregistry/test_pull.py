"""The reading half of OCI distribution, as a client that knows nothing of ECR sees it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from oci_driver import error_of, log_in
from registry_driver import (
    ACCOUNT,
    CONFIG_TYPE,
    MANIFEST_TYPE,
    NAME,
    REGION,
    SMALL_PARTS,
    answers,
    connect,
    descriptor,
    manifest_text,
    push_image,
    put_image,
    sha256,
    upload,
)

from asyncpush.localregistry import (
    DEFAULT_KEY,
    DistributionOptions,
    Key,
    LocalRegistry,
    RunningRegistry,
)

pytestmark = pytest.mark.anyio

DATA = bytes(range(256))


@pytest.fixture
async def oci(registry: RunningRegistry, ecr: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with a token."""
    async with await log_in(ecr, registry.url) as session:
        yield session


async def test_ping_says_who_may_come_in(
    registry: RunningRegistry, oci: aiohttp.ClientSession
) -> None:
    async with oci.get("/v2/") as response:
        assert response.status == 200
        assert response.headers["Docker-Distribution-API-Version"] == "registry/2.0"
    for value in ("Basic QVdTOnB3", "Basic \u00e9", "Bearer x", "", "Basic"):
        async with (
            aiohttp.ClientSession(registry.url) as stranger,
            stranger.get("/v2/", headers={"Authorization": value}) as response,
        ):
            assert await error_of(response) == (401, "UNAUTHORIZED")
            assert response.headers["WWW-Authenticate"].startswith("Basic realm=")


async def test_manifest_is_read_by_tag_and_digest(ecr: Any, oci: aiohttp.ClientSession) -> None:
    text = manifest_text(await upload(ecr, b"config"), [])
    digest = await put_image(ecr, text, "v1")
    for reference in ("v1", digest):
        async with oci.get(f"/v2/{NAME}/manifests/{reference}") as response:
            assert await response.text() == text
            assert response.headers["Content-Type"] == MANIFEST_TYPE
            assert response.headers["Docker-Content-Digest"] == digest
        async with oci.head(f"/v2/{NAME}/manifests/{reference}") as response:
            assert (response.status, await response.read()) == (200, b"")
            assert int(response.headers["Content-Length"]) == len(text)
    async with oci.get(f"/v2/{NAME}/manifests/v2") as response:
        assert await error_of(response) == (404, "MANIFEST_UNKNOWN")
    async with oci.get("/v2/not/there/manifests/v1") as response:
        assert await error_of(response) == (404, "NAME_UNKNOWN")
    async with oci.get("/v2/Not/manifests/v1") as response:
        assert await error_of(response) == (400, "NAME_INVALID")


@pytest.mark.parametrize(
    ("wanted", "status", "data"),
    [
        (None, 200, DATA),
        ("bytes=0-9", 206, DATA[:10]),
        ("bytes=250-", 206, DATA[250:]),
        ("bytes=-6", 206, DATA[-6:]),
        ("bytes=256-", 416, None),
    ],
)
async def test_blob_is_read_whole_or_in_ranges(
    ecr: Any, oci: aiohttp.ClientSession, wanted: str | None, status: int, data: bytes | None
) -> None:
    digest = await upload(ecr, DATA, 64)
    headers = {"Range": wanted} if wanted else {}
    async with oci.get(f"/v2/{NAME}/blobs/{digest}", headers=headers) as response:
        assert response.status == status
        if data is not None:
            assert await response.read() == data
            assert response.headers["Docker-Content-Digest"] == digest
            assert response.headers["Content-Type"] == "application/octet-stream"
    async with oci.head(f"/v2/{NAME}/blobs/{digest}") as response:
        assert (response.status, response.headers["Content-Length"]) == (200, "256")


async def test_blob_of_another_repository_is_unknown(ecr: Any, oci: aiohttp.ClientSession) -> None:
    await ecr.create_repository(repositoryName="other")
    digest = await upload(ecr, DATA, 64)
    async with oci.get(f"/v2/other/blobs/{digest}") as response:
        assert await error_of(response) == (404, "BLOB_UNKNOWN")
    for bad in ("sha512:" + "0" * 128, "..", "sha256:..%2f..%2fsecret"):
        async with oci.get(f"/v2/{NAME}/blobs/{bad}") as response:
            assert response.status in (400, 404)
            assert b"errors" in await response.read()


async def test_tags_and_repositories_are_listed_page_by_page(
    ecr: Any, oci: aiohttp.ClientSession
) -> None:
    await ecr.create_repository(repositoryName="zoo")
    for tag in ("c", "a", "b"):
        await push_image(ecr, tag, tag)
    async with oci.get(f"/v2/{NAME}/tags/list") as response:
        assert await response.json() == {"name": NAME, "tags": ["a", "b", "c"]}
        assert "Link" not in response.headers
    async with oci.get(f"/v2/{NAME}/tags/list?n=2") as response:
        assert (await response.json())["tags"] == ["a", "b"]
        link = response.headers["Link"]
    assert link == f'</v2/{NAME}/tags/list?n=2&last=b>; rel="next"'
    async with oci.get(f"/v2/{NAME}/tags/list?n=2&last=b") as response:
        assert (await response.json())["tags"] == ["c"]
    async with oci.get("/v2/_catalog?n=1") as response:
        assert await response.json() == {"repositories": [NAME]}
        assert 'rel="next"' in response.headers["Link"]
    async with oci.get("/v2/_catalog?n=x") as response:
        assert await error_of(response) == (400, "PAGINATION_NUMBER_INVALID")


async def test_referrers_are_listed_and_filtered(ecr: Any, oci: aiohttp.ClientSession) -> None:
    image = await push_image(ecr, "1", "v1")
    subject = descriptor(image, MANIFEST_TYPE)
    config = await upload(ecr, b"{}")
    notes = {"who": "me"}
    text = manifest_text(config, [], subject=subject, artifactType="a/sbom", annotations=notes)
    sbom = await put_image(ecr, text)
    plain = await put_image(ecr, manifest_text(config, [], subject=subject))
    async with oci.get(f"/v2/{NAME}/referrers/{image}") as response:
        found = {m["digest"]: m for m in (await response.json())["manifests"]}
    assert set(found) == {sbom, plain}
    assert found[sbom] == {
        "mediaType": MANIFEST_TYPE,
        "digest": sbom,
        "size": len(text),
        "artifactType": "a/sbom",
        "annotations": notes,
    }
    assert found[plain]["artifactType"] == CONFIG_TYPE
    async with oci.get(f"/v2/{NAME}/referrers/{image}?artifactType=a/sbom") as response:
        assert response.headers["OCI-Filters-Applied"] == "artifactType"
        assert [m["digest"] for m in (await response.json())["manifests"]] == [sbom]
    async with oci.get(f"/v2/{NAME}/referrers/{sbom}") as response:
        assert (await response.json())["manifests"] == []


async def test_policy_decides_what_is_pulled(tmp_path: Path) -> None:
    def statement(action: str) -> dict[str, str]:
        return {"Effect": "Allow", "Action": action, "Resource": "*"}

    policy = {"Statement": [statement("ecr:GetAuthorizationToken"), statement("ecr:BatchGetImage")]}
    reader = Key("AKIDREADERREADER0000", "s", policy=policy)
    keys = [DEFAULT_KEY, reader]
    async with LocalRegistry(tmp_path, keys, SMALL_PARTS).run() as server:
        async with connect(server) as ecr:
            await ecr.create_repository(repositoryName=NAME)
            await push_image(ecr, "1", "v1")
        async with connect(server, reader) as ecr, await log_in(ecr, server.url) as oci:
            async with oci.get(f"/v2/{NAME}/manifests/v1") as response:
                assert response.status == 200
            for path in (f"{NAME}/blobs/{sha256(b'layer of 1')}", f"{NAME}/tags/list", "_catalog"):
                async with oci.get(f"/v2/{path}") as response:
                    assert await error_of(response) == (403, "DENIED")


async def test_token_outlives_a_restart_but_not_its_key(tmp_path: Path) -> None:
    other = Key("AKIDOTHEROTHEROTHER0", "s")
    async with LocalRegistry(tmp_path, [other]).run() as server, connect(server, other) as ecr:
        (data,) = (await ecr.get_authorization_token())["authorizationData"]
    headers = {"Authorization": f"Basic {data['authorizationToken']}"}
    for keys, status in (([other], 200), ([DEFAULT_KEY], 401)):
        async with (
            LocalRegistry(tmp_path, keys).run() as server,
            aiohttp.ClientSession(server.url, headers=headers) as oci,
            oci.get("/v2/") as response,
        ):
            assert response.status == status


async def test_anonymous_pull_finds_its_registry_in_the_host(tmp_path: Path) -> None:
    options = replace(SMALL_PARTS, distribution=DistributionOptions(anonymous_pull=True))
    async with LocalRegistry(tmp_path, options=options).run() as server:
        async with connect(server) as ecr:
            await ecr.create_repository(repositoryName=NAME)
            await push_image(ecr, "1", "v1")
        host = {"Host": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"}
        async with aiohttp.ClientSession(server.url) as oci:
            async with oci.get(f"/v2/{NAME}/manifests/v1", headers=host) as response:
                assert response.status == 200
            async with oci.get(f"/v2/{NAME}/manifests/v1") as response:
                assert await error_of(response) == (404, "NAME_UNKNOWN")
            wrong = host | {"Authorization": "Basic QVdTOnB3"}
            async with oci.get(f"/v2/{NAME}/manifests/v1", headers=wrong) as response:
                assert response.status == 401


async def test_download_url_gives_the_layer_without_a_token(
    registry: RunningRegistry, ecr: Any
) -> None:
    digest = await upload(ecr, DATA, 64)
    answer = await ecr.get_download_url_for_layer(repositoryName=NAME, layerDigest=digest)
    url = answer["downloadUrl"]
    assert answer["layerDigest"] == digest
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            assert await response.read() == DATA
        for changed in (url[:-1], url.replace("expires=1", "expires=2"), url.split("?")[0]):
            async with session.get(changed) as response:
                assert await error_of(response) == (403, "DENIED")
    with answers("LayersNotFoundException"):
        await ecr.get_download_url_for_layer(repositoryName=NAME, layerDigest=sha256(b"no"))


async def test_password_is_in_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "asyncpush.localregistry")
    options = replace(SMALL_PARTS, call_log=tmp_path / "log", log_requests=True)
    async with (
        LocalRegistry(tmp_path / "root", options=options).run() as server,
        connect(server) as ecr,
        await log_in(ecr, server.url) as oci,
    ):
        header = str(oci.headers["Authorization"])
        async with oci.get("/v2/") as response:
            assert response.status == 200
    password = base64.b64decode(header.split()[1]).decode().partition(":")[2]
    written = (tmp_path / "log").read_text() + caplog.text
    assert json.loads(written.splitlines()[1])["action"] == "v2.Ping"
    assert password not in written
    assert header.split()[1] not in written
