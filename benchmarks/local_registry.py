"""CPU and memory of the local registry while it receives layers, next to a server that does not.

    python benchmarks/local_registry.py [--gib 1.25] [--runs 3]

The same client pushes the same corpus into `asyncpush serve`, by ECR's own API and over /v2/, and
into the discarding server of this folder. CPU is the server process's user and system time for each
GB (10^9 bytes) of layers; memory its peak resident set.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
from native_upload import LAYER, make_corpus

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions
from asyncpush.localregistry import DEFAULT_KEY

TARGET = f"{DEFAULT_KEY.account}.dkr.ecr.us-east-1.amazonaws.com/bench"


@contextlib.contextmanager
def server(command: list[str]) -> Iterator[tuple[str, int]]:
    """Start a server that prints its address or port in its first line."""
    with subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        word = process.stdout.readline().split()[-1]
        try:
            yield (word if "://" in word else f"http://127.0.0.1:{word}"), process.pid
        finally:
            process.terminate()


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


async def push(root: Path, url: str, parts: int, native: bool) -> None:
    options = PushOptions(
        layers=parts,
        parts=parts,
        aws=AwsOptions(
            access_key_id=DEFAULT_KEY.access_key_id,
            secret_access_key=DEFAULT_KEY.secret_access_key,
            endpoint_url=url,
        ),
    )
    async with Pusher(options) as pusher:
        plain = f"docker://{url.removeprefix('http://')}/bench"
        report = await pusher.push([PushItem(root, TARGET if native else plain)])
    assert report.ok, [str(image.error) for image in report.failed]


def measure(command: list[str], root: Path, parts: int) -> tuple[float, float]:
    native = "--open" not in command
    with server(command) as (url, pid):
        before = cpu(pid)
        anyio.run(push, root, url, parts, native, backend_options={"use_uvloop": True})
        return cpu(pid) - before, peak(pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=1.25, help="size of the corpus")
    parser.add_argument("--runs", type=int, default=3, help="runs of each server")
    args = parser.parse_args()
    layers = max(16, round(args.gib * 1024**3 / LAYER))
    gb = layers * LAYER / 1e9
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "corpus"
        make_corpus(root, layers)
        print(f"{gb:.2f} GB in {layers} layers, {args.runs} runs each, medians\n")
        print("server               in flight   CPU s/GB   peak MiB")
        for parts in (1, 16):
            for name in ("discarding", "local registry", "local registry, /v2/"):
                figures = []
                for run in range(args.runs):
                    if name == "discarding":
                        command = [str(Path(__file__).with_name("discard.py"))]
                    else:
                        store = f"{folder}/store-{parts}-{run}"
                        command = ["-m", "asyncpush", "serve", "--port", "0", "--root", store]
                        command += [
                            "--repository",
                            "bench",
                            *(["--open"] if "/v2/" in name else []),
                        ]
                    # What earlier runs wrote must not be written back while this one is measured.
                    os.sync()
                    figures.append(measure(command, root, parts))
                    shutil.rmtree(f"{folder}/store-{parts}-{run}", ignore_errors=True)
                used, memory = (statistics.median(column) for column in zip(*figures, strict=True))
                print(f"{name:<20} {parts:>9} {used / gb:>10.2f} {memory:>10.0f}")


if __name__ == "__main__":
    main()
