"""What docker save wrote before Docker 25, and other programs write still: no manifests."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from asyncpush.errors import (
    AsyncpushError,
    BlobMissingError,
    LayoutError,
    LimitError,
    ManifestError,
    UnsupportedDigestError,
)
from asyncpush.oci import digest as digests
from asyncpush.oci import mediatypes
from asyncpush.oci.decompress import MAGIC_BYTES, compression_of
from asyncpush.oci.descriptor import REF_NAME, Descriptor, parse_descriptor
from asyncpush.oci.digest import Digest, parse_digest
from asyncpush.oci.layout import BlobData, BlobRange, BlobSource, opened
from asyncpush.oci.manifest import MAX_MANIFEST_BYTES, load_json, load_json_list
from asyncpush.oci.scratch import Scratch
from asyncpush.oci.tar import Tar, checked

_MOST_BYTES = 64 * 1024 * 1024
"""The largest manifest.json that is read, and the most that may be made of it: what is made stays
in memory, and a short list of layers can be made a long one."""


class DockerArchive:
    """A tar file of ``manifest.json``, and a config and layers for each image.

    Images get the Docker schema 2 manifest that skopeo gives them when it copies such an archive
    with ``--preserve-digests``: the layers as they are. Layers that are compressed in the archive,
    as crane, ko and jib write them, go as they are, too.

    :param scratch: takes layers that are compressed.
    :param compress: compress layers that are not.
    """

    registry: str | None = None
    repository: str | None = None

    def __init__(self, tar: Tar, scratch: Scratch, *, compress: bool = False) -> None:
        self._tar = tar
        self._scratch = scratch
        self._compress = compress
        self.root = tar.path
        self._blobs: dict[Digest, BlobSource] = {}
        self._compressed: dict[int, Digest] = {}
        self._made = 0
        self._images: list[list[Descriptor]] = []
        try:
            images = load_json_list(tar.read("manifest.json", _MOST_BYTES))
            self._images = [self._image(image, i) for i, image in enumerate(images)]
        except ManifestError as exc:
            raise LayoutError(f"manifest.json: {exc.message}", file=str(self.root)) from exc
        except AsyncpushError as exc:
            raise exc.at(file=str(self.root)) from exc.__cause__
        self.entries = tuple(entry for image in self._images for entry in image)

    @property
    def numbered(self) -> Sequence[Descriptor]:
        """Its images, in the order of ``manifest.json``."""
        return [image[0] for image in self._images]

    def find(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find`."""
        return checked(self._blobs.get(descriptor.digest), descriptor, self.root)

    def find_manifest(self, descriptor: Descriptor) -> BlobSource:
        """See :meth:`asyncpush.oci.layout.Layout.find_manifest`."""
        return self.find(descriptor)

    def holds(self, digest: Digest) -> bool:
        """See :meth:`asyncpush.oci.layout.Layout.holds`."""
        return digest in self._blobs

    def _image(self, image: Any, number: int) -> list[Descriptor]:
        """Make an image's manifest; a descriptor for each of its names."""
        if not isinstance(image, dict):
            raise ManifestError(f"image {number} is no object")
        name, layers = image.get("Config"), image.get("Layers")
        if not isinstance(name, str) or not isinstance(layers, list):
            raise ManifestError(f"image {number} lacks Config or Layers")
        raw = self._tar.read(name)
        diff_ids = _diff_ids(load_json(raw))
        if len(diff_ids) != len(layers):
            raise ManifestError(
                f"image {number} has {len(layers)} layers, its config tells of {len(diff_ids)}"
            )
        config = digests.compute(raw)
        place = self._tar.source(name)
        assert place is not None, "it was read"
        self._blobs[config] = place
        manifest = {
            "schemaVersion": 2,
            "mediaType": mediatypes.DOCKER_MANIFEST,
            "config": _described(mediatypes.DOCKER_CONFIG, len(raw), config),
            "layers": [
                # skopeo, too, calls all of them gzip: registries and runtimes look at the bytes.
                _described(mediatypes.DOCKER_LAYER_GZIP, *self._layer(layer, diff_id))
                for layer, diff_id in zip(layers, diff_ids, strict=True)
            ],
        }
        written = json.dumps(manifest, separators=(",", ":")).encode()
        self._made += len(written)
        if len(written) > MAX_MANIFEST_BYTES or self._made > _MOST_BYTES:
            raise LimitError(f"image {number} has more layers than a manifest can name")
        digest = digests.compute(written)
        self._blobs[digest] = BlobData(written)
        tags = image.get("RepoTags")
        names = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
        described = _described(mediatypes.DOCKER_MANIFEST, len(written), digest)
        annotated = [{**described, "annotations": {REF_NAME: tag}} for tag in names]
        return [
            parse_descriptor(entry, f"manifest.json[{number}]")
            for entry in annotated or [described]
        ]

    def _layer(self, name: Any, diff_id: Digest) -> tuple[int, Digest]:
        """Note where a layer is; its size and digest."""
        source = self._tar.source(name) if isinstance(name, str) else None
        if source is None:
            raise BlobMissingError(f"the archive lacks the layer {name}", digest=diff_id)
        kind = _compression(source)
        if kind is None:
            digest = diff_id
            if self._compress:
                digest, source = self._scratch.compress(source, diff_id)
        elif kind == "gzip":
            digest = self._digest_of(source)
        else:
            raise ManifestError(f"the layer {name} is compressed with {kind}; gzip can be pushed")
        self._blobs[digest] = source
        return source.size, digest

    def _digest_of(self, source: BlobRange) -> Digest:
        """A compressed layer's digest, which nothing in the archive tells."""
        if source.offset not in self._compressed:
            self._compressed[source.offset] = self._scratch.digest_of(source)
        return self._compressed[source.offset]


def _compression(source: BlobRange) -> str | None:
    with opened(source) as fd:
        return compression_of(os.pread(fd, min(MAGIC_BYTES, source.size), source.offset))


def _diff_ids(config: Mapping[str, Any]) -> list[Digest]:
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    try:
        return [parse_digest(text) for text in found or ()]
    except (UnsupportedDigestError, TypeError) as exc:
        raise ManifestError("the config's rootfs.diff_ids are no digests") from exc


def _described(media_type: str, size: int, digest: Digest) -> dict[str, Any]:
    return {"mediaType": media_type, "size": size, "digest": digest}
