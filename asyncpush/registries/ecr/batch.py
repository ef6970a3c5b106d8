"""BatchGetImage: what tags point to, and manifests by digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncpush.errors import ManifestsNotFoundError
from asyncpush.oci.digest import Digest
from asyncpush.plan.reference import Registry
from asyncpush.registries.base import TaggedManifest
from asyncpush.registries.ecr.errors import translating


class Images:
    """The images of one registry, by ECR's own API.

    :param client: an aiobotocore ECR client without retries.
    """

    def __init__(self, client: Any, registry: Registry) -> None:
        self._client = client
        self._registry = registry

    async def tagged(self, repository: str, tags: Sequence[str]) -> dict[str, Digest]:
        """What at most 100 tags point to; tags that do not exist are left out."""
        images = await self._get(repository, [{"imageTag": tag} for tag in tags])
        return {
            image["imageId"]["imageTag"]: Digest(image["imageId"]["imageDigest"])
            for image in images
            if "imageTag" in image["imageId"]
        }

    async def manifest(self, repository: str, digest: str) -> TaggedManifest:
        """A manifest by its digest.

        :raises ManifestsNotFoundError: the repository does not have it.
        """
        images = await self._get(repository, [{"imageDigest": digest}])
        if not images:
            raise ManifestsNotFoundError(
                "the repository does not have this image any more",
                repository=f"{self._registry.host}/{repository}",
                digest=digest,
            )
        raw = images[0]["imageManifest"].encode()
        return TaggedManifest(Digest(digest), images[0]["imageManifestMediaType"], raw)

    async def _get(self, repository: str, ids: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
        with translating("BatchGetImage", repository=f"{self._registry.host}/{repository}"):
            answer = await self._client.batch_get_image(
                registryId=self._registry.account, repositoryName=repository, imageIds=ids
            )
        images: list[dict[str, Any]] = answer.get("images", [])
        return images
