"""Blobs that a repository mounts from where its images come from: no byte of a promotion moves."""

from __future__ import annotations

from asyncpush.engine.context import Context
from asyncpush.engine.mountcalls import MountCalls
from asyncpush.engine.options import PushOptions
from asyncpush.oci.layout import BlobSource
from asyncpush.oci.remote import RemoteBlob
from asyncpush.plan.graph import PlannedBlob, RepositoryPlan
from asyncpush.plan.reference import AnyRegistry, DistributionRegistry, Repository
from asyncpush.registries.base import MountAnswer
from asyncpush.registries.distribution.strategies import api_host
from asyncpush.sources.registry import RegistryOrigin


class Promotion:
    """The mounts of one repository from the repositories that its images come from.

    These have the blobs in manifests that are there already, so nothing is waited for.
    """

    def __init__(self, plan: RepositoryPlan, context: Context) -> None:
        self._others = plan.others
        self._repository = plan.repository
        self._options = context.options
        promoting = context.transport.promoting
        self._calls = None if promoting is None else MountCalls(promoting, context)

    def source(self, blob: PlannedBlob) -> Repository | None:
        """The repository that a blob can be mounted from, as far as is known by now."""
        if self._calls is None:
            return None
        for origin in (blob.source, *self._others.get(blob.digest, ())):
            source = _source_beside(origin, self._repository, self._options)
            if source is not None and self._calls.allows(source, self._repository):
                return source
        return None

    async def get(self, blob: PlannedBlob) -> MountAnswer | None:
        """Mount a blob; None if it cannot be, and no session was opened for it."""
        while self._calls is not None and (source := self.source(blob)) is not None:
            answer = await self._calls.mount(self._repository, blob.digest, blob.size, source)
            if answer is not None:
                return answer
            if self._calls.allows(source, self._repository):
                break  # It was not asked, for what was learnt meanwhile about others.
        return None


def _source_beside(
    source: BlobSource, repository: Repository, options: PushOptions
) -> Repository | None:
    """The repository that a blob comes from, where it is one of the target's own registry."""
    if not isinstance(source, RemoteBlob) or not isinstance(source.origin, RegistryOrigin):
        return None
    place = source.origin.place
    if not _is_same(place.registry, repository.registry, options):
        return None
    return Repository(repository.registry, place.name)


def _is_same(source: AnyRegistry, target: AnyRegistry, options: PushOptions) -> bool:
    """Whether two registries are one, through whichever of its endpoints each is reached."""
    if isinstance(source, DistributionRegistry) or isinstance(target, DistributionRegistry):
        return type(source) is type(target) and api_host(source.host) == api_host(target.host)
    if (source.account, source.region) != (target.account, target.region):
        return False
    # Emulators of ECR may have the same account.
    endpoints = (
        options.source_settings(source).aws.endpoint_url,
        options.settings(target).aws.endpoint_url,
    )
    return None in endpoints or endpoints[0] == endpoints[1]
