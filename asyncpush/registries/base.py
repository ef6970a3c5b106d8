"""What the engine asks of a registry: one narrow Protocol that every transport fulfils."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from asyncpush.oci.digest import Digest
from asyncpush.registries.content import BlobReader

Warn = Callable[[str], None]
"""Told of something that the user should know and that stops nothing."""
WHOLE = 2**62
"""The part size of an upload session that takes the whole blob in one part."""


@dataclass(frozen=True, slots=True)
class UploadSession:
    """An upload that a registry has opened.

    :param id: the registry's name for it, which may change with every part.
    :param part_size: bytes that the registry expects in each part but the last; :data:`WHOLE` where
        it takes one part, which starts over in a new session when it breaks off.
    """

    id: str
    part_size: int

    @property
    def whole(self) -> bool:
        """Whether the registry takes the blob in one part, of whatever size."""
        return self.part_size >= WHOLE


@dataclass(frozen=True, slots=True)
class PartReceipt:
    """What a registry answered to a part.

    :param last: offset of the last byte that it holds of the session.
    :param session: the session, under the name that it has from now on.
    """

    last: int
    session: UploadSession


@dataclass(frozen=True, slots=True)
class Mounting:
    """What can be mounted from another repository of the same registry.

    :param referenced: only blobs that a manifest of the other repository references, instead of all
        that are there.
    :param advice: what to tell people whose mounts are refused; empty tells them nothing.
    """

    referenced: bool
    advice: str = ""


@dataclass(frozen=True, slots=True)
class MountAnswer:
    """What came of a mount.

    :param mounted: whether the repository has the blob now.
    :param session: if not, the session that the registry opened for an upload instead, where there
        is one that can be used.
    """

    mounted: bool
    session: UploadSession | None = None


@dataclass(frozen=True, slots=True)
class TaggedManifest:
    """A manifest as a registry gives it back."""

    digest: Digest
    media_type: str
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySettings:
    """How a repository is created (API reference, CreateRepository).

    :param mutability: whether its tags may move.
    :param encryption: who encrypts its layers.
    :param kms_key: a KMS key's ARN or id; None is AWS's own key for ECR.
    :param tags: tags of the repository as an AWS resource.
    """

    mutability: Literal["MUTABLE", "IMMUTABLE"] = "MUTABLE"
    encryption: Literal["AES256", "KMS", "KMS_DSSE"] = "AES256"
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class Transport(Protocol):
    """The calls of a push to one registry.

    Repositories are named without their registry. A call is tried once: every failure is raised as
    an error of :mod:`asyncpush.errors`, with the call, the repository and the request id in its
    ``where``, and :class:`~asyncpush.errors.TransientError` marks what is worth another try.
    """

    @property
    def part_memory(self) -> int:
        """Bytes of memory that one part in flight holds at most."""
        ...

    @property
    def streams(self) -> bool:
        """Whether sessions that :meth:`start_upload` opens take blobs as they arrive, and never
        twice (:meth:`reads_twice`)."""
        ...

    @property
    def writes_referrers(self) -> bool:
        """Whether a manifest with a subject may need more than itself: the list of the subject's
        referrers, where the registry does not keep it."""
        ...

    @property
    def mounting(self) -> Mounting | None:
        """What :meth:`mount` may be asked for; None if this API mounts nothing."""
        ...

    @property
    def promoting(self) -> Mounting | None:
        """As :attr:`mounting`, from the repositories that images come from.

        They have the blobs in manifests that are there, so that a push waits for nothing, and
        whoever reads from them has access to the API that mounts.
        """
        ...

    async def authorize(self) -> None:
        """Prove the credentials before anything is sent.

        :raises CredentialsError: there are none, or the registry does not accept them.
        """
        ...

    async def available(self, repository: str, wanted: Sequence[Digest]) -> set[Digest]:
        """Which of at most 100 blobs the repository has."""
        ...

    async def sizes(self, repository: str, wanted: Sequence[Digest]) -> dict[Digest, int | None]:
        """As :meth:`available`, with the bytes of each blob where the registry tells."""
        ...

    async def start_upload(self, repository: str) -> UploadSession:
        """Open an upload session for one blob."""
        ...

    async def mount(self, repository: str, digest: Digest, source: str) -> MountAnswer:
        """Let a repository have a blob that another one has, without sending it.

        A refusal is an answer, not an error.

        :param source: the other repository.
        """
        ...

    async def last_received(self, repository: str, session: UploadSession) -> int:
        """Offset of the last byte that the registry holds of a session, -1 for none.

        :raises UploadNotFoundError: the session is gone.
        """
        ...

    def reads_twice(self, session: UploadSession) -> bool:
        """Whether a part of this session is read twice, to hash it and to send it.

        Such a part is given in memory or in a file and never as a stream.
        """
        ...

    async def upload_part(
        self,
        repository: str,
        session: UploadSession,
        blob: BlobReader,
        offset: int,
        length: int,
        final: Digest | None,
    ) -> PartReceipt:
        """Send ``length`` bytes of a blob from ``offset`` on; parts of a session go in order.

        Fewer bytes may be sent; the receipt has the last one.

        :param final: the blob's digest if this part ends it, for transports that can complete an
            upload with its last part.
        :raises PartOutOfOrderError: the registry expects another offset.
        :raises UploadNotFoundError: the session is gone.
        :raises UploadBrokenError: the part broke off, and the registry cannot resume it.
        """
        ...

    async def complete_upload(
        self, repository: str, session: UploadSession, digest: Digest
    ) -> None:
        """Close a session; the registry proves the digest.

        :raises BlobExistsError: the repository has the blob by now.
        :raises BlobRejectedError: what arrived has another digest, or another size was stored.
        """
        ...

    async def put_manifest(
        self,
        repository: str,
        raw: bytes,
        media_type: str,
        digest: Digest,
        tag: str | None,
        *,
        absent: bool = False,
    ) -> None:
        """Commit a manifest by digest or, with a tag, by both.

        :param absent: whether the repository is known not to have it, or not under this tag, so
            that an API that does not say so by itself need not be asked.
        :raises ManifestExistsError: the repository has it already, under this tag if one is given.
        :raises TagConflictError: the tag is immutable and points elsewhere.
        :raises BlobsNotFoundError: the repository lacks blobs that it names.
        :raises ManifestsNotFoundError: the repository lacks manifests that it names.
        :raises RefusedError: the registry does not take such a manifest.
        """
        ...

    async def create_repository(self, repository: str, settings: RepositorySettings) -> None:
        """Create a repository; one that is there already stays as it is."""
        ...

    async def tagged(self, repository: str, tags: Sequence[str]) -> dict[str, Digest]:
        """What at most 100 tags point to; tags that do not exist are left out."""
        ...

    async def get_manifest(self, repository: str, reference: str) -> TaggedManifest:
        """Read a manifest back, by digest.

        :raises ManifestsNotFoundError: the repository does not have it.
        """
        ...

    def read_blob(
        self, repository: str, digest: Digest
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Read a blob back, piece by piece, without proving it.

        :raises VerificationError: the repository does not have it.
        """
        ...
