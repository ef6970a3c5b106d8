"""The JSON API: from a request to the operation that it names, and back to an answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from asyncpush.localregistry import (
    operations_account,
    operations_images,
    operations_layers,
    operations_policies,
    operations_put_image,
    operations_registry,
    operations_registry_policy,
    operations_replication,
    operations_repositories,
)
from asyncpush.localregistry.call import Arrival, Call, Services, addressed_registry
from asyncpush.localregistry.errors import ApiError, serialization
from asyncpush.localregistry.identity import Registry
from asyncpush.localregistry.params import Params, load_object
from asyncpush.localregistry.parts import upload_layer_part
from asyncpush.localregistry.requests import answer, read_pieces
from asyncpush.localregistry.sigv4 import Verifier

Operation = Callable[[Call, Params], Awaitable[dict[str, Any]]]

_CONTENT_TYPE = "application/x-amz-json-1.1"
_TARGET_PREFIX = "AmazonEC2ContainerRegistry_V20150921."
_PART = "UploadLayerPart"
_OPERATIONS: dict[str, Operation] = {
    "GetAuthorizationToken": operations_registry.get_authorization_token,
    "BatchCheckLayerAvailability": operations_layers.check_availability,
    "InitiateLayerUpload": operations_layers.initiate,
    "CompleteLayerUpload": operations_layers.complete,
    "GetDownloadUrlForLayer": operations_layers.get_download_url,
    "PutImage": operations_put_image.put,
    "BatchGetImage": operations_images.batch_get,
    "BatchDeleteImage": operations_images.batch_delete,
    "DescribeImages": operations_images.describe,
    "ListImages": operations_images.list_ids,
    "CreateRepository": operations_repositories.create,
    "DescribeRepositories": operations_repositories.describe,
    "DeleteRepository": operations_repositories.delete,
    "PutImageTagMutability": operations_repositories.put_tag_mutability,
    "ListTagsForResource": operations_repositories.list_tags,
    "SetRepositoryPolicy": operations_policies.put,
    "GetRepositoryPolicy": operations_policies.get,
    "DeleteRepositoryPolicy": operations_policies.delete,
    "PutAccountSetting": operations_account.put,
    "GetAccountSetting": operations_account.get,
    "DescribeRegistry": operations_replication.describe_registry,
    "PutReplicationConfiguration": operations_replication.put_configuration,
    "DescribeImageReplicationStatus": operations_replication.image_status,
    "PutRegistryPolicy": operations_registry_policy.put,
    "GetRegistryPolicy": operations_registry_policy.get,
    "DeleteRegistryPolicy": operations_registry_policy.delete,
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
