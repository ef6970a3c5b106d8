"""A realistic layout to try things with: images that share layers, an index, an artifact."""

from __future__ import annotations

import os
import random
from pathlib import Path

from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

_SBOM = "application/spdx+json"
_MIB = 1024 * 1024


def write_sample(
    root: str | os.PathLike[str], *, images: int = 12, base_bytes: int = 12 * _MIB
) -> Path:
    """Write a layout of ``images`` + 3 entries; the same arguments give the same digests.

    Every image has two layers that all share, of ``base_bytes`` and a quarter of it, and one of its
    own. The other entries are an index of two platforms, an artifact (an SBOM) whose subject is the
    first image, and a Docker schema 2 image.

    :param root: the layout's directory.
    :param images: how many plain images.
    :param base_bytes: bytes of the larger shared layer.
    :return: the directory.
    """
    rng = random.Random(2015_09_21)  # noqa: S311 - incompressible filler, not a secret
    writer = LayoutWriter(root)
    shared = [
        writer.layer({"usr/lib/base.bin": rng.randbytes(base_bytes)}),
        writer.layer({"usr/lib/runtime.bin": rng.randbytes(base_bytes // 4)}),
    ]

    def own(name: str, *, docker: bool = False) -> list[dict[str, object]]:
        files = {f"srv/{name}.bin": rng.randbytes(base_bytes // 12)}
        return [*shared, writer.layer(files, docker=docker)]

    plain = [
        writer.entry(writer.image(own(f"service-{i:02}")), f"service-{i:02}")
        for i in range(1, images + 1)
    ]
    platforms = []
    for architecture in ("amd64", "arm64"):
        image = writer.image(own(f"gateway-{architecture}"), architecture=architecture)
        platforms.append({**image, "platform": {"os": "linux", "architecture": architecture}})
    writer.entry(writer.index(platforms), "gateway")
    sbom = writer.blob(b'{"spdxVersion": "SPDX-2.3", "name": "service-01"}', _SBOM)
    writer.entry(writer.artifact(_SBOM, [sbom], subject=plain[0]), "service-01.sbom")
    docker = [
        {**layer, "mediaType": mediatypes.DOCKER_LAYER_GZIP} for layer in own("legacy", docker=True)
    ]
    writer.entry(writer.image(docker, docker=True), "legacy")
    return writer.close()
