"""How near to its quotas a push of many small images runs, and what throttling does to it.

    python benchmarks/quotas.py [--images 2000]

The local registry enforces ECR's published rates (PutImage 10 a second, InitiateLayerUpload 100 and
so on) with throttling errors. The push runs once with those quotas and once, on a tenth of the
images, with a PutImage quota that is five times too high, as after a mistaken `--quota`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import anyio

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions, PushReport
from asyncpush.localregistry import (
    DEFAULT_KEY,
    PUBLISHED_RATES,
    LocalRegistry,
    LocalRegistryOptions,
)
from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

HOST = f"{DEFAULT_KEY.account}.dkr.ecr.us-east-1.amazonaws.com"


def make_layout(root: Path, images: int) -> Path:
    writer = LayoutWriter(root)
    base = writer.blob(b"a base layer that all share", mediatypes.OCI_LAYER)
    for i in range(images):
        own = writer.blob(b"layer %d" % i, mediatypes.OCI_LAYER)
        writer.entry(writer.image([base, own]), f"v{i}")
    return writer.close()


async def push(folder: Path, images: int, quotas: dict[str, float]) -> tuple[PushReport, float]:
    layout = make_layout(folder / "layout", images)
    registry = LocalRegistry(
        folder / "store", [DEFAULT_KEY], LocalRegistryOptions(rates=PUBLISHED_RATES)
    )
    async with registry.run() as server:
        await server.ensure_repository(DEFAULT_KEY.account, "us-east-1", "bench")
        aws = AwsOptions(
            access_key_id=DEFAULT_KEY.access_key_id,
            secret_access_key=DEFAULT_KEY.secret_access_key,
            endpoint_url=server.url,
        )
        begin = time.monotonic()
        async with Pusher(PushOptions(aws=aws, quotas=quotas)) as pusher:
            report = await pusher.push([PushItem(layout, f"{HOST}/bench")])
        seconds = time.monotonic() - begin
        tags = await server.tags(DEFAULT_KEY.account, "us-east-1", "bench")
        assert len(tags) == images - len(report.failed)
    return report, seconds


def show(title: str, images: int, report: PushReport, seconds: float) -> None:
    print(f"{title}: {images} images in {seconds:.0f} s, {len(report.failed)} failed")
    print("  call                          calls  throttled  through/s  of the registry's rate")
    for call, figures in report.calls[HOST].items():
        through = (figures["calls"] - figures["throttled"]) / seconds
        share = through / PUBLISHED_RATES[call]
        throttled = figures["throttled"]
        print(f"  {call:<28} {figures['calls']:>6} {throttled:>10} {through:>10.2f} {share:>10.1%}")


async def main(images: int) -> None:
    cases = [("published quotas", images, {}), ("PutImage=50", images // 10, {"PutImage": 50.0})]
    for title, count, quotas in cases:
        with tempfile.TemporaryDirectory() as folder:
            report, seconds = await push(Path(folder), count, quotas)
        show(title, count, report, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    anyio.run(main, parser.parse_args().images, backend_options={"use_uvloop": True})
