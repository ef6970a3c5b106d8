"""Images go from moto's S3 into registries, with nothing on the disk between them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import boto3
import pytest
import yaml
from s3proxy import Cut, Proxy, Request, proxy_to, upload
from support import HOST, KEY_ID, REGION, SECRET, Served, asyncpush, environment, error_lines
from tarfiles import archive_of

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions
from asyncpush.oci.layout import Layout

pytestmark = pytest.mark.anyio
BUCKET = "pushed"
LAYOUT = f"s3://{BUCKET}/team/layout"
ARCHIVE = f"oci-archive:s3://{BUCKET}/team/app.tar"


@pytest.fixture(scope="module")
def s3(moto: str, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The sample in a bucket, as a layout and as archives."""
    client = boto3.client(
        "s3",
        region_name=REGION,
        endpoint_url=moto,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    upload(client, BUCKET, sample, "team/layout")
    tar = archive_of(sample, tmp_path_factory.mktemp("tar") / "app.tar").read_bytes()
    client.put_object(Bucket=BUCKET, Key="team/app.tar", Body=tar)
    client.put_object(Bucket=BUCKET, Key="team/app.tar.gz", Body=gzip.compress(tar, 1))
    return client


@pytest.fixture
def proxy(moto: str, s3: Any) -> Iterator[Proxy]:
    with proxy_to(moto) as proxy:
        yield proxy


@pytest.fixture
def env(proxy: Proxy, registry: Served) -> dict[str, str]:
    """The environment of a command that has no place for a temporary file."""
    return environment(registry.url) | {
        "AWS_ENDPOINT_URL_S3": proxy.url,
        "AWS_REGION": REGION,
        "TMPDIR": "/nonexistent",
    }


def tags(layout: Path) -> dict[str, str]:
    return {entry.ref_name or "": entry.digest for entry in Layout(layout).entries}


def blob_bytes(proxy: Proxy) -> int:
    """Bytes of blobs that were asked for by range."""
    total = 0
    for request in proxy.asked("GET", "blobs/"):
        if reach := request.headers.get("range"):
            first, last = reach.removeprefix("bytes=").split("-")
            total += int(last) - int(first) + 1
    return total


@pytest.mark.parametrize("transport", ["native", "distribution"])
@pytest.mark.parametrize(("source", "name"), [(LAYOUT, "layout"), (ARCHIVE, "archive")])
def test_what_is_in_s3_arrives(
    registry: Served, sample: Path, env: dict[str, str], source: str, name: str, transport: str
) -> None:
    target = registry.create(f"s3-{name}-{transport}")
    command = ["copy", source, target, "--transport", transport, "--temp-space", "0", "--verify"]
    done = asyncpush(*command, env=env)
    assert done.returncode == 0, done.stderr
    assert registry.digests(f"s3-{name}-{transport}") == tags(sample)
    again = asyncpush("push", source, target, "--json", env=env)
    assert json.loads(again.stdout)["bytes_sent"] == 0


def test_an_archive_that_is_compressed_takes_the_space_that_is_granted(
    registry: Served, sample: Path, env: dict[str, str], tmp_path: Path
) -> None:
    target = registry.create("s3-packed")
    env["TMPDIR"] = str(tmp_path)
    done = asyncpush("push", f"{ARCHIVE}.gz", target, "--temp-space", "1", env=env)
    (line,) = error_lines(done)
    assert "--temp-space" in line
    assert f"s3://{BUCKET}/team/app.tar.gz" in line
    assert registry.digests("s3-packed") == {}
    done = asyncpush("push", f"{ARCHIVE}.gz", target, env=env)
    assert done.returncode == 0, done.stderr
    assert registry.digests("s3-packed") == tags(sample)
    assert list(tmp_path.iterdir()) == []


def test_every_command_takes_what_is_in_s3(
    registry: Served, sample: Path, env: dict[str, str], tmp_path: Path, proxy: Proxy
) -> None:
    name, digest = next(iter(tags(sample).items()))
    target = registry.create("s3-commands")
    shown = asyncpush("inspect", f"{LAYOUT}:{name}", "--json", env=env)
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert found["source"] == LAYOUT
    assert [entry["digest"] for entry in found["entries"]] == [digest]
    packed = asyncpush("inspect", f"{ARCHIVE}.gz", env=env | {"TMPDIR": str(tmp_path)})
    assert packed.returncode == 0, packed.stderr

    before = asyncpush("check", target, "--source", f"{LAYOUT}:{name}", env=env)
    assert before.returncode == 0, before.stdout + before.stderr
    foreseen = asyncpush("push", f"{LAYOUT}@{digest}", f"{target}:v9", "--dry-run", env=env)
    assert foreseen.returncode == 0, foreseen.stderr
    assert registry.digests("s3-commands") == {}

    lock = tmp_path / "lock.json"
    done = asyncpush("push", f"{LAYOUT}@{digest}", f"{target}:v9", "--lock", lock, env=env)
    assert done.returncode == 0, done.stderr
    assert registry.digests("s3-commands") == {"v9": digest}
    (image,) = json.loads(lock.read_text())["images"]
    assert image["source"] == LAYOUT
    assert asyncpush("run", lock, env=env).returncode == 4
    proven = asyncpush("verify", f"{LAYOUT}:{name}", f"{target}:v9", "--deep", env=env)
    assert proven.returncode == 0, proven.stdout + proven.stderr


def write_job(path: Path, **source: Any) -> Path:
    job = {
        "version": 1,
        "registries": [{"hosts": [HOST]}],
        "sources": [source],
        "targets": [{"repository": "from-{directory}"}],
    }
    path.write_text(yaml.safe_dump(job))
    return path


def test_a_job_reads_s3_with_its_sources_credentials(
    registry: Served, sample: Path, env: dict[str, str], tmp_path: Path, proxy: Proxy
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile reader]\naws_access_key_id = AKIDREADERSOWN000000\naws_secret_access_key = r\n"
    )
    env["AWS_CONFIG_FILE"] = str(config)
    registry.create("from-layout")
    registry.create("from-app")
    job = write_job(tmp_path / "job.yaml", layouts=[f"{LAYOUT}", f"{ARCHIVE}"], profile="reader")
    lock = tmp_path / "lock.json"
    done = asyncpush("run", job, "--lock", lock, env=env)
    assert done.returncode == 0, done.stderr
    assert registry.digests("from-layout") == registry.digests("from-app") == tags(sample)
    assert asyncpush("plan", job, "--from-lock", lock, env=env).returncode == 0
    signed = {r.headers["authorization"].split("Credential=")[1][:20] for r in proxy.requests}
    assert signed == {"AKIDREADERSOWN000000"}

    proxy.requests.clear()
    command = ["push", f"{LAYOUT}", f"{HOST}/from-layout", "--source-profile", "reader"]
    assert asyncpush(*command, env=env).returncode == 0
    signed = {r.headers["authorization"].split("Credential=")[1][:20] for r in proxy.requests}
    assert signed == {"AKIDREADERSOWN000000"}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"layouts": "docker://host/team/app"}, "write images: instead of layouts:"),
        ({"images": f"{LAYOUT}"}, "write layouts: instead of images:"),
        ({"layouts": f"s3://{BUCKET}/team/*"}, "list the prefixes"),
        ({"layouts": "s3://B!D/team"}, "invalid bucket name"),
        ({"layouts": "missing", "profile": "p"}, "read without AWS credentials"),
    ],
)
def test_a_job_says_what_belongs_where(
    env: dict[str, str], tmp_path: Path, source: dict[str, Any], words: str
) -> None:
    done = asyncpush("plan", write_job(tmp_path / "job.yaml", **source), env=env)
    assert done.returncode == 2
    (line,) = error_lines(done)
    assert words in line


