"""Both APIs of ECR, each for what it does at less cost, as long as both do it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio

from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    BlobExistsError,
    BlobRejectedError,
    ContentError,
    PartOutOfOrderError,
    RepositoryNotFoundError,
    ThrottledError,
    TransientError,
    UploadNotFoundError,
)
from asyncpush.oci.digest import Digest
from asyncpush.plan.reference import Registry
from asyncpush.registries.base import MountAnswer, Mounting, PartReceipt, UploadSession, Warn
from asyncpush.registries.content import BlobReader
from asyncpush.registries.distribution.transport import DistributionTransport
from asyncpush.registries.ecr.gate import Gate
from asyncpush.registries.ecr.hybrid import HybridTransport
from asyncpush.registries.ecr.token import MOUNTING

# What both APIs would answer to a part, so that it says nothing of this one.
_ALIKE = (
    AccessDeniedError,
    BlobExistsError,
    BlobRejectedError,
    ContentError,
    PartOutOfOrderError,
    RepositoryNotFoundError,
    ThrottledError,
)
# A connection may break; one that breaks so often under the same bytes leads to an API that is
# closed. It is no more often than the engine tries, so that the other API gets its chance.
_ENOUGH = 6


class AutoTransport(HybridTransport):
    """Blobs as raw bytes over OCI distribution, and all else over ECR's own API.

    Raw bytes are a quarter less than base64 and are not hashed for a signature. An upload that
    cannot be begun, or goes on failing, by the one API begins by the other; where that keeps
    happening, all do for a while.

    :param warn: told when that is so.
    :param attempts: how often the engine makes a call that fails.
    """

    def __init__(
        self,
        client: Any,
        registry: Registry,
        hashing: anyio.CapacityLimiter,
        other: DistributionTransport,
        *,
        warn: Warn,
        attempts: int,
    ) -> None:
        super().__init__(client, registry, hashing, other)
        # Who leaves the choice to us need not hear of a registry that mounts nothing.
        self.mounting = Mounting(MOUNTING.referenced)
        self.part_memory = max(self.part_memory, other.part_memory)
        self._warn = warn
        self._enough = min(_ENOUGH, attempts)
        self._gate = Gate(self._tell)
        self._lost: Counter[str] = Counter()

    async def authorize(self) -> None:
        """See :class:`~asyncpush.registries.base.Transport`."""
        await super().authorize()
        begun = anyio.current_time()
        try:
            await self._other.authorize()
        except AsyncpushError as exc:
            # Such as in a network from which ECR's own API alone can be reached.
            self._failed_to_start(exc, begun)

    async def start_upload(self, repository: str) -> UploadSession:
        """See :class:`~asyncpush.registries.base.Transport`."""
        if not self._gate.lets():
            return await super().start_upload(repository)
        begun = anyio.current_time()
        try:
            session = await self._other.start_upload(repository)
        except ThrottledError:
            raise
        except AsyncpushError as exc:
            failure = exc
        else:
            self._gate.worked("start")
            return session
        session = await super().start_upload(repository)
        # Only what ECR's own API does, and this one does not, is this one's fault.
        self._failed_to_start(failure, begun)
        return session

    async def mount(self, repository: str, digest: Digest, source: str) -> MountAnswer:
        """See :class:`~asyncpush.registries.base.Transport`."""
        answer = await self._other.mount(repository, digest, source)
        return answer if self._gate.open else MountAnswer(answer.mounted)

    async def last_received(self, repository: str, session: UploadSession) -> int:
        """See :class:`~asyncpush.registries.base.Transport`."""
        if not _is_address(session):
            return await super().last_received(repository, session)
        if not self._gate.open:
            raise UploadNotFoundError("the upload session is one of the API that is closed")
        return await self._other.last_received(repository, session)

    def reads_twice(self, session: UploadSession) -> bool:
        """See :class:`~asyncpush.registries.base.Transport`."""
        return not _is_address(session)

    async def upload_part(
        self,
        repository: str,
        session: UploadSession,
        blob: BlobReader,
        offset: int,
        length: int,
        final: Digest | None,
    ) -> PartReceipt:
        """See :class:`~asyncpush.registries.base.Transport`."""
        part = (blob, offset, length, final)
        if not _is_address(session):
            return await super().upload_part(repository, session, *part)
        begun = anyio.current_time()
        try:
            receipt = await self._other.upload_part(repository, session, *part)
        except UploadNotFoundError as exc:
            # A session may end; where all do, they would not by ECR's own API.
            self._gate.failed("part", exc, begun)
            raise
        except _ALIKE:
            raise
        except AsyncpushError as exc:
            self._lost[session.id] += 1
            if isinstance(exc, TransientError) and self._lost[session.id] < self._enough:
                raise
            del self._lost[session.id]
            self._gate.close(exc)
            raise UploadNotFoundError(f"the blob begins again: {exc.message}") from exc
        self._lost.pop(session.id, None)
        self._gate.proved()
        return receipt

    async def complete_upload(
        self, repository: str, session: UploadSession, digest: Digest
    ) -> None:
        """See :class:`~asyncpush.registries.base.Transport`."""
        if _is_address(session):
            await self._other.complete_upload(repository, session, digest)
        else:
            await super().complete_upload(repository, session, digest)

    def _failed_to_start(self, error: AsyncpushError, begun: float) -> None:
        if isinstance(error, TransientError):
            self._gate.failed("start", error, begun)
        else:
            self._gate.close(error)

    def _tell(self, error: AsyncpushError, seconds: float) -> None:
        self._warn(
            f"layers to {self._registry.host} go by ECR's own API, as base64: {error};"
            f" /v2/ is tried again in {seconds:.0f} s"
        )


def _is_address(session: UploadSession) -> bool:
    """Whether a session is one of OCI distribution."""
    return "://" in session.id
