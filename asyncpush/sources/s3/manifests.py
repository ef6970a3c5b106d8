"""Manifests fetched ahead, many at once, and kept until the plan has read them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any

import anyio

from asyncpush.errors import AsyncpushError, DigestMismatchError, LimitError
from asyncpush.oci import digest as digests
from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import BlobData
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES, ImageIndex, parse_manifest
from asyncpush.sources.bridge import on_loop

MOST_KEPT_BYTES = 64 * 1024 * 1024
"""The most bytes of manifests that a source keeps; those that were fetched longest ago go."""
_AT_ONCE = 32


class Manifests:
    """The manifests of one source.

    :param name: the source, for errors.
    :param fetch: the bytes of a manifest, tried as often as is worth it.
    :param note: finds out where a blob is, so that the plan need not wait for it; None where that
        is known of all.
    """

    def __init__(
        self,
        name: str,
        fetch: Callable[[Descriptor], Coroutine[Any, Any, bytes]],
        note: Callable[[Descriptor], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._note = note
        self._kept: dict[Digest, bytes] = {}
        self._failed: dict[Digest, AsyncpushError] = {}
        self._bytes = 0

    def find(self, descriptor: Descriptor) -> BlobData:
        """A manifest, on the thread that plans.

        :raises LimitError: it is larger than any registry takes.
        :raises DigestMismatchError: it is not what its descriptor says.
        :raises AsyncpushError: it cannot be fetched.
        """
        if descriptor.data is not None:
            return BlobData(descriptor.data)
        if descriptor.size > MAX_MANIFEST_BYTES:
            raise LimitError(
                f"the manifest has {descriptor.size} bytes,"
                f" registries take at most {MAX_MANIFEST_BYTES}",
                digest=descriptor.digest,
                file=self._name,
            )
        # The thread only reads what the event loop keeps.
        raw = self._kept.get(descriptor.digest)
        if raw is None or len(raw) != descriptor.size:
            if (failed := self._failed.get(descriptor.digest)) is not None:
                raise failed.with_traceback(None)
            raw = on_loop(partial(self._fetch_proven, descriptor))
        return BlobData(raw)

    async def prefetch(self, descriptors: Sequence[Descriptor], *, nested: bool) -> None:
        """See :class:`~asyncpush.oci.remote.RemoteContent`."""
        seen: set[Digest] = set()
        level = list(descriptors)
        while level:
            fresh = list({d.digest: d for d in level if d.digest not in seen}.values())
            seen.update(d.digest for d in fresh)
            work = iter(fresh)
            async with anyio.create_task_group() as group:
                for _ in range(min(_AT_ONCE, len(fresh))):
                    group.start_soon(self._work, work)
            level = [child for d in fresh for child in self._children(d)] if nested else []

    async def _work(self, descriptors: Iterator[Descriptor]) -> None:
        for descriptor in descriptors:
            try:
                if _is_manifest(descriptor):
                    if self._is_wanted(descriptor):
                        await self._fetch_proven(descriptor)
                elif self._note is not None and descriptor.data is None:
                    await self._note(descriptor)
            except AsyncpushError as exc:
                # A manifest's is raised by find(); where a blob is, the plan asks again.
                if _is_manifest(descriptor):
                    self._failed[descriptor.digest] = exc

    def _is_wanted(self, descriptor: Descriptor) -> bool:
        return (
            descriptor.data is None
            and descriptor.size <= MAX_MANIFEST_BYTES
            and descriptor.digest not in self._kept
            and descriptor.digest not in self._failed
        )

    async def _fetch_proven(self, descriptor: Descriptor) -> bytes:
        raw = await self._fetch(descriptor)
        try:
            digests.verify(raw, descriptor.digest, descriptor.size)
        except DigestMismatchError as exc:
            raise DigestMismatchError(
                exc.message,
                advice="the object is damaged; copy the image there again, or leave it out",
                **{**exc.where, "file": self._name},
            ) from exc.__cause__
        if descriptor.digest not in self._kept:
            self._kept[descriptor.digest] = raw
            self._bytes += len(raw)
        while self._bytes > MOST_KEPT_BYTES:
            self._bytes -= len(self._kept.pop(next(iter(self._kept))))
        return raw

    def _children(self, descriptor: Descriptor) -> Sequence[Descriptor]:
        raw = descriptor.data or self._kept.get(descriptor.digest)
        if raw is None or not _is_manifest(descriptor):
            return ()
        try:
            manifest = parse_manifest(raw, descriptor.media_type)
        except AsyncpushError:
            return ()  # The plan parses it again, and has the place to say what is wrong.
        if isinstance(manifest, ImageIndex):
            return manifest.manifests
        subject = () if manifest.subject is None else (manifest.subject,)
        if self._note is None:
            return subject
        return (*subject, manifest.config, *(d for d in manifest.layers if not d.is_foreign))


def _is_manifest(descriptor: Descriptor) -> bool:
    return mediatypes.is_manifest(descriptor.media_type) or mediatypes.is_index(
        descriptor.media_type
    )
