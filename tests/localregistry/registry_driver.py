"""How tests speak to a registry: through aiobotocore, or with requests signed by themselves."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from asyncpush.localregistry import DEFAULT_KEY, Key, LocalRegistryOptions, RunningRegistry

NAME = "team/app"
REGION = "eu-west-1"
ACCOUNT = DEFAULT_KEY.account
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
TARGET = "AmazonEC2ContainerRegistry_V20150921."
SESSION = get_session()  # one for all, since it reads the service model
SMALL_PARTS = LocalRegistryOptions(min_part_size=8, part_size=16, max_part_size=64)


def sha256(data: bytes | str) -> str:
    """The digest of bytes or of a text."""
    raw = data.encode() if isinstance(data, str) else data
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


@contextlib.asynccontextmanager
async def connect(
    server: RunningRegistry, key: Key = DEFAULT_KEY, region: str = REGION
) -> AsyncIterator[Any]:
    """A client that never tries twice, so that a test sees every answer."""
    async with SESSION.create_client(
        "ecr",
        endpoint_url=server.url,
        region_name=region,
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        aws_session_token=key.session_token,
        config=AioConfig(retries={"total_max_attempts": 1}, parameter_validation=False),
    ) as client:
        yield client


@contextlib.contextmanager
def answers(code: str, message: str = "") -> Iterator[dict[str, Any]]:
    """Expect an error of this code, whose message contains a text; yields its document."""
    found: dict[str, Any] = {}
    with pytest.raises(ClientError) as info:
        yield found
    error = info.value.response["Error"]
    assert error["Code"] == code, error
    assert message in error["Message"]
    assert info.value.response["ResponseMetadata"]["RequestId"]
    found |= info.value.response


async def upload(client: Any, data: bytes, part: int = 16, name: str = NAME) -> str:
    """Upload a layer in parts; its digest."""
    session = (await client.initiate_layer_upload(repositoryName=name))["uploadId"]
    for first in range(0, len(data), part):
        await put_part(client, session, first, data[first : first + part], name)
    await complete(client, session, sha256(data), name)
    return sha256(data)


async def put_part(client: Any, session: str, first: int, data: bytes, name: str = NAME) -> Any:
    """Upload one part."""
    return await client.upload_layer_part(
        repositoryName=name,
        uploadId=session,
        partFirstByte=first,
        partLastByte=first + len(data) - 1,
        layerPartBlob=data,
    )


async def complete(client: Any, session: str, digest: str, name: str = NAME) -> Any:
    """Complete an upload."""
    return await client.complete_layer_upload(
        repositoryName=name, uploadId=session, layerDigests=[digest]
    )


def descriptor(digest: str, media_type: str = LAYER_TYPE, size: int = 1, **more: Any) -> Any:
    """A descriptor."""
    return {"mediaType": media_type, "digest": digest, "size": size, **more}


def manifest_text(config: str, layers: list[Any], **more: Any) -> str:
    """A manifest, written in a way that nobody would write again."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(config, CONFIG_TYPE),
        "layers": layers,
        **more,
    }
    return json.dumps(document, indent=3, separators=(" , ", " : "))


async def put_image(client: Any, text: str, tag: str | None = None, **more: Any) -> str:
    """Put a manifest or index; its digest."""
    more = {"repositoryName": NAME, "imageManifest": text} | more
    if tag is not None:
        more["imageTag"] = tag
    answer = await client.put_image(**more)
    return str(answer["image"]["imageId"]["imageDigest"])


async def push_image(client: Any, seed: str, tag: str | None = None) -> str:
    """Upload config and layer of a small image and put its manifest; its digest."""
    config = await upload(client, f"config of {seed}".encode())
    layer = await upload(client, f"layer of {seed}".encode())
    return await put_image(client, manifest_text(config, [descriptor(layer)]), tag)


def sign(
    url: str,
    action: str,
    body: bytes,
    key: Key = DEFAULT_KEY,
    *,
    region: str = REGION,
    service: str = "ecr",
    **headers: str,
) -> dict[str, str]:
    """The headers of a request, signed by botocore, which is an opinion of its own."""
    plain = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": TARGET + action}
    plain |= {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest("POST", f"{url}/", headers=plain, data=body)
    credentials = Credentials(key.access_key_id, key.secret_access_key, key.session_token)
    SigV4Auth(credentials, service, region).add_auth(request)
    return dict(request.headers.items())


async def post(
    server: RunningRegistry, body: bytes, headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    """Send a request as it is; status and document of its answer."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/", data=io.BytesIO(body), headers=headers) as response,
    ):
        assert response.headers["x-amzn-RequestId"]
        return response.status, await response.json(content_type=None)


async def call(
    server: RunningRegistry, action: str, body: bytes, key: Key = DEFAULT_KEY, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Sign and send a body as it is."""
    return await post(server, body, sign(server.url, action, body, key, **headers))


def part_body(session: str, first: int, data: bytes, **more: Any) -> dict[str, Any]:
    """The members of an UploadLayerPart."""
    return {
        "repositoryName": NAME,
        "uploadId": session,
        "partFirstByte": first,
        "partLastByte": first + len(data) - 1,
        "layerPartBlob": base64.b64encode(data).decode(),
        **more,
    }
