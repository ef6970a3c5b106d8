"""Tar files for tests: of layouts, of what docker save wrote, and of whatever members."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from asyncpush.oci.digest import compute

Members = Mapping[str, bytes | tarfile.TarInfo]


def tar_of(path: Path, members: Members, **links: str) -> Path:
    """A tar of files, of members that bring their own header, and of symbolic links."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                tar.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.SYMTYPE
            info.linkname = target
            tar.addfile(info)
    return path


def archive_of(layout: Path, path: Path) -> Path:
    """An OCI archive of a layout."""
    with tarfile.open(path, "w") as tar:
        tar.add(layout, arcname=".")
    return path


LAYER = b"a layer of a tar" * 1000


def docker_members(layer: bytes = LAYER, diff: bytes = LAYER, **changes: object) -> Members:
    """An image as docker save wrote it, with two names and a layer that is a link to a file.

    :param diff: what its config says is in the layer.
    :param changes: of its entry in manifest.json.
    """
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [compute(diff)]}}).encode()
    image = {"Config": "c.json", "RepoTags": ["app:v1", "app:v2"], "Layers": ["x/layer.tar"]}
    manifest = json.dumps([image | changes]).encode()
    link = tarfile.TarInfo("x/layer.tar")
    link.type, link.linkname = tarfile.SYMTYPE, "../l.tar"
    return {"manifest.json": manifest, "c.json": config, "l.tar": layer, "x/layer.tar": link}


def docker_save(path: Path, **changes: object) -> Path:
    """An archive of :func:`docker_members`."""
    return tar_of(path, docker_members(**changes))  # type: ignore[arg-type]
