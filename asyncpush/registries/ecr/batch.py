"""BatchGetImage: what tags point to, and manifests by digest."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from asyncpush.errors import ManifestsNotFoundError
from asyncpush.oci.digest import Digest
from asyncpush.plan.reference import Registry
from asyncpush.registries.base import TaggedManifest
from asyncpush.registries.ecr.answers import manifest_of, tags_of
from asyncpush.registries.ecr.errors import asking


class Images:
    """The images of one registry, by ECR's own API.

    :param client: an aiobotocore ECR client without retries.
    """

    def __init__(self, client: Any, registry: Registry) -> None:
        self._client = client
        self._registry = registry

    async def tagged(self, repository: str, tags: Sequence[str]) -> dict[str, Digest]:
        """What at most 100 tags point to; tags that do not exist are left out."""
        with self._translating(repository):
            answer = await self._get(repository, [{"imageTag": tag} for tag in tags])
            return tags_of(answer, tags)

    async def manifest(self, repository: str, digest: str) -> TaggedManifest:
        """A manifest by its digest.

        :raises ManifestsNotFoundError: the repository does not have it.
        :raises UnexpectedAnswerError: what it gives is no manifest. Its digest is not proven.
        """
        with self._translating(repository, digest=digest):
            found = manifest_of(await self._get(repository, [{"imageDigest": digest}]))
            if found is None:
                raise ManifestsNotFoundError("the repository does not have this image any more")
            raw, kind = found
        return TaggedManifest(Digest(digest), kind, raw)

    async def _get(self, repository: str, ids: Sequence[dict[str, str]]) -> Any:
        return await self._client.batch_get_image(
            registryId=self._registry.account, repositoryName=repository, imageIds=ids
        )

    def _translating(
        self, repository: str, **where: str
    ) -> contextlib.AbstractContextManager[None]:
        return asking("BatchGetImage", repository=f"{self._registry.host}/{repository}", **where)
