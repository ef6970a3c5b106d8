"""Copies between registries: asyncpush beside skopeo sync, crane copy and regsync.

    python benchmarks/copy.py [--quick] [--runs 3] [--json FILE] [--clients asyncpush,crane]

Two cases go from one of Debian's docker-registry to another, on loopback and over a link with a
round trip and a rate for each connection (link.py), on both sides: one repository of 15 tags and
51 MiB in all, and 40 repositories that share layers. A third, of 640 MiB, is for CPU alone. Each
program copies into an empty registry, and then again, when there is nothing to do. The programs
take turns; those that are not on PATH are left out.

Seconds are those of the whole process, start-up included, and so is CPU, per GB (10^9 bytes) of
distinct layers. Requests are counted on the link. Beside the program's CPU seconds are those of the
link and of both registries: while their sum is well below twice the wall, two processors are not
the limit.

The limit is what the link allows at all: the largest layer at the rate of a connection, and the
round trips that follow from each other whatever a client does (see ROUND_TRIPS). Opening
connections and starting a process are not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distribution import docker_registry

MIB = 1024 * 1024
LINK = Path(__file__).with_name("link.py")
# The list of tags (which many repositories with named tags do not need); the tag's manifest; the
# request for the layer, beside which the upload is opened; the answer to the last of its bytes; the
# manifest's answer.
ROUND_TRIPS = {"one": 5, "many": 4, "large": 5}
CLIENTS = ("asyncpush", "crane", "crane -j 16", "regsync", "skopeo sync")
PROGRAMS = {"crane": "crane", "crane -j 16": "crane", "regsync": "regsync", "skopeo sync": "skopeo"}


@dataclass(frozen=True, slots=True)
class Case:
    """What is copied.

    :param repositories: names, with the layout's entries that each of them has.
    :param size: bytes of all distinct layers; ``largest`` is the largest one.
    """

    name: str
    repositories: dict[str, list[str]]
    size: int
    largest: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run of one program.

    :param wall: seconds.
    :param cpu: of the program; ``link_cpu`` and ``server_cpu`` of the others meanwhile.
    :param peak: bytes of memory that the program (or the largest of its processes) held at most.
    :param requests: to source and target; None where nothing counts them.
    """

    wall: float
    cpu: float
    peak: int
    link_cpu: float
    server_cpu: float
    requests: tuple[int, int] | None
    received: int | None


