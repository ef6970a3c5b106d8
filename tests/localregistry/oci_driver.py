"""How tests speak to ``/v2/``: with aiohttp alone, as a client that knows nothing of ECR."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from registry_driver import SMALL_PARTS, connect, descriptor, manifest_text, sha256

from asyncpush.localregistry import (
    DEFAULT_KEY,
    DistributionOptions,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
)

Oci = aiohttp.ClientSession


async def log_in(ecr: Any, url: str) -> Oci:
    """A session that carries ECR's authorization token."""
    (data,) = (await ecr.get_authorization_token())["authorizationData"]
    headers = {"Authorization": f"Basic {data['authorizationToken']}"}
    session = aiohttp.ClientSession(url, headers=headers)
    # aiohttp repeats a PUT whose connection broke, as its own tests know how to prevent.
    session._retry_connection = False
    return session


@contextlib.asynccontextmanager
async def serving(
    root: Path,
    distribution: DistributionOptions | None = None,
    keys: tuple[Key, ...] = (DEFAULT_KEY,),
    options: LocalRegistryOptions = SMALL_PARTS,
) -> AsyncIterator[tuple[RunningRegistry, Any, Oci]]:
    """A registry, a client of ECR's API, and a session of ``/v2/``, both of the first key."""
    options = replace(options, distribution=distribution or DistributionOptions())
    async with (
        LocalRegistry(root, keys, options).run() as server,
        connect(server, keys[0]) as ecr,
        await log_in(ecr, server.url) as oci,
    ):
        yield server, ecr, oci


async def error_of(response: aiohttp.ClientResponse) -> tuple[int, str]:
    """Status and code of an error."""
    (error,) = (await response.json())["errors"]
    assert error["message"]
    return response.status, error["code"]


async def start(oci: Oci, name: str, query: str = "") -> str:
    """Open an upload session; its address."""
    async with oci.post(f"/v2/{name}/blobs/uploads/{query}") as response:
        assert response.status == 202, await response.text()
        assert response.headers["Range"] == "0-0"
        assert response.headers["Docker-Upload-UUID"] in response.headers["Location"]
        return response.headers["Location"]


async def patch(oci: Oci, where: str, data: Any, **headers: str) -> tuple[int, str]:
    """Send a chunk; status and Range of its answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with oci.patch(where, data=data, headers=named) as response:
        return response.status, response.headers.get("Range", "")


async def finish(oci: Oci, where: str, digest: str, data: bytes = b"", **headers: str) -> int:
    """Complete an upload; the status of its answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with oci.put(f"{where}?digest={digest}", data=data, headers=named) as response:
        return response.status


async def push_blob(oci: Oci, name: str, data: bytes) -> str:
    """Upload a blob; its digest."""
    assert await finish(oci, await start(oci, name), sha256(data), data) == 201
    return sha256(data)


async def put_manifest(
    oci: Oci, name: str, reference: str, text: str, media_type: str
) -> aiohttp.ClientResponse:
    """Put a manifest."""
    return await oci.put(
        f"/v2/{name}/manifests/{reference}",
        data=io.BytesIO(text.encode()),
        headers={"Content-Type": media_type},
    )


async def push_small_image(oci: Oci, name: str, seed: str, tag: str = "") -> tuple[str, str]:
    """Push an image over ``/v2/``; digests of its layer and of itself."""
    config = await push_blob(oci, name, f"config of {seed}".encode())
    layer = await push_blob(oci, name, f"layer of {seed}".encode())
    text = manifest_text(config, [descriptor(layer)])
    response = await put_manifest(
        oci, name, tag or sha256(text), text, "application/vnd.oci.image.manifest.v1+json"
    )
    assert response.status == 201, await response.text()
    return layer, sha256(text)
