"""Peak memory of a copy with many layers in flight, from one registry to three at once.

    python benchmarks/copy_memory.py [--layers 64] [--mib 11] [--transport native ...]

Source and targets are local registries in processes of their own, so that the peak (VmHWM) is that
of ``asyncpush run`` alone. The limit that is printed is the formula of decision 23.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ACCOUNT = "111122223333"
KEY = {"access_key_id": "AKIDBENCHMARKS000000", "secret_access_key": "secret", "account": ACCOUNT}
HOSTS = [f"{ACCOUNT}.dkr.ecr.{r}.amazonaws.com" for r in ("eu-west-1", "us-east-1", "us-west-2")]
SOURCE = f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com"
MIB = 1024 * 1024
MEMORY = 128

MEASURED = """
import sys
from pathlib import Path
from asyncpush.cli.main import main
sys.argv = ["asyncpush", *sys.argv[1:]]
try:
    main()
except SystemExit as exc:
    if exc.code:
        raise
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    folder.mkdir(parents=True)
    (folder / "keys.json").write_text(json.dumps({"keys": [KEY]}))
    command = [sys.executable, "-m", "asyncpush", "serve", "--port", "0"]
    command += ["--root", str(folder / "store"), "--keys", str(folder / "keys.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def make_layout(folder: Path, layers: int, mib: int) -> Path:
    from asyncpush.oci import mediatypes
    from asyncpush.oci.writer import LayoutWriter

    writer = LayoutWriter(folder)
    stored = [writer.blob(os.urandom(mib * MIB), mediatypes.OCI_LAYER) for _ in range(layers)]
    for i, layer in enumerate(stored):
        writer.entry(writer.image([layer]), f"v{i}")
    return writer.close()


def job_of(
    path: Path, sources: list[dict[str, str]], hosts: list[str], urls: dict[str, str]
) -> Path:
    path.write_text(
        json.dumps(
            {
                "version": 1,
                "quotas": {"PutImage": 1000, "InitiateLayerUpload": 1000},
                "registries": [
                    {"name": host, "hosts": [host], "endpoint_url": url}
                    for host, url in urls.items()
                ],
                "sources": sources,
                "targets": [{"registries": hosts, "repository": "bench"}],
            }
        )
    )
    return path


def run(job: Path, folder: Path, *options: str) -> tuple[float, float]:
    """Run a job; seconds and peak MiB."""
    env = os.environ | {
        "AWS_ACCESS_KEY_ID": KEY["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": KEY["secret_access_key"],
        "XDG_STATE_HOME": str(folder / "state"),
    }
    begin = time.monotonic()
    command = [sys.executable, "-c", MEASURED, "run", str(job), "--create-repositories", *options]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.monotonic() - begin, int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=64)
    parser.add_argument("--mib", type=int, default=11)
    parser.add_argument("--transport", nargs="*", default=["native", "auto"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layout = make_layout(folder / "layout", arguments.layers, arguments.mib)
        with serving(folder / "source") as source:
            urls = {SOURCE: source}
            fill = job_of(folder / "fill.yaml", [{"layouts": str(layout)}], [SOURCE], urls)
            run(fill, folder)
            print("transport     registries  seconds  peak MiB  limit MiB")
            for transport in arguments.transport:
                for hosts in (HOSTS[:1], HOSTS):
                    with serving(folder / f"{transport}{len(hosts)}") as target:
                        urls = {SOURCE: source, **dict.fromkeys(hosts, target)}
                        images = [{"images": f"{SOURCE}/bench"}]
                        job = job_of(folder / "copy.yaml", images, hosts, urls)
                        slots = [
                            "--layers",
                            str(arguments.layers),
                            "--parts",
                            str(arguments.layers),
                        ]
                        slots += ["--images", str(arguments.layers), "--transport", transport]
                        seconds, peak = run(job, folder, *slots)
                    parts = min(arguments.layers * len(hosts) * 1.9, MEMORY)
                    limit = 60 + parts + MEMORY / 2 + arguments.layers
                    print(
                        f"{transport:<13} {len(hosts):<11} {seconds:<8.1f} {peak:<9.0f} {limit:.0f}"
                    )


if __name__ == "__main__":
    main()
