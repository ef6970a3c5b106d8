"""What mounting saves: a fleet of repositories that share layers, by each transport.

    python benchmarks/mounting.py [--repositories 40] [--shared-mib 200]

Images that share ten layers go to as many repositories of the local registry, which mounts as ECR
does once an account has switched that on, and enforces ECR's published rates with throttling
errors. What counts is what the server counted: bytes of layers (before base64, which makes them a
third more on the wire of ECR's own API), calls, mounts. The last run is into a registry that
refuses all mounts. Seconds are of client and server together on one machine, without a network
between them: bytes cost more elsewhere.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import anyio

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions, PushReport
from asyncpush.localregistry import (
    DEFAULT_KEY,
    PUBLISHED_RATES,
    CallCounters,
    DistributionOptions,
    LocalRegistry,
    LocalRegistryOptions,
)
from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

MIB = 1024 * 1024
REGION = "us-east-1"
HOST = f"{DEFAULT_KEY.account}.dkr.ecr.{REGION}.amazonaws.com"
LAYERS = 10
OWN = MIB
CASES = [("native", True), ("hybrid", True), ("distribution", True), ("hybrid", False)]


def make_layout(root: Path, names: list[str], shared: int) -> Path:
    writer = LayoutWriter(root)
    base = [writer.blob(os.urandom(shared // LAYERS), mediatypes.OCI_LAYER) for _ in range(LAYERS)]
    for name in names:
        own = writer.blob(os.urandom(OWN), mediatypes.OCI_LAYER)
        writer.entry(writer.image([*base, own]), name)
    return writer.close()


async def push(
    layout: Path, names: list[str], store: Path, transport: str, *, mounting: bool
) -> tuple[PushReport, CallCounters, float]:
    options = LocalRegistryOptions(
        rates=PUBLISHED_RATES, distribution=DistributionOptions(blob_mounting=mounting)
    )
    async with LocalRegistry(store, [DEFAULT_KEY], options).run() as server:
        for name in names:
            await server.ensure_repository(DEFAULT_KEY.account, REGION, name)
        aws = AwsOptions(
            access_key_id=DEFAULT_KEY.access_key_id,
            secret_access_key=DEFAULT_KEY.secret_access_key,
            endpoint_url=server.url,
        )
        begin = time.monotonic()
        async with Pusher(PushOptions(aws=aws, transport=transport)) as pusher:
            report = await pusher.push(
                [PushItem(f"{layout}:{name}", f"{HOST}/{name}") for name in names]
            )
        seconds = time.monotonic() - begin
        assert report.ok, [str(image.error) for image in report.failed]
        return report, server.calls.counters, seconds


def grouped(calls: Counter[str]) -> list[int]:
    """Uploads begun, parts or chunks with bytes, completions of their own, mounts, commits."""
    return [
        calls["InitiateLayerUpload"] + calls["v2.StartUpload"],
        calls["UploadLayerPart"] + calls["v2.PatchUpload"] + calls["v2.PutUpload"],
        calls["CompleteLayerUpload"],
        calls["v2.MountBlob"],
        calls["PutImage"] + calls["v2.PutManifest"],
    ]


async def main(repositories: int, shared: int) -> None:
    names = [f"app{i:04}" for i in range(repositories)]
    print(
        f"{repositories} images of {shared / MIB:.0f} MiB that all share and 1 MiB of their own\n"
    )
    print("transport     mounts   s       MiB sent  MiB mounted  begun parts complete mount commit")
    with tempfile.TemporaryDirectory() as folder:
        layout = make_layout(Path(folder) / "layout", names, shared)
        for transport, mounting in CASES:
            with tempfile.TemporaryDirectory() as store:
                report, counters, seconds = await push(
                    layout, names, Path(store), transport, mounting=mounting
                )
            begun, parts, complete, mounts, commits = grouped(counters.calls)
            print(
                f"{transport:<13} {'on' if mounting else 'refused':<8} {seconds:<7.1f}"
                f" {counters.layer_bytes_received / MIB:>8.0f} {report.bytes_mounted / MIB:>12.0f}"
                f" {begun:>6} {parts:>5} {complete:>8} {mounts:>5} {commits:>6}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repositories", type=int, default=40)
    parser.add_argument("--shared-mib", type=int, default=200)
    args = parser.parse_args()
    anyio.run(main, args.repositories, args.shared_mib * MIB, backend_options={"use_uvloop": True})
