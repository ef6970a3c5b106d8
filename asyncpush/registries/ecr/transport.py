"""The six calls of a push over ECR's own API, and three that a user may ask for."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import aiohttp
import anyio
from yarl import URL

from asyncpush.errors import (
    PartOutOfOrderError,
    RegistryError,
    TransientError,
    UploadNotFoundError,
    VerificationError,
)
from asyncpush.oci.digest import Digest
from asyncpush.plan.reference import Registry
from asyncpush.registries.base import (
    MountAnswer,
    Mounting,
    PartReceipt,
    RepositorySettings,
    TaggedManifest,
    UploadSession,
)
from asyncpush.registries.content import BlobReader
from asyncpush.registries.distribution.transport import pieces_of
from asyncpush.registries.ecr.answers import (
    check_committed,
    check_completed,
    receipt_of,
    session_of,
    sizes_of,
    token_of,
    url_of,
)
from asyncpush.registries.ecr.batch import Images
from asyncpush.registries.ecr.body import PART_MEMORY, PartBody
from asyncpush.registries.ecr.errors import asking
from asyncpush.registries.proxies import Proxies

# botocore writes an empty blob, given last, as the end of the document; the real text goes there.
_EMPTY_BLOB = b'"layerPartBlob": ""}'
# botocore's ecr model: UploadId.pattern.
_UPLOAD_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# No layer is so large (quota: 52,000 MiB), so no part can begin there.
_NO_LAYERS_BYTE = 2**40
_NO_LAYER = ("LayersNotFoundException", "LayerInaccessibleException")


@dataclass(slots=True)
class _Part:
    """What one call of UploadLayerPart sends, on its way past botocore's serializer."""

    blob: BlobReader
    offset: int
    length: int
    body: PartBody | None = None


_part: ContextVar[_Part] = ContextVar("asyncpush_part")


