"""Where images of a migration are: registries of others, another account, a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import boto3
from moto.server import ThreadedMotoServer
from s3proxy import upload
from support import REGION
from world import ACCOUNTS, REGIONS, World, write_layout

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions
from asyncpush.localregistry.distribution_options import PLAIN_REGISTRY
from asyncpush.localregistry.options import LocalRegistryOptions
from asyncpush.testing import LocalEcr, LocalEcrSettings

HOSTS = ("harbor.example", "docker.io")
"""The registries of others that a page may name; one registry stands in for all of them."""
BUCKET = "migration-images"


@contextmanager
def elsewhere(folder: Path, reader: World) -> Iterator[str]:
    """Serve what the page about migrations reads; the address of the registry for :data:`HOSTS`."""
    settings = LocalEcrSettings(options=LocalRegistryOptions(distribution=PLAIN_REGISTRY))
    with LocalEcr.running(folder / "elsewhere", settings) as other:
        address = other.url.removeprefix("http://")
        for name in ("app", "web"):
            _push(reader.folder / "layouts" / name, f"docker://{address}/team/{name}")
        alpine = folder / "alpine"
        write_layout(alpine, ("3.19", "3.20", "3.22"))
        _push(alpine, f"docker://{address}/library/alpine")
        role = reader.role(ACCOUNTS[2])
        host = f"{ACCOUNTS[2]}.dkr.ecr.{REGIONS[1]}.amazonaws.com"
        _push(reader.folder / "layouts" / "db", f"{host}/team/db", role)
        server = ThreadedMotoServer("127.0.0.1", 0)
        server.start()
        try:
            url = "http://{}:{}".format(*server.get_host_and_port())
            _fill(url, reader.folder)
            reader.environment |= {"AWS_ENDPOINT_URL_S3": url}
            yield address
        finally:
            server.stop()


def _push(layout: Path, target: str, aws: AwsOptions | None = None) -> None:
    async def push() -> None:
        async with Pusher(PushOptions(aws=aws or AwsOptions())) as pusher:
            report = await pusher.push([PushItem(layout, target)])
        assert report.ok, [str(image.error) for image in report.failed]

    anyio.run(push)


def _fill(url: str, folder: Path) -> None:
    s3 = boto3.client(
        "s3",
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    upload(s3, BUCKET, folder / "layouts" / "web", "layouts/web")
    s3.put_object(Bucket=BUCKET, Key="app.tar", Body=(folder / "app.tar").read_bytes())
