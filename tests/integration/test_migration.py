"""200 images that share layers, from each kind of source to three registries at once, counted."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import boto3
import pytest
from fleet import KEYS, REGISTRIES, TWO, all_tags
from sourceproxy import source_proxy
from support import REGION, docker_registry_at, environment

from asyncpush import Pusher, PushItem, PushOptions, Registry
from asyncpush.localregistry import (
    DistributionOptions,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
    identity,
)
from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
REPOSITORIES, IMAGES = 5, 40
NAMES = [f"team/app{i}" for i in range(REPOSITORIES)]
# Into repositories of the source's names, or all of it into one.
SAME, ALL = "{source.repository}", NAMES[0]
BUCKET = "migration"
HOME = Registry(TWO, "us-west-2")
QUOTAS = {"PutImage": 5000, "InitiateLayerUpload": 5000, "CompleteLayerUpload": 5000}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By repository, layouts of 40 images: one layer is in all of them, and each has two of ten."""
    folder = tmp_path_factory.mktemp("migration")
    base = os.urandom(11 * MIB)
    found = {}
    for first, name in zip(range(0, 1000, IMAGES), NAMES, strict=False):
        writer = LayoutWriter(folder / name)
        large = writer.blob(base, mediatypes.OCI_LAYER)
        small = [writer.blob(os.urandom(200_000), mediatypes.OCI_LAYER) for _ in range(10)]
        pairs = itertools.combinations(small, 2)
        for number, pair in zip(range(first, first + IMAGES), pairs, strict=False):
            writer.entry(writer.image([large, *pair]), f"v{number}")
        found[name] = writer.close()
    return found


def blobs_of(layouts: dict[str, Path]) -> dict[str, int]:
    """The bytes of all distinct blobs that are no manifests, by digest without its algorithm."""
    manifests = {entry.digest for path in layouts.values() for entry in Layout(path).entries}
    return {
        file.name: file.stat().st_size
        for path in layouts.values()
        for file in (path / "blobs" / "sha256").iterdir()
        if f"sha256:{file.name}" not in manifests
    }


@asynccontextmanager
async def serving(store: Path, *, anonymous: bool = False) -> AsyncIterator[RunningRegistry]:
    """A registry of both APIs.

    :param anonymous: whether its /v2/ is anybody's.
    """
    settings = LocalRegistryOptions(
        distribution=DistributionOptions(anonymous_push=anonymous, blob_mounting=True),
        default_registry=identity.Registry(HOME.account, HOME.region) if anonymous else None,
    )
    async with LocalRegistry(store, list(KEYS.values()), settings).run() as server:
        for registry in (*REGISTRIES, HOME):
            for name in NAMES:
                await server.ensure_repository(registry.account, registry.region, name)
        yield server


async def fill(layouts: dict[str, Path], host: str, options: PushOptions) -> None:
    async with Pusher(options) as pusher:
        report = await pusher.push([PushItem(x, f"{host}/{name}") for name, x in layouts.items()])
    assert report.ok, [str(image.error) for image in report.failed]


@pytest.fixture(scope="module")
def local_source(tmp_path_factory: pytest.TempPathFactory, layouts: dict[str, Path]) -> Path:
    """The store of a local registry that has the images."""
    store = tmp_path_factory.mktemp("local-source") / "store"

    async def work() -> None:
        async with serving(store, anonymous=True) as server:
            await fill(layouts, f"docker://{server.url.removeprefix('http://')}", PushOptions())

    anyio.run(work)
    return store


@asynccontextmanager
async def source_at(
    kind: str, layouts: dict[str, Path], store: Path, folder: Path, moto: str
) -> AsyncIterator[str]:
    """Run a source that has the images; its address."""
    if kind == "s3":
        await anyio.to_thread.run_sync(upload, layouts, moto)
        yield moto.removeprefix("http://")
        return
    if kind == "docker-registry":
        with docker_registry_at(folder) as address:
            await fill(layouts, f"docker://{address}", PushOptions())
            yield address
        return
    async with serving(shutil.copytree(store, folder / "source"), anonymous=True) as server:
        yield server.url.removeprefix("http://")


def upload(layouts: dict[str, Path], moto: str) -> None:
    client = boto3.client(
        "s3",
        region_name=REGION,
        endpoint_url=moto,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for name, layout in layouts.items():
        for file in layout.rglob("*"):
            if file.is_file():
                key = f"{name}/{file.relative_to(layout)}"
                client.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())


