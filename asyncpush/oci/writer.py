"""Writing OCI image layouts: for demonstrations, tests and benchmarks."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import REF_NAME
from asyncpush.oci.digest import algorithm, compute, encoded

JsonDescriptor = dict[str, Any]


class LayoutWriter:
    """Writes one OCI image layout: blobs as they come, ``index.json`` at the end.

    :param root: the directory; made if it is missing.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._entries: list[JsonDescriptor] = []
        self._diff_ids: dict[str, str] = {}
        self.root.mkdir(parents=True, exist_ok=True)

    def blob(self, data: bytes, media_type: str, *, hash_name: str = "sha256") -> JsonDescriptor:
        """Store bytes under their digest.

        :param hash_name: ``sha256`` or ``sha512``.
        :return: their descriptor, as JSON-ready data.
        """
        digest = compute(data, hash_name)
        path = self.root / "blobs" / algorithm(digest) / encoded(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def layer(self, files: Mapping[str, bytes], *, docker: bool = False) -> JsonDescriptor:
        """Store a gzip-compressed tar of files, the same bytes for the same files."""
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        packed = gzip.compress(tar.getvalue(), compresslevel=1, mtime=0)
        kind = mediatypes.DOCKER_LAYER_GZIP if docker else mediatypes.OCI_LAYER_GZIP
        descriptor = self.blob(packed, kind)
        self._diff_ids[descriptor["digest"]] = compute(tar.getvalue())
        return descriptor

    def document(self, document: Mapping[str, Any], media_type: str) -> JsonDescriptor:
        """Store a JSON document such as a config or a manifest."""
        return self.blob(json.dumps(document).encode(), media_type)

    def image(
        self,
        layers: Sequence[JsonDescriptor],
        *,
        config: Mapping[str, Any] | None = None,
        docker: bool = False,
        architecture: str = "amd64",
    ) -> JsonDescriptor:
        """Store a config and an image manifest over layers that are there already.

        :param config: fields of the config beside system, architecture and root file system.
        :param docker: write Docker's schema 2 instead of an OCI manifest.
        """
        document = {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {
                "type": "layers",
                # A layer that is no compressed tar of ours is its own uncompressed self.
                "diff_ids": [self._diff_ids.get(x["digest"], x["digest"]) for x in layers],
            },
            **(config or {}),
        }
        stored = self.document(
            document, mediatypes.DOCKER_CONFIG if docker else mediatypes.OCI_CONFIG
        )
        media_type = mediatypes.DOCKER_MANIFEST if docker else mediatypes.OCI_MANIFEST
        return self.manifest(stored, layers, media_type=media_type)

    def manifest(
        self,
        config: JsonDescriptor,
        layers: Sequence[JsonDescriptor],
        *,
        media_type: str = mediatypes.OCI_MANIFEST,
        **fields: Any,
    ) -> JsonDescriptor:
        """Store a manifest over a config and layers.

        :param fields: further fields of the manifest, such as ``subject`` or ``artifactType``.
        """
        return self.document(
            {
                "schemaVersion": 2,
                "mediaType": media_type,
                "config": config,
                "layers": list(layers),
                **fields,
            },
            media_type,
        )

    def artifact(
        self,
        artifact_type: str,
        layers: Sequence[JsonDescriptor],
        *,
        subject: JsonDescriptor | None = None,
    ) -> JsonDescriptor:
        """Store an artifact with the empty config (image-spec 1.1, "artifact usage")."""
        fields: dict[str, Any] = {"artifactType": artifact_type}
        if subject is not None:
            fields["subject"] = {k: subject[k] for k in ("mediaType", "digest", "size")}
        return self.manifest(self.blob(b"{}", mediatypes.OCI_EMPTY), layers, **fields)

    def index(self, manifests: Iterable[JsonDescriptor], *, docker: bool = False) -> JsonDescriptor:
        """Store an index (or Docker's manifest list) over manifests that are there already."""
        media_type = mediatypes.DOCKER_LIST if docker else mediatypes.OCI_INDEX
        return self.document(
            {"schemaVersion": 2, "mediaType": media_type, "manifests": list(manifests)},
            media_type,
        )

    def entry(self, descriptor: JsonDescriptor, name: str | None = None) -> JsonDescriptor:
        """Name a stored manifest in ``index.json``."""
        entry = dict(descriptor)
        if name is not None:
            entry["annotations"] = {**entry.get("annotations", {}), REF_NAME: name}
        self._entries.append(entry)
        return descriptor

    def close(self) -> Path:
        """Write ``oci-layout`` and ``index.json``.

        :return: the layout's directory.
        """
        (self.root / "blobs").mkdir(exist_ok=True)
        (self.root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        index = {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_INDEX,
            "manifests": self._entries,
        }
        (self.root / "index.json").write_text(json.dumps(index))
        return self.root
