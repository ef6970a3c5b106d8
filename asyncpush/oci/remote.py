"""Content that is not on this machine: where it comes from is asked for bytes when they are due."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from asyncpush.errors import AsyncpushError
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest


class BlobOrigin(Protocol):
    """A registry's repository, a bucket or the like that holds blobs.

    Two blobs of the same digest and the same origin are read as one.
    """

    @property
    def name(self) -> str:
        """What people call it, for errors: ``docker://HOST/REPOSITORY``, ``s3://BUCKET/PREFIX``."""
        ...

    def read(
        self, digest: Digest, size: int, offset: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes of a blob from an offset on, in pieces, over one connection.

        Pieces have 256 KiB at most: each is held as a whole. Entering, iterating and leaving may
        happen in different tasks, one at a time, so no cancel scope or task group may be open
        across a ``yield``. An iteration that was cancelled is not gone on with.

        One try, unless the error's ``where`` has ``attempts``: a connection that breaks ends the
        iteration with an error, and the caller asks again from the byte where it broke. The bytes
        are not proven; the caller does that.

        :param size: bytes of the whole blob, as its descriptor gives them.
        :param offset: the first byte that is wanted, from 0 to ``size``.
        :raises TransientError: the connection broke, timed out or was throttled.
        :raises AsyncpushError: the origin does not have the blob, or does not give it.
        """
        ...


@dataclass(frozen=True, slots=True)
class RemoteBlob:
    """A blob of ``size`` bytes at its origin; its digest is proven while it is read."""

    digest: Digest
    size: int
    origin: BlobOrigin

    @property
    def path(self) -> str:
        """Where it is, for errors."""
        return f"{self.origin.name}@{self.digest}"


@runtime_checkable
class RemoteContent(Protocol):
    """What content that is not on this machine can do beside being planned from.

    It is known in two steps: entries when it is opened, manifests when they are fetched.
    """

    @property
    def problems(self) -> Mapping[str, AsyncpushError]:
        """By name, the entries that it should have and that could not be read."""
        ...

    async def prefetch(self, descriptors: Sequence[Descriptor], *, nested: bool) -> None:
        """Fetch manifests that will be asked for, many at once.

        What fails is raised when it is asked for (``find_manifest``), not here.

        :param nested: also those that indexes name, and subjects.
        """
        ...
