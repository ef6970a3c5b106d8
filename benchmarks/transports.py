"""Client CPU of a push to ECR by each of its APIs, with and without TLS.

    python benchmarks/transports.py [--gib 1.25] [--runs 3]

One image of many layers goes to the discarding server of discard.py on loopback. CPU is user and
system time of the whole process per GB (10^9 bytes) of layers, less that of a push of nothing; the
bytes on the wire are those of the bodies. Take `openssl` for the certificate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LAYER = 20 * 1024 * 1024
TARGET = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/bench"
TRANSPORTS = ("native", "distribution", "auto")


def make_corpus(root: Path, layers: int) -> None:
    from asyncpush.oci import mediatypes
    from asyncpush.oci.writer import LayoutWriter

    writer = LayoutWriter(root)
    stored = [writer.blob(os.urandom(LAYER), mediatypes.OCI_LAYER_GZIP) for _ in range(layers)]
    writer.entry(writer.image(stored), "v1")
    writer.entry(writer.image([]), "empty")
    writer.close()


def make_certificate(folder: Path) -> list[str]:
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return [certificate, key]


@contextmanager
def server(certificate: list[str]) -> Iterator[str]:
    program = Path(__file__).with_name("discard.py")
    with subprocess.Popen(
        [sys.executable, str(program), *certificate],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        scheme = "https" if certificate else "http"
        yield f"{scheme}://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


def measure(
    layout: Path, entry: str, url: str, transport: str, trusted: str
) -> tuple[float, float]:
    """CPU seconds, seconds on the clock."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    env |= {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_ACCESS_KEY_ID": "AKIDBENCHMARK0000000",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_CA_BUNDLE": trusted,
    }
    command = [sys.executable, "-m", "asyncpush", "push", "-q", "--no-journal"]
    command += [f"{layout}:{entry}", TARGET, "--endpoint-url", url, "--transport", transport]
    begin = time.monotonic()
    process = subprocess.Popen(command, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the push failed with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=1.25, help="size of the corpus")
    parser.add_argument("--runs", type=int, default=3, help="runs of each transport")
    args = parser.parse_args()
    layers = max(8, round(args.gib * 1024**3 / LAYER))
    gb = layers * LAYER / 1e9
    print(f"{gb:.2f} GB in {layers} layers, {args.runs} runs each, medians\n")
    print("transport     TLS   CPU s/GB   GB/s   body bytes per byte")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_corpus(folder / "layout", layers)
        pair = make_certificate(folder)
        for certificate in (pair, []):
            with server(certificate) as url:
                for transport in TRANSPORTS:
                    rows = []
                    for _ in range(args.runs):
                        case = (url, transport, pair[0])
                        idle, _ = measure(folder / "layout", "empty", *case)
                        cpu, wall = measure(folder / "layout", "v1", *case)
                        rows.append((cpu - idle, wall))
                    cpu, wall = (statistics.median(column) for column in zip(*rows, strict=True))
                    tls = "yes" if certificate else "no"
                    wire = 4 / 3 if transport == "native" else 1
                    print(
                        f"{transport:<13} {tls:<5} {cpu / gb:>8.2f} {gb / wall:>6.2f} {wire:>12.2f}"
                    )


if __name__ == "__main__":
    main()
