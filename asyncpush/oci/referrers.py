"""What refers to a manifest, by the names that clients give it and by what manifests say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from asyncpush.errors import AsyncpushError
from asyncpush.oci import digest as digests
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest, parse_digest
from asyncpush.oci.manifest import ImageManifest, Manifest

# distribution-spec 1.1, "Referrers Tag Schema": how much of a digest's parts goes into the tag.
_ALGORITHM_LENGTH, _ENCODED_LENGTH = 32, 64
# cosign's specification, "Signature": a digest's tag, with what it is behind a dot.
_COSIGN = (".sig", ".att", ".sbom")
_TAG = re.compile(r"(sha256-[0-9a-f]{64})(\.sig|\.att|\.sbom)?")


@dataclass(slots=True)
class Found:
    """What a source names as referring to one manifest.

    :param referrers: named by the referrers API, or by their own subject.
    :param tagged: named by cosign's tags, which they have as their names.
    :param lists: indexes of referrers that a tag names.
    :param problems: why there may be more.
    """

    referrers: list[Descriptor] = field(default_factory=list)
    tagged: list[Descriptor] = field(default_factory=list)
    lists: list[Descriptor] = field(default_factory=list)
    problems: list[AsyncpushError] = field(default_factory=list)


def referrers_tag(subject: Digest) -> str:
    """The tag of the index of a digest's referrers ("Referrers Tag Schema")."""
    algorithm, encoded = digests.algorithm(subject), digests.encoded(subject)
    return f"{algorithm[:_ALGORITHM_LENGTH]}-{encoded[:_ENCODED_LENGTH]}"


def cosign_tags(subject: Digest) -> tuple[str, ...]:
    """The tags under which cosign keeps signatures, attestations and SBOMs of a digest."""
    tag = f"{digests.algorithm(subject)}-{digests.encoded(subject)}"
    return tuple(f"{tag}{ending}" for ending in _COSIGN)


def names_referrers(tag: str) -> bool:
    """Whether a tag is of the form that a list of referrers has, or one of cosign's tags."""
    return _TAG.fullmatch(tag) is not None


def listed_subject(tag: str) -> Digest | None:
    """The digest whose list of referrers has this tag; None if it is any other tag."""
    match = _TAG.fullmatch(tag)
    if match is None or match[2] is not None:
        return None
    return parse_digest(tag.replace("-", ":", 1))


def artifact_types(manifest: Manifest) -> tuple[str, ...]:
    """What a manifest may be chosen by.

    Its artifact type, or in its place the config's media type, as the referrers API gives it. What
    cosign signs and attests has an image's config, so its layers' media types say more.
    """
    if manifest.artifact_type is not None:
        return (manifest.artifact_type,)
    if not isinstance(manifest, ImageManifest):
        return ()
    return (manifest.config.media_type, *(layer.media_type for layer in manifest.layers))


def is_wanted(types: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether one of the types is asked for.

    :param patterns: shell patterns; none means that all are.
    """
    return not patterns or any(fnmatchcase(t, p) for t in types for p in patterns)
