"""A smaller index: the images of some platforms, with the attestations of these."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncpush.errors import EntryNotFoundError, ManifestError
from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import Descriptor, Platform
from asyncpush.oci.digest import compute, verify
from asyncpush.oci.layout import Content, read_manifest
from asyncpush.oci.manifest import ImageIndex, load_json, parse_manifest
from asyncpush.oci.select import runs_on

_ATTESTED = "vnd.docker.reference.digest"
"""Annotation by which BuildKit's attestations name the image that they are about."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """An index less some of its members.

    :param index: the descriptor of the smaller index, which embeds its bytes; the one that was
        given where nothing is left out.
    :param kept: platforms of the images that remain.
    :param left_out: platforms of those that do not, and digests of members without one.
    """

    index: Descriptor
    kept: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def trim(content: Content, entry: Descriptor, platforms: Sequence[Platform]) -> Trimmed:
    """Make the smaller index of an entry that is one; anything else remains as it is.

    A platform without a variant keeps all variants. Attestations stay with their images; members
    without a platform are left out. The same index and platforms give the same bytes.

    :raises EntryNotFoundError: the index has no image for one of the platforms.
    :raises ManifestError: it is no index, or holds other indexes.
    """
    if not mediatypes.is_index(entry.media_type):
        return Trimmed(entry, (str(entry.platform),) if entry.platform else ())
    raw = read_manifest(content.find_manifest(entry))
    verify(raw, entry.digest, entry.size)
    index = parse_manifest(raw, entry.media_type)
    if not isinstance(index, ImageIndex):
        raise ManifestError("an index's media type on a manifest", digest=entry.digest)
    keep = _chosen(index, platforms, entry)
    kept: list[str] = []
    left_out: list[str] = []
    for child, stays in zip(index.manifests, keep, strict=True):
        if child.platform is not None and not _is_attestation(child):
            (kept if stays else left_out).append(str(child.platform))
        elif not stays and not _is_attestation(child):
            left_out.append(str(child.digest))
    if all(keep):
        return Trimmed(entry, tuple(kept))
    document = load_json(raw)
    members = zip(document["manifests"], keep, strict=True)
    document["manifests"] = [member for member, stays in members if stays]
    smaller = _bytes_of(document)
    return Trimmed(
        Descriptor(
            media_type=entry.media_type,
            digest=compute(smaller),
            size=len(smaller),
            annotations=entry.annotations,
            artifact_type=entry.artifact_type,
            data=smaller,
        ),
        tuple(kept),
        tuple(left_out),
    )


def _chosen(index: ImageIndex, platforms: Sequence[Platform], entry: Descriptor) -> list[bool]:
    """For each member whether it stays."""
    names = dict.fromkeys(
        str(c.platform) for c in index.manifests if c.platform and not _is_attestation(c)
    )
    for child in index.manifests:
        if child.platform is None and mediatypes.is_index(child.media_type):
            raise ManifestError(
                "the index holds other indexes, of which no platform is known",
                advice="leave platforms out for this image, or take images out of it with"
                " platforms: [OS/ARCH]",
                digest=entry.digest,
            )
    for platform in platforms:
        if not any(c.platform and runs_on(c.platform, platform) for c in index.manifests):
            raise EntryNotFoundError(
                f"the index has no image for {platform}",
                advice=f"it has {', '.join(names)}" if names else "it names no platforms",
                digest=entry.digest,
            )
    images = {
        child.digest
        for child in index.manifests
        if child.platform is not None and any(runs_on(child.platform, p) for p in platforms)
    }
    return [
        child.digest in images or (child.annotations or {}).get(_ATTESTED) in images
        for child in index.manifests
    ]


def _is_attestation(child: Descriptor) -> bool:
    return _ATTESTED in (child.annotations or {})


def _bytes_of(document: dict[str, Any]) -> bytes:
    """One document, one text: keys in the order of the source, no spaces, ASCII alone."""
    return json.dumps(document, separators=(",", ":")).encode("ascii")
