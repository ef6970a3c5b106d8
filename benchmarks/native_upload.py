"""Client CPU and memory of uploads over ECR's API: the floor, plain aiobotocore, asyncpush.

    python benchmarks/native_upload.py [--gib 1.25] [--runs 3]

Every client runs in a process of its own against the same discarding server on loopback, in turn,
so that all figures come from one run. CPU is user and system time from behind the imports to the
end, per GB (10^9 bytes) of layers; memory is the process's peak resident set. The floor is what the
protocol asks for and nothing else: read, encode and hash every part, then read, encode and send it,
on two threads with plain sockets.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

LAYER = 20 * 1024 * 1024
PART = 10 * 1024 * 1024
PIECE = 192 * 1024
ACCOUNT = "111122223333"
TARGET = f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com/bench:v1"


def make_corpus(root: Path, layers: int) -> None:
    from asyncpush.oci import mediatypes
    from asyncpush.oci.writer import LayoutWriter

    writer = LayoutWriter(root)
    stored = [writer.blob(os.urandom(LAYER), mediatypes.OCI_LAYER) for _ in range(layers)]
    writer.entry(writer.image(stored), "v1")
    writer.close()


def layer_files(root: Path) -> list[Path]:
    return [p for p in (root / "blobs" / "sha256").iterdir() if p.stat().st_size == LAYER]


def floor(root: Path, port: int) -> None:
    """Two threads: hash a part piece by piece, then send it piece by piece."""
    import pybase64

    files = layer_files(root)
    lock = threading.Lock()

    def pieces(fd: int, offset: int, length: int, view: memoryview) -> Iterator[bytes]:
        end = offset + length
        for at in range(offset, end, PIECE):
            part = view[: min(PIECE, end - at)]
            os.preadv(fd, [part], at)
            yield pybase64.b64encode(part)

    def work() -> None:
        connection = socket.create_connection(("127.0.0.1", port))
        view = memoryview(bytearray(PIECE))
        while True:
            with lock:
                if not files:
                    break
                path = files.pop()
            fd = os.open(path, os.O_RDONLY)
            for offset in range(0, LAYER, PART):
                last = offset + PART - 1
                head = b'{"partLastByte": %d, "layerPartBlob": "' % last
                digest = hashlib.sha256(head)
                for text in pieces(fd, offset, PART, view):
                    digest.update(text)
                digest.update(b'"}')
                length = len(head) + -(-PART // 3) * 4 + 2
                connection.sendall(
                    b"POST / HTTP/1.1\r\nX-Amz-Target: A.UploadLayerPart\r\n"
                    b"X-Amz-Content-SHA256: %s\r\nContent-Length: %d\r\n\r\n"
                    % (digest.hexdigest().encode(), length)
                    + head
                )
                for text in pieces(fd, offset, PART, view):
                    connection.sendall(text)
                connection.sendall(b'"}')
                connection.recv(65536)
            os.close(fd)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def plain(root: Path, port: int, parts: int) -> None:
    """aiobotocore's own upload_layer_part, with whole parts in memory."""
    import anyio
    from aiobotocore.session import get_session

    async def main() -> None:
        pending = iter(layer_files(root))
        async with get_session().create_client(
            "ecr", region_name="eu-central-1", endpoint_url=f"http://127.0.0.1:{port}"
        ) as client:

            async def worker() -> None:
                for path in pending:
                    names = {"registryId": ACCOUNT, "repositoryName": "bench"}
                    upload = await client.initiate_layer_upload(**names)
                    for offset in range(0, LAYER, PART):
                        with path.open("rb") as file:
                            data = os.pread(file.fileno(), PART, offset)
                        await client.upload_layer_part(
                            **names,
                            uploadId=upload["uploadId"],
                            partFirstByte=offset,
                            partLastByte=offset + PART - 1,
                            layerPartBlob=data,
                        )
                    await client.complete_layer_upload(
                        **names,
                        uploadId=upload["uploadId"],
                        layerDigests=[f"sha256:{path.name}"],
                    )

            async with anyio.create_task_group() as tasks:
                for _ in range(parts):
                    tasks.start_soon(worker)

    anyio.run(main, backend_options={"use_uvloop": True})


def ours(root: Path, port: int, parts: int) -> None:
    """The whole of asyncpush: plan, availability, uploads, manifest."""
    import anyio

    from asyncpush import AwsOptions, Pusher, PushItem, PushOptions

    async def main() -> None:
        options = PushOptions(
            layers=parts,
            parts=parts,
            connections=parts,
            aws=AwsOptions(endpoint_url=f"http://127.0.0.1:{port}"),
        )
        async with Pusher(options) as pusher:
            report = await pusher.push([PushItem(root, TARGET)])
        assert report.ok, [str(image.error) for image in report.failed]
        assert report.bytes_sent >= LAYER * len(layer_files(root))

    anyio.run(main, backend_options={"use_uvloop": True})


def run_client(args: argparse.Namespace) -> None:
    """In the measured process: import, measure, print."""
    if args.client != "floor":
        import aiobotocore.session  # noqa: F401
        import anyio  # noqa: F401

        if args.client == "asyncpush":
            import asyncpush  # noqa: F401
    begin = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF)
    root = Path(args.root)
    if args.client == "floor":
        floor(root, args.port)
    elif args.client == "plain":
        plain(root, args.port, args.parts)
    else:
        ours(root, args.port, args.parts)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    # VmHWM, and not ru_maxrss, which a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"cpu": cpu, "wall": time.monotonic() - begin, "peak_mib": peak}))


@contextlib.contextmanager
def discarding_server() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("discard.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        assert server.stdin is not None
        server.stdin.close()


def measure(root: Path, port: int, client: str, parts: int) -> dict[str, float]:
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "AKIDBENCH",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    command = [sys.executable, __file__, "--client", client, "--parts", str(parts)]
    command += ["--root", str(root), "--port", str(port)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=1.25, help="size of the corpus")
    parser.add_argument("--runs", type=int, default=3, help="runs of each client")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--parts", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        run_client(args)
        return
    cases = [("floor", 2), ("plain", 16)] + [("asyncpush", n) for n in (1, 4, 16, 64)]
    layers = max(64, round(args.gib * 1024**3 / LAYER))
    with tempfile.TemporaryDirectory() as folder, discarding_server() as port:
        root = Path(folder)
        make_corpus(root, layers)
        gb = layers * LAYER / 1e9
        print(f"{gb:.2f} GB in {layers} layers, {args.runs} runs each, medians\n")
        figures: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in cases}
        for _ in range(args.runs):
            for case in cases:
                figures[case].append(measure(root, port, *case))

        def median(case: tuple[str, int], key: str) -> float:
            return statistics.median(run[key] for run in figures[case])

        base = median(cases[0], "cpu")
        print("client       in flight   CPU s/GB   x floor   GB/s    peak MiB")
        for case in cases:
            cpu, wall, peak = (median(case, key) for key in ("cpu", "wall", "peak_mib"))
            print(
                f"{case[0]:<12} {case[1]:>9} {cpu / gb:>10.2f} {cpu / base:>9.2f}"
                f" {gb / wall:>6.2f} {peak:>11.0f}"
            )


if __name__ == "__main__":
    main()
