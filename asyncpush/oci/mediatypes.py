"""Media types of the OCI image specification and of Docker's image manifest version 2, schema 2."""

from __future__ import annotations

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

_MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
_IMAGE_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
MANIFESTS = _MANIFESTS | _INDEXES
"""What can be committed: manifests and indexes."""
# Docker's schema 1 cannot be pushed by digest: its digest leaves out part of the document.
SCHEMA_1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)


def is_manifest(media_type: str) -> bool:
    """Whether it is an image manifest (OCI or Docker schema 2), which is also an artifact's."""
    return media_type in _MANIFESTS


def is_index(media_type: str) -> bool:
    """Whether it is an OCI index or a Docker manifest list."""
    return media_type in _INDEXES


def is_image_config(media_type: str) -> bool:
    """Whether a config of this media type makes a runnable image; any other makes an artifact."""
    return media_type in _IMAGE_CONFIGS


def is_foreign_layer(media_type: str) -> bool:
    """Whether a layer is foreign (Docker) or non-distributable (OCI layer.md)."""
    return media_type == DOCKER_FOREIGN_LAYER or media_type.startswith(
        "application/vnd.oci.image.layer.nondistributable."
    )
