"""Descriptors: what one piece of content is, how large, and which digest proves it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from asyncpush.errors import DigestMismatchError, ManifestError
from asyncpush.oci import mediatypes
from asyncpush.oci.digest import Digest, parse_digest, verify

REF_NAME = "org.opencontainers.image.ref.name"
"""Annotation that names an entry of a layout (image-spec, annotations.md)."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on (image-spec, image-index.md, ``platform``)."""

    os: str
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        parts = [self.os, self.architecture]
        if self.variant:
            parts.append(self.variant)
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content (image-spec, descriptor.md).

    ``size`` is in bytes. ``data`` is the content itself where the descriptor embeds it, decoded and
    proven.
    """

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str | None = None
    data: bytes | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether this is a foreign layer: one that clients fetch from its ``urls``."""
        return bool(self.urls) and mediatypes.is_foreign_layer(self.media_type)

    @property
    def ref_name(self) -> str | None:
        """The entry's name in a layout's ``index.json``, if it has one."""
        return (self.annotations or {}).get(REF_NAME)


def parse_descriptor(value: Any, where: str) -> Descriptor:
    """Read one descriptor out of a decoded JSON document.

    :param value: the decoded JSON value.
    :param where: its place in the document, for errors: ``layers[3]``.
    :raises ManifestError: it breaks image-spec's descriptor.md.
    :raises UnsupportedDigestError: its digest cannot be used.
    :raises DigestMismatchError: its embedded ``data`` is not what its digest says.
    """
    if not isinstance(value, dict):
        raise ManifestError(f"{where} is no descriptor but {_json_type(value)}")
    media_type = value.get("mediaType")
    if not isinstance(media_type, str) or not media_type:
        raise ManifestError(f"{where}.mediaType is missing or no text")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ManifestError(f"{where}.size is {size!r}, not a number of bytes")
    if "digest" not in value:
        raise ManifestError(f"{where}.digest is missing")
    digest = parse_digest(value["digest"])
    artifact_type = value.get("artifactType")
    if artifact_type is not None and not isinstance(artifact_type, str):
        raise ManifestError(f"{where}.artifactType is no text")
    return Descriptor(
        media_type=media_type,
        digest=digest,
        size=size,
        urls=_parse_urls(value.get("urls"), where),
        annotations=parse_annotations(value.get("annotations"), where),
        platform=_parse_platform(value.get("platform"), where),
        artifact_type=artifact_type,
        data=_parse_data(value.get("data"), digest, size, where),
    )


def parse_annotations(value: Any, where: str) -> dict[str, str] | None:
    """Read an annotations map.

    :raises ManifestError: it is no object of texts.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ManifestError(f"{where}.annotations is no object of texts")
    return value


def _parse_urls(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(url, str) for url in value):
        raise ManifestError(f"{where}.urls is no list of texts")
    return tuple(value)


def _parse_platform(value: Any, where: str) -> Platform | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ManifestError(f"{where}.platform is no object")
    os, architecture, variant = (value.get(k) for k in ("os", "architecture", "variant"))
    if not isinstance(os, str) or not isinstance(architecture, str):
        raise ManifestError(f"{where}.platform needs os and architecture")
    if variant is not None and not isinstance(variant, str):
        raise ManifestError(f"{where}.platform.variant is no text")
    return Platform(os, architecture, variant or None)


def _parse_data(value: Any, digest: Digest, size: int, where: str) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ManifestError(f"{where}.data is no base64 text")
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError as exc:  # binascii.Error is one; text that is no ASCII is another
        raise ManifestError(f"{where}.data is no base64 text") from exc
    try:
        verify(data, digest, size)
    except DigestMismatchError as exc:
        exc.message = f"{where}.data: {exc.message}"
        raise
    return data


def _json_type(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", list: "a list", str: "a text"}
    return names.get(type(value), "a number")
