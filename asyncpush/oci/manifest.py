"""Manifests and indexes: parsed for what they name, never written again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypedDict

from asyncpush.errors import ManifestError
from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import Descriptor, parse_annotations, parse_descriptor

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""The largest manifest that registries take: distribution-spec ("Pushing manifests") recommends it
as the least upper limit, ECR's PutImage has it as ``ImageManifest.max``."""


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """An OCI image manifest or a Docker schema 2 manifest; also the manifest of an artifact."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None

    @property
    def is_artifact(self) -> bool:
        """Whether this is something other than a runnable image."""
        return self.artifact_type is not None or not mediatypes.is_image_config(
            self.config.media_type
        )


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """An OCI image index or a Docker manifest list."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None

    @property
    def is_artifact(self) -> bool:
        """Whether the index says of itself that it is an artifact."""
        return self.artifact_type is not None


Manifest = ImageManifest | ImageIndex


class _Shared(TypedDict):
    media_type: str
    subject: Descriptor | None
    artifact_type: str | None
    annotations: dict[str, str] | None


def parse_manifest(raw: bytes, media_type: str) -> Manifest:
    """Read a manifest or an index.

    :param raw: the bytes as they lie on disk or came over the wire.
    :param media_type: what the descriptor that led here says it is.
    :raises ManifestError: it is no JSON, not of that media type, or breaks its specification.
    :raises UnsupportedDigestError: a digest in it cannot be used.
    :raises DigestMismatchError: ``data`` embedded in it is not what its digest says.
    """
    if media_type in mediatypes.SCHEMA_1:
        raise ManifestError(
            "Docker image manifest schema 1 cannot be pushed",
            advice="pull and push the image once with a current client to convert it",
        )
    if not mediatypes.is_manifest(media_type) and not mediatypes.is_index(media_type):
        raise ManifestError(f"media type {media_type} is no manifest's")
    document = load_json(raw)
    if document.get("schemaVersion") != 2:
        raise ManifestError(f"schemaVersion is {document.get('schemaVersion')!r}, not 2")
    declared = document.get("mediaType", media_type)
    if declared != media_type:
        raise ManifestError(f"mediaType is {declared!r}, its descriptor says {media_type}")
    # A document that reads as both is a known confusion attack (CVE-2021-41190).
    if "manifests" in document and ("layers" in document or "config" in document):
        raise ManifestError("it has both manifests and layers, so it is neither index nor manifest")
    subject = document.get("subject")
    artifact_type = document.get("artifactType")
    if artifact_type is not None and not isinstance(artifact_type, str):
        raise ManifestError("artifactType is no text")
    shared = _Shared(
        media_type=media_type,
        subject=None if subject is None else parse_descriptor(subject, "subject"),
        artifact_type=artifact_type or None,
        annotations=parse_annotations(document.get("annotations"), "manifest"),
    )
    if mediatypes.is_index(media_type):
        return ImageIndex(manifests=_descriptors(document, "manifests"), **shared)
    if "config" not in document:
        raise ManifestError("config is missing")
    return ImageManifest(
        config=parse_descriptor(document["config"], "config"),
        layers=_descriptors(document, "layers"),
        **shared,
    )


def load_json(raw: bytes) -> dict[str, Any]:
    """Decode a JSON object.

    :raises ManifestError: the bytes are no UTF-8, no JSON, or no object.
    """
    document = _decode(raw)
    if not isinstance(document, dict):
        raise ManifestError("it is JSON but no object")
    return document


def load_json_list(raw: bytes) -> list[Any]:
    """Decode a JSON list.

    :raises ManifestError: the bytes are no UTF-8, no JSON, or no list.
    """
    document = _decode(raw)
    if not isinstance(document, list):
        raise ManifestError("it is JSON but no list")
    return document


def _decode(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise ManifestError(f"it is no JSON: no UTF-8 at byte {exc.start}") from exc
    except json.JSONDecodeError as exc:
        raise ManifestError(
            f"it is no JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}"
        ) from exc
    except RecursionError as exc:
        raise ManifestError("its JSON is nested too deeply") from exc
    except ValueError as exc:  # a number with more digits than Python converts
        raise ManifestError("its JSON holds a number out of range") from exc


def _descriptors(document: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    values = document.get(key)
    if not isinstance(values, list):
        raise ManifestError(f"{key} is missing or no list")
    return tuple(parse_descriptor(value, f"{key}[{i}]") for i, value in enumerate(values))