async def pushed(proxy: Proxy, registry: Served, patch: pytest.MonkeyPatch, *targets: str) -> Any:
    """Push the layout in this process."""
    patch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    patch.setenv("AWS_REGION", REGION)
    patch.setenv("DOCKER_CONFIG", "/nonexistent")
    patch.setenv("TMPDIR", "/nonexistent")
    aws = AwsOptions(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=registry.url)
    options = PushOptions(aws=aws, retry_base=0.001, temp_space=0)
    with anyio.fail_after(50):
        async with Pusher(options) as pusher:
            return await pusher.push([PushItem(LAYOUT, target) for target in targets])


def blobs_of(sample: Path) -> int:
    """Bytes of all blobs that are no manifests."""
    done = asyncpush("inspect", sample, "--json", env=environment(None, ""))
    sizes: dict[str, int] = {}

    def walk(node: dict[str, Any]) -> None:
        for child in (*node.get("manifests", ()), node.get("config"), *node.get("layers", ())):
            if child is not None:
                if "config" not in child and "manifests" not in child and not child.get("foreign"):
                    sizes[child["digest"]] = child["size"]
                walk(child)

    for entry in json.loads(done.stdout)["entries"]:
        walk(entry)
    return sum(sizes.values())


async def test_bytes_are_read_once_for_two_registries(
    proxy: Proxy,
    registry: Served,
    docker_registry: str,
    sample: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    targets = [registry.create("s3-once"), f"docker://{docker_registry}/s3-once"]
    report = await pushed(proxy, registry, monkeypatch, *targets)
    assert report.ok, [str(image.error) for image in report.failed]
    expected = await anyio.to_thread.run_sync(blobs_of, sample)
    assert expected > 1_000_000
    assert expected <= blob_bytes(proxy) <= 1.05 * expected
    assert len(proxy.asked("GET", "index.json")) == 1


def cutting(times: int, least: int) -> Callable[[Request], Cut | None]:
    """Cuts the first answers that are large behind some of their bytes."""
    left = [100_000 + 7_777 * number for number in range(times)]

    def fault(request: Request) -> Cut | None:
        reach = request.headers.get("range", "bytes=0-0").removeprefix("bytes=").split("-")
        large = "blobs/" in request.path and int(reach[1]) - int(reach[0]) >= least
        return Cut(left.pop()) if left and large else None

    return fault


async def test_a_connection_that_breaks_goes_on_by_range(
    proxy: Proxy, registry: Served, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.fault = cutting(3, 500_000)
    report = await pushed(proxy, registry, monkeypatch, registry.create("s3-cut"))
    assert report.ok, [str(image.error) for image in report.failed]
    digests = await anyio.to_thread.run_sync(partial(registry.digests, "s3-cut"))
    assert digests == tags(sample)
    starts = [
        int(request.headers["range"].removeprefix("bytes=").split("-")[0])
        for request in proxy.asked("GET", "blobs/")
        if "range" in request.headers
    ]
    assert sum(start > 0 for start in starts) >= 3