class Migration:
    """The same job, run by the command line in processes of their own."""

    def __init__(
        self, folder: Path, kind: str, source: str, target: str, transport: str, repository: str
    ) -> None:
        self.tmp = folder / "tmp"
        self.tmp.mkdir()
        self.job = folder / "job.yaml"
        sources = [{"images": f"docker://{source}/{name}"} for name in NAMES]
        if kind == "ecr":
            sources = [{"images": f"{HOME.host}/{name}"} for name in NAMES]
        elif kind == "s3":
            sources = [{"layouts": f"s3://{BUCKET}/{name}"} for name in NAMES]
        self.job.write_text(
            json.dumps(
                {
                    "version": 1,
                    "quotas": QUOTAS,
                    "registries": [
                        *(
                            {
                                "name": registry.host,
                                "hosts": [registry.host],
                                "endpoint_url": target,
                                "transport": transport,
                                "profile": registry.account,
                            }
                            for registry in REGISTRIES
                        ),
                        {
                            "name": "source",
                            "hosts": [HOME.host],
                            "endpoint_url": f"http://{source}",
                            "profile": HOME.account,
                        },
                    ],
                    "sources": sources,
                    "targets": [
                        {
                            "registries": [registry.host for registry in REGISTRIES],
                            "repository": repository,
                        }
                    ],
                }
            )
        )
        credentials = folder / "credentials"
        credentials.write_text(
            "".join(
                f"[{account}]\naws_access_key_id={key.access_key_id}\n"
                f"aws_secret_access_key={key.secret_access_key}\n"
                for account, key in KEYS.items()
            )
        )
        self.env = environment(None) | {
            "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
            "DOCKER_CONFIG": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "TMPDIR": str(self.tmp),
            "AWS_ENDPOINT_URL_S3": f"http://{source}",
            "AWS_REGION": REGION,
        }

    async def run(self, command: str, *arguments: str) -> tuple[str, float]:
        """Run a command; what it printed, and its peak memory in MiB."""
        program = [sys.executable, "-c", _MEASURED, command, str(self.job), *arguments]
        done = await anyio.run_process(program, env=self.env, check=False)
        out, err = done.stdout.decode(), done.stderr.decode()
        assert done.returncode == 0, out + err
        *lines, peak = out.splitlines()
        return "\n".join(lines), int(peak) / 1024


# A child inherits ru_maxrss, so the process reads what it had itself.
_MEASURED = """
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


@pytest.mark.parametrize(
    ("kind", "transport", "repository"),
    [
        ("docker-registry", "auto", SAME),
        # Repositories that do not mount from one another each lack the shared layers.
        ("distribution", "native", ALL),
        ("ecr", "distribution", ALL),
        ("s3", "auto", ALL),
    ],
)
async def test_200_images_go_to_three_registries_and_are_read_once(
    tmp_path: Path,
    layouts: dict[str, Path],
    local_source: Path,
    moto: str,
    kind: str,
    transport: str,
    repository: str,
) -> None:
    blobs = blobs_of(layouts)

    def read() -> int:
        # In S3 manifests are blobs as well.
        return sum(count for digest, count in proxy.given.items() if digest in blobs)

    async with (
        source_at(kind, layouts, local_source, tmp_path, moto) as source,
        source_proxy(source) as proxy,
        serving(tmp_path / "targets") as server,
    ):
        migration = Migration(tmp_path, kind, proxy.address, server.url, transport, repository)
        untouched = migration.tmp.stat().st_mtime_ns
        out, peak = await migration.run("run", "--layers", "64", "--parts", "64")
        assert "600 images: 600 pushed" in out
        assert await all_tags(server, NAMES) == wanted(layouts, repository)
        unique = sum(blobs.values())
        assert unique <= read() <= 1.05 * unique
        assert peak < 300
        proxy.clear()
        out, _ = await migration.run("verify", "--deep")
        assert "600 images" in out
        assert read() == 0
        # Not even a file that is gone again.
        assert migration.tmp.stat().st_mtime_ns == untouched
        assert list(migration.tmp.iterdir()) == []


def wanted(layouts: dict[str, Path], repository: str) -> dict[str, dict[str, str]]:
    """The tags that all registries are to have, by repository."""
    found: dict[str, dict[str, str]] = {}
    for registry in REGISTRIES:
        for name in NAMES:
            found[f"{registry.host}/{name}"] = {}
        for name, path in layouts.items():
            tags = {str(entry.ref_name): str(entry.digest) for entry in Layout(path).entries}
            found[f"{registry.host}/{name if repository == SAME else repository}"] |= tags
    return found
