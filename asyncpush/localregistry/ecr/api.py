"""The JSON API: from a request to the operation that it names, and back to an answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from asyncpush.localregistry.access.sigv4 import Verifier
from asyncpush.localregistry.call import Arrival, Call, Services, addressed_registry
from asyncpush.localregistry.ecr import (
    account,
    authorization,
    images,
    layers,
    policies,
    put_image,
    registry_policy,
    replication,
    repositories,
)
from asyncpush.localregistry.ecr.parts import upload_layer_part
from asyncpush.localregistry.errors import ApiError, serialization
from asyncpush.localregistry.identity import Registry
from asyncpush.localregistry.params import Params, load_object
from asyncpush.localregistry.requests import answer, read_pieces

Operation = Callable[[Call, Params], Awaitable[dict[str, Any]]]

_CONTENT_TYPE = "application/x-amz-json-1.1"
_TARGET_PREFIX = "AmazonEC2ContainerRegistry_V20150921."
_PART = "UploadLayerPart"
_OPERATIONS: dict[str, Operation] = {
    "GetAuthorizationToken": authorization.get_authorization_token,
    "BatchCheckLayerAvailability": layers.check_availability,
    "InitiateLayerUpload": layers.initiate,
    "CompleteLayerUpload": layers.complete,
    "GetDownloadUrlForLayer": layers.get_download_url,
    "PutImage": put_image.put,
    "BatchGetImage": images.batch_get,
    "BatchDeleteImage": images.batch_delete,
    "DescribeImages": images.describe,
    "ListImages": images.list_ids,
    "CreateRepository": repositories.create,
    "DescribeRepositories": repositories.describe,
    "DeleteRepository": repositories.delete,
    "PutImageTagMutability": repositories.put_tag_mutability,
    "ListTagsForResource": repositories.list_tags,
    "SetRepositoryPolicy": policies.put,
    "GetRepositoryPolicy": policies.get,
    "DeleteRepositoryPolicy": policies.delete,
    "PutAccountSetting": account.put,
    "GetAccountSetting": account.get,
    "DescribeRegistry": replication.describe_registry,
    "PutReplicationConfiguration": replication.put_configuration,
    "DescribeImageReplicationStatus": replication.image_status,
    "PutRegistryPolicy": registry_policy.put,
    "GetRegistryPolicy": registry_policy.get,
    "DeleteRegistryPolicy": registry_policy.delete,
}
_UNKNOWN = "UnknownOperation"

_MAX_BODY = 1024 * 1024
# A manifest has 4 MiB at most, in JSON six times that if every byte is an escape of six.
_MAX_MANIFEST_BODY = 25 * 1024 * 1024
# A part has 20 MiB at most, a third more in base64; escapes are left some room.
_MAX_PART_BODY = 64 * 1024 * 1024


class JsonApi:
    """Answers ``POST /``, the protocol that AWS calls JSON 1.1."""

    def __init__(self, services: Services) -> None:
        options = services.options
        self._services = services
        self._verifier = Verifier(services.keyring, options.clock, options.max_clock_skew)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        target = request.headers.get("X-Amz-Target", "")
        action = target.removeprefix(_TARGET_PREFIX)
        if not target.startswith(_TARGET_PREFIX) or (action not in _OPERATIONS and action != _PART):
            action = _UNKNOWN

        async def work(arrival: Arrival) -> web.StreamResponse:
            return _respond(await self._act(request, arrival), 200)

        def fail(error: ApiError) -> web.StreamResponse:
            return _respond(error.document(), error.status)

        return await answer(self._services, request, action, work, fail)

    async def _act(self, request: web.Request, arrival: Arrival) -> dict[str, Any]:
        action = arrival.record.action
        signed = self._verifier.open(request.method, request.raw_path, request.headers)
        arrival.record.access_key_id = signed.key.access_key_id
        if signed.claimed is not None:
            signed.prove(signed.claimed)
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise serialization("The request body has a Content-Encoding, which is not supported")
        registry = Registry(signed.key.account, signed.region)
        call = Call(self._services, arrival, signed.key, signed.policy, registry)
        call.address(registry, None)
        idle = self._services.options.body_timeout
        if action == _PART:
            _check_content_type(request)
            pieces = read_pieces(request, idle, _MAX_PART_BODY)
            return await upload_layer_part(
                call, pieces, signed.prove, proven=signed.claimed is not None
            )
        most = _MAX_MANIFEST_BODY if action == "PutImage" else _MAX_BODY
        body = b"".join([piece async for piece in read_pieces(request, idle, most)])
        signed.prove(hashlib.sha256(body).hexdigest())
        if action == _UNKNOWN:
            raise ApiError("UnknownOperationException", "The operation is unknown.")
        _check_content_type(request)
        params = Params(load_object(body))
        call.address(addressed_registry(call, params), params.optional_text("repositoryName"))
        await call.admit(params.document)
        return await _OPERATIONS[action](call, params)


def _check_content_type(request: web.Request) -> None:
    if request.content_type != _CONTENT_TYPE:
        raise serialization(f"The Content-Type is {request.content_type}, not {_CONTENT_TYPE}")


def _respond(document: dict[str, Any], status: int) -> web.StreamResponse:
    return web.Response(
        status=status,
        body=json.dumps(document, separators=(",", ":")).encode(),
        headers={"Content-Type": _CONTENT_TYPE},
    )
