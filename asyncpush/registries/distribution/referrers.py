"""Lists of referrers (distribution-spec 1.1): the registry keeps them, or clients keep an index."""

from __future__ import annotations

import json
from typing import Any, Protocol
from weakref import WeakValueDictionary

import anyio

from asyncpush.errors import (
    AsyncpushError,
    ContentError,
    ManifestError,
    ManifestsNotFoundError,
    RegistryError,
)
from asyncpush.oci import digest as digests
from asyncpush.oci.digest import Digest
from asyncpush.oci.manifest import load_json, parse_manifest
from asyncpush.oci.mediatypes import OCI_INDEX
from asyncpush.oci.referrers import referrers_tag
from asyncpush.registries.base import TaggedManifest


class Manifests(Protocol):
    """What is needed of a transport."""

    async def get_manifest(self, repository: str, reference: str) -> TaggedManifest: ...

    async def store_manifest(
        self, repository: str, manifest: TaggedManifest, tag: str | None
    ) -> bool: ...

    async def lists_referrers(self, repository: str, subject: Digest) -> bool | None: ...


class Referrers:
    """The lists of referrers of one registry.

    Whether the registry has the referrers API is learnt once: from its answer to the first manifest
    with a subject ("Pushing Manifests with Subject"), or by asking for a list ("Listing
    Referrers").

    :param manifests: reads and stores the manifests.
    """

    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests
        self._has_api: bool | None = None
        self._asking = anyio.Lock()
        # One for each index that is being changed.
        self._locks: WeakValueDictionary[tuple[str, str], anyio.Lock] = WeakValueDictionary()

    async def ensure(
        self, repository: str, subject: Digest, manifest: TaggedManifest, *, processed: bool | None
    ) -> None:
        """See that a manifest which the repository has is listed among its subject's referrers.

        :param processed: whether the registry said that it processed the subject (``OCI-Subject``);
            None if the manifest was there already.
        :raises RegistryError: the index cannot be read, or not be written.
        """
        if processed is None:
            processed = await self._learn(repository, subject, manifest)
        else:
            self._has_api = processed
        if processed:
            return
        tag = referrers_tag(subject)
        lock = self._locks.setdefault((repository, tag), anyio.Lock())
        try:
            async with lock:
                await self._add(repository, tag, manifest)
        except AsyncpushError as exc:
            raise exc.at(referrers_tag=tag) from exc.__cause__

    async def _learn(self, repository: str, subject: Digest, manifest: TaggedManifest) -> bool:
        """Whether the registry has the referrers API."""
        async with self._asking:
            if self._has_api is None:
                self._has_api = await self._manifests.lists_referrers(repository, subject)
            if self._has_api is None:
                # The list is not ours to read, but to store the manifest again is, and says it.
                self._has_api = await self._manifests.store_manifest(repository, manifest, None)
            return self._has_api

    async def _add(self, repository: str, tag: str, manifest: TaggedManifest) -> None:
        """Add a manifest to an index of referrers, unless it is there.

        Reads, changes and writes the index; a change that another client makes at the same moment
        may be lost, as the specification warns. A later push of that referrer makes up for it.
        """
        try:
            index = _read(await self._manifests.get_manifest(repository, tag))
        except ManifestsNotFoundError:
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        if any(entry.get("digest") == manifest.digest for entry in index["manifests"]):
            return
        index["manifests"].append(_descriptor(manifest))
        raw = json.dumps(index, separators=(",", ":")).encode()
        changed = TaggedManifest(digests.compute(raw), OCI_INDEX, raw)
        await self._manifests.store_manifest(repository, changed, tag)


def subject_of(raw: bytes, media_type: str) -> Digest | None:
    """The digest of a manifest's subject; None if it has none that can be read."""
    try:
        subject = parse_manifest(raw, media_type).subject
    except ContentError:
        # Such as an old image of another format, to which a tag is returned.
        return None
    return None if subject is None else subject.digest


def _read(found: TaggedManifest) -> dict[str, Any]:
    """An index of referrers.

    :raises RegistryError: it is something else, which must not be overwritten.
    """
    try:
        index = load_json(found.raw)
    except ManifestError as exc:
        raise _unreadable(exc.message) from exc
    media_type = index.get("mediaType", found.media_type)
    if media_type != OCI_INDEX:
        raise _unreadable(f"its media type is {media_type!r}, not {OCI_INDEX}")
    entries = index.get("manifests")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _unreadable("it has no list of manifests")
    return index


def _unreadable(reason: str) -> RegistryError:
    return RegistryError(
        f"the index of referrers cannot be read, and is left as it is: {reason}",
        advice="delete the tag if nothing needs it, then push again",
    )


def _descriptor(manifest: TaggedManifest) -> dict[str, Any]:
    """The manifest's descriptor, with its artifact type and annotations as the API would tell."""
    document = json.loads(manifest.raw)
    config = document.get("config")
    kind = document.get("artifactType") or (config or {}).get("mediaType")
    descriptor: dict[str, Any] = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.raw),
    }
    if kind:
        descriptor["artifactType"] = kind
    if document.get("annotations"):
        descriptor["annotations"] = document["annotations"]
    return descriptor
