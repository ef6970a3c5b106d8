"""Calls that ask one registry for mounts: few where it refuses them, however many want one."""

from __future__ import annotations

import anyio

from asyncpush.engine.context import Context
from asyncpush.engine.events import BlobMounted, Warned
from asyncpush.engine.retry import NotNeededError
from asyncpush.errors import AsyncpushError, TransientError
from asyncpush.oci.digest import Digest
from asyncpush.plan.reference import AnyRegistry, Repository
from asyncpush.registries.base import MountAnswer, Mounting

NOT_MOUNTED = MountAnswer(mounted=False)


class MountCalls:
    """The mounts that are asked of one registry.

    What it has refused is remembered in the registry's context, which all instances share.

    :param mounting: what the registry mounts, and the advice where it does not.
    """

    def __init__(self, mounting: Mounting, context: Context) -> None:
        self._mounting = mounting
        self._context = context
        self._refusals = context.refusals

    def allows(self, source: Repository, target: Repository) -> bool:
        """Whether it is worth asking for a mount."""
        return self._refusals.allows(source, target)

    async def mount(
        self, repository: Repository, digest: Digest, size: int, source: Repository
    ) -> MountAnswer | None:
        """Ask for a mount; None if it was refused, or what was learnt meanwhile speaks against it.

        Until a repository has mounted something, its mounts are asked for one at a time, and until
        some repository has, those of all: so a refusal that holds for all of them costs a few
        calls, however many wait.
        """
        trials = self._refusals.trials
        while (trial := self._trial(repository)) is not None and trial in trials:
            await trials[trial].wait()
        if not self.allows(source, repository):
            return None
        if trial is None:
            return await self._ask(repository, digest, size, source)
        ended = trials[trial] = anyio.Event()
        try:
            return await self._ask(repository, digest, size, source)
        finally:
            del trials[trial]
            ended.set()

    def _trial(self, repository: Repository) -> Repository | AnyRegistry | None:
        """Whose mounts are on trial if this repository mounts something."""
        if self._refusals.off or self._refusals.is_proven(repository):
            return None
        return repository if self._refusals.any_proven else repository.registry

    async def _ask(
        self, repository: Repository, digest: Digest, size: int, source: Repository
    ) -> MountAnswer | None:
        async def mount() -> MountAnswer:
            # It may have been settled while this call waited for its turn.
            if not self.allows(source, repository):
                raise NotNeededError
            return await self._context.transport.mount(repository.name, digest, source.name)

        reason = self._mounting.advice
        try:
            # A mount opens an upload session where it is refused, and has the same quota.
            answer = await self._context.attempt("InitiateLayerUpload", str(repository), mount)
        except NotNeededError:
            return None
        except TransientError as exc:
            if self._refusals.troubled():
                self._warn(repository.registry, str(exc))
            return NOT_MOUNTED
        except AsyncpushError as exc:
            answer, reason = NOT_MOUNTED, str(exc)
        if answer.mounted:
            self._refusals.mounted(source, repository)
            self._context.emit(BlobMounted(str(repository), digest, size, str(source)))
            return answer
        if self._refusals.refused(source, repository):
            self._warn(repository.registry, reason)
        # A session that the registry opened instead must be used, so this was the only try.
        return None if answer.session is None else answer

    def _warn(self, registry: AnyRegistry, reason: str) -> None:
        if reason:
            self._context.emit(
                Warned(f"{registry} mounts no blobs, so that all are uploaded: {reason}")
            )
