"""Client CPU of a push over OCI distribution: asyncpush beside other programs.

    python benchmarks/distribution.py [--gib 1.25] [--runs 3]

One image of many layers goes from an OCI layout to Debian's docker-registry on loopback, each time
into a new repository. asyncpush and skopeo, and crane, regctl and oras where they are on PATH, take
turns; CPU is user and system time of the whole process, start-up included, per GB (10^9 bytes) of
layers. What an image of one small layer takes tells how much of that is starting.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LAYER = 20 * 1024 * 1024


def make_corpus(root: Path, layers: int, size: int = LAYER) -> None:
    from asyncpush.oci import mediatypes
    from asyncpush.oci.writer import LayoutWriter

    writer = LayoutWriter(root)
    stored = [writer.blob(os.urandom(size), mediatypes.OCI_LAYER_GZIP) for _ in range(layers)]
    writer.entry(writer.image(stored), "v1")
    writer.close()


def command_of(client: str, layout: Path, host: str, repository: str) -> list[str]:
    target = f"{host}/{repository}:v1"
    return {
        "asyncpush": [
            *(sys.executable, "-m", "asyncpush", "push", "-q", "--no-journal"),
            *(str(layout), f"docker://{target}"),
        ],
        "skopeo": [
            *("skopeo", "copy", "-q", "--insecure-policy", "--preserve-digests"),
            *("--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{target}"),
        ],
        "crane": ["crane", "push", "--insecure", str(layout), target],
        "regctl": [
            *("regctl", "--host", f"reg={host},tls=disabled", "image", "copy"),
            *(f"ocidir://{layout}:v1", target),
        ],
        "oras": [
            *("oras", "cp", "--no-tty", "--to-plain-http", "--from-oci-layout"),
            *(f"{layout}:v1", target),
        ],
    }[client]


@contextmanager
def docker_registry(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"http: {{addr: '{host}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder / 'data'}'}}}}\n"
    )
    with subprocess.Popen(
        ["docker-registry", "serve", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{host}/v2/", timeout=5).close()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        try:
            yield host
        finally:
            process.terminate()


def measure(command: list[str]) -> tuple[float, float]:
    """CPU seconds, seconds on the clock."""
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{command[0]} failed with {process.returncode}: {said.read()}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=1.25, help="size of the corpus")
    parser.add_argument("--runs", type=int, default=3, help="runs of each client")
    args = parser.parse_args()
    clients = ["asyncpush"] + [
        name for name in ("skopeo", "crane", "regctl", "oras") if shutil.which(name)
    ]
    layers = max(8, round(args.gib * 1024**3 / LAYER))
    gb = layers * LAYER / 1e9
    figures: dict[str, list[tuple[float, ...]]] = {client: [] for client in clients}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_corpus(folder / "layout", layers)
        make_corpus(folder / "small", 1, 1000)
        for run in range(args.runs):
            for client in clients:
                # A registry of its own each time, so that the disk does not fill.
                store = folder / "registry"
                store.mkdir()
                with docker_registry(store) as host:
                    figures[client].append(
                        (
                            *measure(command_of(client, folder / "small", host, "bench/small")),
                            *measure(command_of(client, folder / "layout", host, f"bench/{run}")),
                        )
                    )
                shutil.rmtree(store)
    print(f"{gb:.2f} GB in {layers} layers, {args.runs} runs each, medians\n")
    medians = {
        client: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for client, rows in figures.items()
    }
    base = medians.get("skopeo", medians["asyncpush"])[2]
    print("client       CPU s/GB   x skopeo   GB/s   CPU s of a small push")
    for client, (small, _, cpu, wall) in medians.items():
        print(f"{client:<12} {cpu / gb:>8.2f} {cpu / base:>10.2f} {gb / wall:>6.2f} {small:>23.2f}")


if __name__ == "__main__":
    main()
