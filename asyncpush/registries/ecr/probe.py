"""Questions to ECR that change nothing: which action is allowed shows in how a call is refused.

What a call is about is looked up when its parameters were checked and the caller was authorized. So
a call with valid parameters about something that does not exist is answered with AccessDenied where
a policy does not allow it, and with what it did not find where one does.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
from aiobotocore.session import AioSession

from asyncpush.errors import RegistryError, RepositoryNotFoundError
from asyncpush.oci import mediatypes
from asyncpush.oci.digest import Digest, compute
from asyncpush.plan.reference import Registry
from asyncpush.registries.ecr.errors import translating
from asyncpush.registries.ecr.identity import Identity, identify
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.registries.ecr.session import is_aws, open_client, open_session
from asyncpush.registries.ecr.transport import EcrTransport

# What is not found, behind the authorization of a call (botocore's ecr model: its errors).
_LOOKED_UP = {
    "UploadLayerPart": ("RepositoryNotFoundException", "UploadNotFoundException"),
    "CompleteLayerUpload": ("RepositoryNotFoundException", "UploadNotFoundException"),
    "PutImage": ("RepositoryNotFoundException", "LayersNotFoundException"),
}


@dataclass(frozen=True, slots=True)
class Mutability:
    """Which tags of a repository may move.

    :param immutable: what holds for all tags but the excluded ones.
    :param excluded: filters of tags, with ``*`` for any text, for which the opposite holds.
    """

    immutable: bool
    excluded: tuple[str, ...] = ()

    def fixes(self, tag: str) -> bool:
        """Whether a tag that exists must go on pointing to what it points to."""
        return self.immutable != any(fnmatch.fnmatchcase(tag, text) for text in self.excluded)


class EcrProbe:
    """The questions to one registry.

    :param client: an aiobotocore ECR client without retries.
    :param session: the session that the client was made from.
    """

    def __init__(
        self, client: Any, session: AioSession, registry: Registry, aws: AwsOptions
    ) -> None:
        self._client = client
        self._session = session
        self._registry = registry
        self._aws = aws
        self._transport = EcrTransport(client, registry, anyio.CapacityLimiter(1))
        self.skew: float | None = None
        """Seconds that the registry's clock is ahead of this machine's, by its latest answer."""
        client.meta.events.register("response-received.ecr", self._note_date)

    @property
    def endpoint(self) -> str:
        """The address of the API."""
        return str(self._client.meta.endpoint_url)

    @property
    def nothing(self) -> Digest:
        """A digest that nothing has."""
        return _nothing()

    @property
    def default_region(self) -> str | None:
        """The Region of the configuration, which may be another than the registry's."""
        region = self._session.get_config_variable("region")
        return None if region is None else str(region)

    async def identify(self) -> Identity:
        """Whose credentials these are.

        :raises CredentialsError: there are none, or they cannot be had.
        """
        return await identify(self._session, self._registry, self._aws, self.endpoint)

    async def authorize(self) -> None:
        """GetAuthorizationToken, which proves itself.

        :raises AccessDeniedError: it is not allowed.
        """
        await self._transport.authorize()

    async def available(self, repository: str, digests: Sequence[Digest]) -> set[Digest]:
        """BatchCheckLayerAvailability, which proves itself: which of at most 100 blobs are there.

        :raises AccessDeniedError: it is not allowed.
        """
        return await self._transport.available(repository, digests)

    async def upload_part(self, repository: str) -> bool:
        """Prove that UploadLayerPart is allowed, with a part of no upload.

        :return: whether the repository exists.
        :raises AccessDeniedError: it is not allowed.
        :raises RegistryError: the answer does not tell.
        """
        return await self._prove(
            "UploadLayerPart",
            repository,
            lambda names: self._client.upload_layer_part(
                **names,
                uploadId=str(uuid.uuid4()),
                partFirstByte=0,
                partLastByte=0,
                layerPartBlob=b"?",
            ),
        )

    async def complete_upload(self, repository: str) -> bool:
        """Prove that CompleteLayerUpload is allowed, with no upload.

        :return: whether the repository exists.
        :raises AccessDeniedError: it is not allowed.
        :raises RegistryError: the answer does not tell.
        """
        return await self._prove(
            "CompleteLayerUpload",
            repository,
            lambda names: self._client.complete_layer_upload(
                **names, uploadId=str(uuid.uuid4()), layerDigests=[_nothing()]
            ),
        )

    async def put_manifest(self, repository: str) -> bool:
        """Prove that PutImage is allowed, with a manifest of layers that are nowhere.

        :return: whether the repository exists.
        :raises AccessDeniedError: it is not allowed.
        :raises RegistryError: the answer does not tell.
        """
        # ECR looks for the layers. An emulator that does not would take the manifest, unless it
        # misses the media type.
        media_type = {"imageManifestMediaType": mediatypes.OCI_MANIFEST}
        return await self._prove(
            "PutImage",
            repository,
            lambda names: self._client.put_image(
                **names,
                imageManifest=_manifest(),
                **(media_type if is_aws(self.endpoint) else {}),
            ),
        )

    async def mutability(self, repositories: Sequence[str]) -> dict[str, Mutability]:
        """DescribeRepositories: which tags of at most 100 repositories may move.

        :raises AccessDeniedError: it is not allowed for all of them.
        :raises RepositoryNotFoundError: one of them does not exist.
        """
        with translating("DescribeRepositories", registry=self._registry.host):
            answer = await self._client.describe_repositories(
                registryId=self._registry.account, repositoryNames=list(repositories)
            )
        return {
            found["repositoryName"]: _mutability(found) for found in answer.get("repositories", ())
        }

    async def tagged(self, repository: str, tags: Sequence[str]) -> dict[str, Digest]:
        """BatchGetImage: what at most 100 tags point to; those that do not exist are left out.

        :raises AccessDeniedError: it is not allowed.
        """
        return await self._transport.tagged(repository, tags)

    async def _prove(
        self, call: str, repository: str, ask: Callable[[dict[str, str]], Awaitable[Any]]
    ) -> bool:
        names = {"registryId": self._registry.account, "repositoryName": repository}
        try:
            with translating(call, repository=f"{self._registry.host}/{repository}"):
                await ask(names)
        except RegistryError as exc:
            if exc.where.get("error") in _LOOKED_UP[call]:
                return not isinstance(exc, RepositoryNotFoundError)
            raise
        raise RegistryError(
            "the registry took what it must refuse, so that nothing it says can be relied on",
            advice="see what is in the repository now: a manifest that nobody asked for may be",
            repository=f"{self._registry.host}/{repository}",
            call=call,
        )

    def _note_date(self, response_dict: Mapping[str, Any] | None, **_: Any) -> None:
        date = (response_dict or {}).get("headers", {}).get("date")
        with contextlib.suppress(TypeError, ValueError):
            self.skew = parsedate_to_datetime(date).timestamp() - time.time()


@contextlib.asynccontextmanager
async def open_probe(
    registry: Registry, aws: AwsOptions, *, connections: int, user_agent: str
) -> AsyncIterator[EcrProbe]:
    """Open the questions to one registry.

    :raises CredentialsError: the configuration names a profile that does not exist, or the like.
    """
    session = await open_session(registry, aws)
    async with open_client(registry, aws, connections, user_agent, session) as client:
        yield EcrProbe(client, session, registry, aws)


def _nothing() -> Digest:
    """A digest that nothing has."""
    return compute(uuid.uuid4().bytes)


def _manifest() -> str:
    """A manifest of layers that are nowhere."""
    config = {"mediaType": mediatypes.OCI_CONFIG, "digest": _nothing(), "size": 2}
    layer = {"mediaType": mediatypes.OCI_LAYER, "digest": _nothing(), "size": 1}
    return json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]})


def _mutability(repository: Mapping[str, Any]) -> Mutability:
    # Service model: ImageTagMutability, ImageTagMutabilityExclusionFilter.
    filters = repository.get("imageTagMutabilityExclusionFilters") or ()
    return Mutability(
        str(repository.get("imageTagMutability", "")).startswith("IMMUTABLE"),
        tuple(str(found["filter"]) for found in filters),
    )
