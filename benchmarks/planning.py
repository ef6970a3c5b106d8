"""Planning: time and peak memory for many images, from layouts on disk to the plan in memory.

    python benchmarks/planning.py [--images 10000] [--layers 10] [--shared 0.2]

Writes layouts of small files, plans half of the images and then all of them, each in a
process of its own, and prints both with their ratio. A fifth of each image's layers are the same
for all images; the rest are its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

HOST = "111122223333.dkr.ecr.eu-central-1.amazonaws.com"
PER_LAYOUT = 10


def write(folder: Path, images: int, layers: int, shared: float) -> None:
    """Write layouts of ten images each."""
    common = round(layers * shared)
    for i in range(images // PER_LAYOUT):
        writer = LayoutWriter(folder / f"app{i:05}")
        base = [writer.blob(b"base %d" % k, mediatypes.OCI_LAYER) for k in range(common)]
        for j in range(PER_LAYOUT):
            own = [
                writer.blob(b"%d %d %d" % (i, j, k), mediatypes.OCI_LAYER)
                for k in range(layers - common)
            ]
            writer.entry(writer.image([*base, *own]), f"v{j}")
        writer.close()


def measure(folder: Path, images: int) -> None:
    """Plan some of the layouts through a job file; print seconds and peak memory as JSON."""
    import anyio

    from asyncpush.engine.options import PushOptions
    from asyncpush.engine.planning import plan_items
    from asyncpush.job.load import load_job

    job = folder / f"job{images}.json"
    job.write_text(
        json.dumps(
            {
                "version": 1,
                "registries": [{"hosts": [HOST]}],
                "sources": [
                    {"layouts": [f"app{i:05}" for i in range(images // PER_LAYOUT)]},
                ],
                "targets": [{"repository": "team/{directory}"}],
            }
        )
    )
    begin = time.perf_counter()
    loaded = load_job(job, {}, {})
    plan, rejected = anyio.run(plan_items, loaded.items(), PushOptions())
    seconds = time.perf_counter() - begin
    planned = sum(len(r.images) for r in plan.repositories.values())
    blobs = sum(len(r.blobs) for r in plan.repositories.values())
    assert planned == images, (planned, rejected[:1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"images": images, "blobs": blobs, "seconds": seconds, "mib": peak}))


def main() -> None:
    """Write, plan half, plan all, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--shared", type=float, default=0.2)
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "IMAGES"))
    arguments = parser.parse_args()
    if arguments.measure:
        measure(Path(arguments.measure[0]), int(arguments.measure[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.images, arguments.layers, arguments.shared)
        rows = []
        for images in (0, arguments.images // 2, arguments.images):
            runs = []
            for _ in range(3):
                command = [sys.executable, __file__, "--measure", folder, str(images)]
                if images == 0:
                    command[-1] = str(PER_LAYOUT)
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                runs.append(json.loads(done.stdout))
            row = sorted(runs, key=lambda run: run["seconds"])[1]
            rows.append(row)
            print(
                f"{row['images']:>7} images, {row['blobs']:>7} blobs:"
                f" {row['seconds']:6.2f} s, {row['mib']:6.1f} MiB"
            )
    _, half, full = rows
    print(
        f"twice the images: {full['seconds'] / half['seconds']:.2f} x the time,"
        f" {full['mib'] / half['mib']:.2f} x the memory"
    )


if __name__ == "__main__":
    main()