def make_one(root: Path, quick: bool) -> Case:
    """15 tags: a layer of 8 MiB that all have, three of 5 MiB that five have, one of their own."""
    from asyncpush.oci import mediatypes
    from asyncpush.oci.writer import LayoutWriter

    unit = MIB // 8 if quick else MIB
    writer = LayoutWriter(root)
    kind = mediatypes.OCI_LAYER_GZIP
    base = writer.blob(os.urandom(8 * unit), kind)
    middle = [writer.blob(os.urandom(5 * unit), kind) for _ in range(3)]
    names = [f"v{number:02}" for number in range(15)]
    for number, name in enumerate(names):
        own = writer.blob(os.urandom(28 * unit // 15), kind)
        image = writer.image([base, middle[number % 3], own])
        # A third are indexes, as most public images are.
        writer.entry(writer.index([_for_platform(image)]) if number % 3 == 0 else image, name)
    writer.close()
    return Case("one", {"bench/one": names}, 51 * unit, 8 * unit)


def make_many(root: Path, quick: bool) -> Case:
    """40 repositories: layers of 4, 2, 1 and 1 MiB that all have, and 512 KiB of their own."""
    from asyncpush.oci import mediatypes
    from asyncpush.oci.writer import LayoutWriter

    count, unit = (8, MIB // 8) if quick else (40, MIB)
    writer = LayoutWriter(root)
    kind = mediatypes.OCI_LAYER_GZIP
    shared = [writer.blob(os.urandom(part * unit), kind) for part in (4, 2, 1, 1)]
    repositories = {}
    for number in range(count):
        name = f"app{number:02}"
        own = writer.blob(os.urandom(unit // 2), kind)
        writer.entry(writer.image([*shared, own]), name)
        repositories[f"bench/{name}"] = [name]
    writer.close()
    return Case("many", repositories, 8 * unit + count * unit // 2, 4 * unit)


def make_large(root: Path, quick: bool) -> Case:
    """One tag of 32 layers of 20 MiB, whose bytes outweigh what starting a process costs."""
    from asyncpush.oci import mediatypes
    from asyncpush.oci.writer import LayoutWriter

    count, size = (4 if quick else 32), 20 * MIB
    writer = LayoutWriter(root)
    layers = [writer.blob(os.urandom(size), mediatypes.OCI_LAYER_GZIP) for _ in range(count)]
    writer.entry(writer.image(layers), "v1")
    writer.close()
    return Case("large", {"bench/large": ["v1"]}, count * size, size)


def _for_platform(image: dict[str, Any]) -> dict[str, Any]:
    return {**image, "platform": {"os": "linux", "architecture": "amd64"}}


def commands(client: str, case: Case, source: str, target: str, folder: Path) -> list[list[str]]:
    """What a user runs; one after the other, where a program copies one repository at a time."""
    alone = len(case.repositories) == 1
    if client == "asyncpush":
        base = [sys.executable, "-m", "asyncpush"]
        if alone:
            (name,) = case.repositories
            return [[*base, "copy", "-q", f"docker://{source}/{name}", f"docker://{target}/{name}"]]
        job = folder / "job.yaml"
        images = [
            f"docker://{source}/{name}:{t}" for name, ts in case.repositories.items() for t in ts
        ]
        document = {
            "version": 1,
            "registries": [{"hosts": [f"docker://{target}"]}],
            "sources": [{"images": images}],
            "targets": [{"repository": "{source.repository}"}],
        }
        job.write_text(json.dumps(document))
        return [[*base, "run", "-q", str(job)]]
    if client.startswith("crane"):
        jobs = ["-j", "16"] if client == "crane -j 16" else []
        if alone:
            (name,) = case.repositories
            return [
                ["crane", "copy", "--insecure", "-a", *jobs, f"{source}/{name}", f"{target}/{name}"]
            ]
        return [
            [
                "crane",
                "copy",
                "--insecure",
                *jobs,
                f"{source}/{name}:{tag}",
                f"{target}/{name}:{tag}",
            ]
            for name, tags in case.repositories.items()
            for tag in tags
        ]
    if client == "regsync":
        config = folder / "regsync.yaml"
        whole = alone
        sync = [
            {
                "source": f"{source}/{name}" if whole else f"{source}/{name}:{tags[0]}",
                "target": f"{target}/{name}" if whole else f"{target}/{name}:{tags[0]}",
                "type": "repository" if whole else "image",
            }
            for name, tags in case.repositories.items()
        ]
        creds = [{"registry": host, "tls": "disabled"} for host in (source, target)]
        config.write_text(json.dumps({"version": 1, "creds": creds, "sync": sync}))
        return [["regsync", "once", "-c", str(config), "-v", "error"]]
    base = ["skopeo", "sync", "--insecure-policy", "--all", "--preserve-digests"]
    base += ["--src-tls-verify=false", "--dest-tls-verify=false", "--dest", "docker"]
    if alone:
        (name,) = case.repositories
        return [[*base, "--src", "docker", f"{source}/{name}", f"{target}/bench"]]
    config = folder / "skopeo.yaml"
    config.write_text(json.dumps({source: {"tls-verify": False, "images": case.repositories}}))
    return [[*base, "--src", "yaml", str(config), f"{target}/bench"]]


def run(command: list[str], environment: dict[str, str], good: Sequence[int]) -> tuple[float, int]:
    """CPU seconds and peak bytes of a process."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment
        )
        peak, status, usage = 0, 0, None
        while usage is None:
            # Not ru_maxrss, which begins with what the parent holds.
            with contextlib.suppress(OSError, IndexError):
                text = Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, int(text.split("VmHWM:")[1].split()[0]) * 1024)
            found, status, told = os.wait4(process.pid, os.WNOHANG)
            if found:
                usage = told
            else:
                time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in good:
            said.seek(0)
            raise SystemExit(
                f"{command[0]} failed with {process.returncode}: {said.read()[-2000:]}"
            )
    return usage.ru_utime + usage.ru_stime, peak


def cpu_of(pid: int) -> float:
    """CPU seconds of a process that runs, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class LinkProcess:
    """The proxy between the clients and the registries; see link.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    @contextlib.contextmanager
    def between(
        cls, source: str, target: str, round_trip: float, rate: float
    ) -> Iterator[tuple[LinkProcess, str, str]]:
        """A link; where source and target are reached through it.

        :param round_trip: seconds.
        :param rate: bytes a second.
        """
        command = [sys.executable, str(LINK), "--round-trip-ms", str(round_trip * 1000)]
        command += ["--mb-per-second", str(rate / 1e6)]
        command += [f"source={source.split(':')[1]}", f"target={target.split(':')[1]}"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            ports = json.loads(process.stdout.readline())
            try:
                yield (
                    cls(process),
                    f"127.0.0.1:{ports['source']}",
                    f"127.0.0.1:{ports['target']}",
                )
            finally:
                assert process.stdin is not None
                process.stdin.close()

    def counts(self) -> dict[str, Any]:
        """Requests and bytes since the last time, and CPU seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        counts: dict[str, Any] = json.loads(self._process.stdout.readline())
        return counts


def measure(
    client: str,
    case: Case,
    hosts: tuple[str, str],
    link: LinkProcess | None,
    servers: Sequence[int],
    folder: Path,
) -> Figures:
    """Copy once."""
    # An installed package has its bytecode, and so must this one.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder),
        "DOCKER_CONFIG": str(folder),
    }
    todo = commands(client, case, *hosts, folder)
    before = sum(map(cpu_of, servers))
    if link is not None:
        link.counts()
    begin = time.monotonic()
    # Exit code 4 of `asyncpush run`: all of it was there before.
    good = (0, 4) if client == "asyncpush" else (0,)
    used = [run(command, environment, good) for command in todo]
    wall = time.monotonic() - begin
    counts = link.counts() if link is not None else None
    return Figures(
        wall=wall,
        cpu=sum(cpu for cpu, _ in used),
        peak=max(peak for _, peak in used),
        link_cpu=counts["cpu"] if counts else 0.0,
        server_cpu=sum(map(cpu_of, servers)) - before,
        requests=(counts["source"][0], counts["target"][0]) if counts else None,
        received=counts["source"][1] if counts else None,
    )


def check(case: Case, target: str) -> None:
    """Make sure that a program has copied all of it."""
    import urllib.request

    for name, tags in case.repositories.items():
        with urllib.request.urlopen(f"http://{target}/v2/{name}/tags/list", timeout=10) as answer:
            found = json.load(answer)["tags"]
        if sorted(found) != sorted(tags):
            raise SystemExit(f"{name} has the tags {found} instead of {tags}")


def registry_pid(host: str) -> int:
    """The process that listens at an address."""
    port = f":{int(host.rpartition(':')[2]):04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == "0A"}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            if any(str(entry.readlink()) in inodes for entry in folder.iterdir()):
                return int(folder.parent.name)
    raise SystemExit(f"no process listens at {host}")


def versions() -> dict[str, str]:
    """Of everything that is measured."""
    found = {"python": platform.python_version()}
    for name in ("asyncpush", "aiohttp", "anyio", "uvloop"):
        found[name] = importlib.metadata.version(name)
    for name, command in {
        "docker-registry": ["docker-registry", "--version"],
        "skopeo": ["skopeo", "--version"],
        "crane": ["crane", "version"],
        "regsync": ["regsync", "version", "--format", "{{.VCSTag}}"],
    }.items():
        if shutil.which(name):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found[name] = (done.stdout or done.stderr).strip().splitlines()[0].split(" ")[-1]
    for name in ("crane", "regsync"):
        # What was built by go install says no version by itself.
        if name in found and shutil.which("go"):
            where = shutil.which(name)
            done = subprocess.run(
                ["go", "version", "-m", str(where)], capture_output=True, text=True, check=False
            )
            told = [line.split() for line in done.stdout.splitlines()]
            found[name] = next((row[2] for row in told if row[:1] == ["mod"]), found[name])
    return found


def machine() -> dict[str, Any]:
    """Where it is measured."""
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "model": model,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3, 1),
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="runs of each program")
    parser.add_argument("--quick", action="store_true", help="little of everything, one run")
    parser.add_argument("--round-trip-ms", type=float, default=50)
    parser.add_argument("--mb-per-second", type=float, default=4, help="of each connection")
    parser.add_argument("--clients", default=",".join(CLIENTS), help="left out: all")
    parser.add_argument("--cases", default="one,many,large")
    parser.add_argument("--places", default="loopback,link")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    args = parser.parse_args()
    runs = 1 if args.quick else args.runs
    round_trip, rate = args.round_trip_ms / 1000, args.mb_per_second * 1e6
    chosen = args.clients.split(",")
    missing = [c for c in chosen if c in PROGRAMS and not shutil.which(PROGRAMS[c])]
    clients = [client for client in chosen if client not in missing]
    for client in missing:
        print(f"left out: {client}, which is not on PATH")
    results: dict[str, Any] = {"machine": machine(), "versions": versions(), "missing": missing}
    results |= {"round_trip_ms": args.round_trip_ms, "mb_per_second": args.mb_per_second}
    results |= {"runs": runs, "cases": []}
    print(", ".join(f"{name} {value}" for name, value in results["versions"].items()))
    print(", ".join(f"{name} {value}" for name, value in results["machine"].items()), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for make, key in ((make_one, "one"), (make_many, "many"), (make_large, "large")):
            if key not in args.cases.split(","):
                continue
            case = make(folder / f"layout-{key}", args.quick)
            store = folder / f"source-{key}"
            store.mkdir()
            with docker_registry(store) as source:
                fill(case, folder / f"layout-{key}", source)
                for place in args.places.split(","):
                    if (key, place) == ("large", "link"):
                        continue  # It is for CPU alone.
                    slow = (round_trip, rate) if place == "link" else None
                    rows = compare(case, clients, source, slow, runs, folder)
                    results["cases"].append(show(case, place, rows, round_trip, rate))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def fill(case: Case, layout: Path, source: str) -> None:
    """Push a case into the source, which nothing measures."""
    for name, tags in case.repositories.items():
        what = [str(layout)] if len(case.repositories) == 1 else [f"{layout}:{tag}" for tag in tags]
        command = [sys.executable, "-m", "asyncpush", "push", "-q", "--no-journal"]
        subprocess.run([*command, *what, f"docker://{source}/{name}"], check=True)


def compare(
    case: Case,
    clients: Sequence[str],
    source: str,
    slow: tuple[float, float] | None,
    runs: int,
    folder: Path,
) -> dict[tuple[str, str], list[Figures]]:
    """All programs in turn, as often as asked: cold, and again with nothing to do."""
    rows: dict[tuple[str, str], list[Figures]] = {}
    for _ in range(runs):
        for client in clients:
            with tempfile.TemporaryDirectory(dir=folder) as name, contextlib.ExitStack() as stack:
                state = Path(name)
                target = stack.enter_context(docker_registry(state))
                servers = [registry_pid(source), registry_pid(target)]
                link, hosts = None, (source, target)
                if slow is not None:
                    link, *through = stack.enter_context(LinkProcess.between(source, target, *slow))
                    hosts = (through[0], through[1])
                for kind in ("cold", "nothing to do"):
                    figures = measure(client, case, hosts, link, servers, state)
                    rows.setdefault((client, kind), []).append(figures)
                    check(case, target)
    return rows


def show(
    case: Case,
    place: str,
    rows: dict[tuple[str, str], list[Figures]],
    round_trip: float,
    rate: float,
) -> dict[str, Any]:
    """Print a table of medians; all of it as data."""
    limit = case.largest / rate + ROUND_TRIPS[case.name] * round_trip
    tags = sum(map(len, case.repositories.values()))
    print(
        f"\n{place}: {len(case.repositories)} repositories, {tags} tags,"
        f" {case.size / MIB:.0f} MiB of distinct layers"
    )
    if place == "link":
        print(
            f"limit of the link: {case.largest / 1e6:.2f} MB / {rate / 1e6:g} MB/s"
            f" + {ROUND_TRIPS[case.name]} x {round_trip * 1000:g} ms = {limit:.2f} s"
        )
    print(
        "program      what           wall s  x limit  CPU s  CPU s/GB  peak MiB  requests"
        "   link  servers"
    )
    found = []
    for (client, kind), runs in rows.items():
        middle = {
            key: statistics.median(getattr(figures, key) for figures in runs)
            for key in ("wall", "cpu", "peak", "link_cpu", "server_cpu")
        }
        cold = kind == "cold"
        beside = f"{middle['wall'] / limit:.2f}" if place == "link" and cold else ""
        each = f"{middle['cpu'] / (case.size / 1e9):.2f}" if cold else ""
        asked = [sum(figures.requests) for figures in runs if figures.requests]
        requests = f"{statistics.median(asked):.0f}" if asked else ""
        print(
            f"{client:<12} {kind:<14} {middle['wall']:>6.2f} {beside:>8} {middle['cpu']:>6.2f}"
            f" {each:>9} {middle['peak'] / MIB:>9.0f} {requests:>9} {middle['link_cpu']:>6.2f}"
            f" {middle['server_cpu']:>8.2f}",
            flush=True,
        )
        found.append(
            {"client": client, "what": kind, "runs": [dataclasses.asdict(r) for r in runs]}
        )
    return {
        "case": case.name,
        "place": place,
        "repositories": len(case.repositories),
        "tags": tags,
        "bytes": case.size,
        "limit": limit if place == "link" else None,
        "programs": found,
    }


if __name__ == "__main__":
    main()