class EcrTransport:
    """ECR's own API behind :class:`~asyncpush.registries.base.Transport`.

    :param client: an aiobotocore ECR client without retries.
    :param registry: the registry that every call is about.
    :param hashing: limits the threads that hash parts, shared by all registries.
    """

    part_memory = PART_MEMORY
    streams = False
    writes_referrers = False
    mounting: Mounting | None = None
    promoting: Mounting | None = None

    def __init__(self, client: Any, registry: Registry, hashing: anyio.CapacityLimiter) -> None:
        self._client = client
        self._registry = registry
        self._hashing = hashing
        self._images = Images(client, registry)
        client.meta.events.register("before-call.ecr.UploadLayerPart", self._stream_body)

    async def authorize(self) -> None:
        """See :class:`~asyncpush.registries.base.Transport`."""
        with asking("GetAuthorizationToken", registry=self._registry.host):
            # The native API is signed and needs no token; what matters here is the answer's kind.
            token_of(await self._client.get_authorization_token())

    async def available(self, repository: str, wanted: Sequence[Digest]) -> set[Digest]:
        """See :class:`~asyncpush.registries.base.Transport`."""
        return set(await self.sizes(repository, wanted))

    async def sizes(self, repository: str, wanted: Sequence[Digest]) -> dict[Digest, int | None]:
        """See :class:`~asyncpush.registries.base.Transport`."""
        with self._translating("BatchCheckLayerAvailability", repository):
            answer = await self._client.batch_check_layer_availability(
                **self._names(repository), layerDigests=list(wanted)
            )
            return sizes_of(answer, wanted)

    async def start_upload(self, repository: str) -> UploadSession:
        """See :class:`~asyncpush.registries.base.Transport`."""
        with self._translating("InitiateLayerUpload", repository):
            return session_of(await self._client.initiate_layer_upload(**self._names(repository)))

    async def mount(self, repository: str, digest: Digest, source: str) -> MountAnswer:  # noqa: ARG002
        """See :class:`~asyncpush.registries.base.Transport`; this API has no such call."""
        return MountAnswer(mounted=False)

    async def last_received(self, repository: str, session: UploadSession) -> int:
        """See :class:`~asyncpush.registries.base.Transport`.

        No call of ECR asks for that, but a part that cannot follow is refused with it.
        """
        if not _UPLOAD_ID.fullmatch(session.id):
            raise UploadNotFoundError("the upload session is one of another API")
        try:
            with self._translating("UploadLayerPart", repository):
                await self._client.upload_layer_part(
                    **self._names(repository),
                    uploadId=session.id,
                    partFirstByte=_NO_LAYERS_BYTE,
                    partLastByte=_NO_LAYERS_BYTE,
                    layerPartBlob=b"?",
                )
        except PartOutOfOrderError as exc:
            if exc.last_valid_byte is None:
                raise UploadNotFoundError(
                    "the registry does not say what it holds of this upload", **exc.where
                ) from exc
            return exc.last_valid_byte
        # A registry that takes such a part has spoilt the session.
        raise UploadNotFoundError("the upload has a part that is none of its layer's")

    def reads_twice(self, session: UploadSession) -> bool:  # noqa: ARG002 - every one of this API
        """See :class:`~asyncpush.registries.base.Transport`: the signature covers the part."""
        return True

    async def upload_part(
        self,
        repository: str,
        session: UploadSession,
        blob: BlobReader,
        offset: int,
        length: int,
        final: Digest | None,  # noqa: ARG002 - ECR completes an upload with a call of its own
    ) -> PartReceipt:
        """See :class:`~asyncpush.registries.base.Transport`."""
        part = _Part(blob, offset, length)
        token = _part.set(part)
        try:
            with self._translating("UploadLayerPart", repository):
                answer = await self._client.upload_layer_part(
                    **self._names(repository),
                    uploadId=session.id,
                    partFirstByte=offset,
                    partLastByte=offset + length - 1,
                    layerPartBlob=b"",
                )
                return receipt_of(answer, session, offset, length)
        except TransientError:
            # A body that cannot be read looks like a lost connection from outside.
            if part.body is not None and part.body.failure is not None:
                raise part.body.failure from None
            raise
        finally:
            _part.reset(token)

    async def complete_upload(
        self, repository: str, session: UploadSession, digest: Digest
    ) -> None:
        """See :class:`~asyncpush.registries.base.Transport`."""
        with self._translating("CompleteLayerUpload", repository, digest=digest):
            answer = await self._client.complete_layer_upload(
                **self._names(repository), uploadId=session.id, layerDigests=[digest]
            )
            check_completed(answer, digest)

    async def put_manifest(
        self,
        repository: str,
        raw: bytes,
        media_type: str,
        digest: Digest,
        tag: str | None,
        *,
        absent: bool = False,  # noqa: ARG002 - PutImage says it
    ) -> None:
        """See :class:`~asyncpush.registries.base.Transport`."""
        with self._translating("PutImage", repository, digest=digest, tag=tag):
            answer = await self._client.put_image(
                **self._names(repository),
                # Manifests were proven to be UTF-8 when they were parsed.
                imageManifest=raw.decode("utf-8"),
                imageManifestMediaType=media_type,
                imageDigest=digest,
                **({"imageTag": tag} if tag else {}),
            )
            check_committed(answer, digest, tag)

    async def create_repository(self, repository: str, settings: RepositorySettings) -> None:
        """See :class:`~asyncpush.registries.base.Transport`."""
        encryption: dict[str, str] = {"encryptionType": settings.encryption}
        if settings.kms_key is not None:
            encryption["kmsKey"] = settings.kms_key
        tags = [{"Key": key, "Value": value} for key, value in settings.tags.items()]
        try:
            with self._translating("CreateRepository", repository):
                await self._client.create_repository(
                    **self._names(repository),
                    imageTagMutability=settings.mutability,
                    encryptionConfiguration=encryption,
                    **({"tags": tags} if tags else {}),
                )
        except RegistryError as exc:
            if exc.where.get("error") != "RepositoryAlreadyExistsException":
                raise

    async def tagged(self, repository: str, tags: Sequence[str]) -> dict[str, Digest]:
        """See :class:`~asyncpush.registries.base.Transport`."""
        return await self._images.tagged(repository, tags)

    async def get_manifest(self, repository: str, reference: str) -> TaggedManifest:
        """See :class:`~asyncpush.registries.base.Transport`."""
        return await self._images.manifest(repository, reference)

    @contextlib.asynccontextmanager
    async def read_blob(
        self, repository: str, digest: Digest
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """See :class:`~asyncpush.registries.base.Transport`."""
        where: dict[str, Any] = {"repository": f"{self._registry.host}/{repository}"}
        try:
            with self._translating("GetDownloadUrlForLayer", repository):
                answer = await self._client.get_download_url_for_layer(
                    **self._names(repository), layerDigest=digest
                )
                url = URL(url_of(answer))
        except RegistryError as exc:
            if exc.where.get("error") in _NO_LAYER:
                raise VerificationError(
                    "the repository does not have this blob", digest=digest, **where
                ) from exc
            raise
        try:
            async with (
                aiohttp.ClientSession(auto_decompress=False) as session,
                session.get(url, **Proxies().of(url)) as response,
            ):
                if response.status != 200:
                    # The address is a secret for as long as it lives.
                    kind = TransientError if response.status >= 500 else VerificationError
                    raise kind(
                        f"the blob cannot be read: HTTP {response.status}", digest=digest, **where
                    )
                yield pieces_of(response)
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            raise TransientError(
                f"the blob cannot be read: {type(exc).__name__}", digest=digest, **where
            ) from exc

    def _names(self, repository: str) -> dict[str, str]:
        return {"registryId": self._registry.account, "repositoryName": repository}

    def _translating(
        self, call: str, repository: str, **where: str | None
    ) -> contextlib.AbstractContextManager[None]:
        return asking(call, repository=f"{self._registry.host}/{repository}", **where)

    async def _stream_body(self, params: dict[str, Any], **_: Any) -> None:
        """Put the streamed body in the place of botocore's, before the request is signed.

        The signer takes a payload hash that is there already (botocore.auth.SigV4Auth), so
        credentials, signature and endpoint stay botocore's.
        """
        part = _part.get(None)
        if part is None:
            return
        if not params["body"].endswith(_EMPTY_BLOB):
            raise RegistryError(
                "this version of botocore writes UploadLayerPart otherwise than expected",
                advice="install the versions of aiobotocore and botocore that asyncpush names",
            )
        body = PartBody(params["body"][:-2], part.blob, part.offset, part.length, self._hashing)
        part.body = body
        params["headers"]["X-Amz-Content-SHA256"] = await body.sha256()
        params["headers"]["Content-Length"] = str(len(body))
        params["body"] = body
