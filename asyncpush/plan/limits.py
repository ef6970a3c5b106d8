"""What a kind of registry takes at most: constants that the plan is checked against."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RegistryLimits:
    """The sizes and digests that a registry takes.

    :param digest_algorithms: algorithms of digests it takes.
    :param layer_parts: the most parts of one layer.
    :param part_bytes: the part size it expects where nobody says otherwise.
    """

    digest_algorithms: frozenset[str]
    layer_parts: int
    part_bytes: int


ECR = RegistryLimits(
    digest_algorithms=frozenset({"sha256"}),
    # "Amazon ECR endpoints and quotas": layer parts 4,200, layer part size 10 MiB.
    layer_parts=4200,
    part_bytes=10 * MIB,
)

MIN_PART_BYTES = 5 * MIB
"""Smallest part but the last ("Amazon ECR endpoints and quotas")."""
MAX_PART_BYTES = 20 * MIB
"""Largest ``layerPartBlob`` (API reference, UploadLayerPart)."""
