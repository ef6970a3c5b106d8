"""120 images from repositories to others of the same registry: all mounted, no layer byte moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import boto3
import pytest
from fleet import write_layouts
from support import (
    ACCOUNT,
    HOST,
    KEY_ID,
    REGION,
    SECRET,
    asyncpush,
    docker_registry_at,
    environment,
)

from asyncpush import AwsOptions, Event, Pusher, PushItem, PushOptions, PushReport, Warned
from asyncpush.localregistry import (
    DistributionOptions,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
    identity,
)
from asyncpush.oci.layout import Layout

pytestmark = pytest.mark.anyio

AS_ECR = DistributionOptions(mounting="ecr", blob_mounting=True)
REPOSITORIES, IMAGES = 20, 6
# What moves bytes of layers, or would.
MOVES = ("v2.GetBlob", "v2.StartUpload", "InitiateLayerUpload", "UploadLayerPart", "v2.PutUpload")
DUAL_STACK = f"{ACCOUNT}.dkr-ecr.{REGION}.on.aws"


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """20 layouts of 6 images each; one layer is in all of them."""
    return write_layouts(tmp_path_factory.mktemp("dev"), REPOSITORIES, IMAGES)


def options_of(server: RunningRegistry, transport: str | None, **options: Any) -> PushOptions:
    aws = AwsOptions(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=server.url)
    quotas = {"PutImage": 1000, "InitiateLayerUpload": 1000, "CompleteLayerUpload": 1000}
    return PushOptions(aws=aws, quotas=quotas, transport=transport, **options)  # type: ignore[arg-type]


@asynccontextmanager
async def serving(
    store: Path, distribution: DistributionOptions = AS_ECR
) -> AsyncIterator[RunningRegistry]:
    home = identity.Registry(ACCOUNT, REGION)
    settings = LocalRegistryOptions(distribution=distribution, default_registry=home)
    async with LocalRegistry(store, [Key(KEY_ID, SECRET, ACCOUNT)], settings).run() as server:
        yield server


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, layouts: list[Path]) -> Path:
    """The store of a registry that has the layouts as ``dev/...``, and ``prod/...`` empty."""
    store = tmp_path_factory.mktemp("filled") / "store"

    async def fill() -> None:
        async with serving(store) as server:
            for layout in layouts:
                await server.ensure_repository(ACCOUNT, REGION, f"dev/{layout.name}")
                await server.ensure_repository(ACCOUNT, REGION, f"prod/{layout.name}")
            async with Pusher(options_of(server, "distribution")) as pusher:
                items = [PushItem(x, f"{HOST}/dev/{x.name}") for x in layouts]
                assert (await pusher.push(items)).ok

    anyio.run(fill)
    return store


@pytest.fixture
def store(tmp_path: Path, filled: Path) -> Path:
    """That store, to be written to."""
    return shutil.copytree(filled, tmp_path / "store")


def promotion(layouts: Sequence[Path], target: str = HOST) -> list[PushItem]:
    return [PushItem(f"{HOST}/dev/{x.name}", f"{target}/prod/{x.name}") for x in layouts]


async def assert_promoted(server: RunningRegistry, layouts: Sequence[Path]) -> None:
    for layout in layouts:
        tags = await server.tags(ACCOUNT, REGION, f"prod/{layout.name}")
        assert tags == {entry.ref_name: entry.digest for entry in Layout(layout).entries}


async def promote(items: Sequence[PushItem], options: PushOptions) -> tuple[PushReport, list[str]]:
    """Push; the report and the warnings."""
    events: list[Event] = []
    async with Pusher(options, on_event=events.append) as pusher:
        report = await pusher.push(items)
    assert report.ok, [str(image.error) for image in report.failed]
    return report, [event.message for event in events if isinstance(event, Warned)]


@pytest.mark.parametrize(
    ("transport", "atomic"),
    [(None, False), (None, True), ("hybrid", True), ("distribution", False), ("auto", True)],
)
async def test_120_images_are_promoted_in_ecr_without_a_byte_of_a_layer(
    store: Path, layouts: list[Path], transport: str | None, atomic: bool
) -> None:
    async with serving(store) as server:
        options = options_of(server, transport, atomic=atomic)
        report, warnings = await promote(promotion(layouts), options)
        assert len(report.images) == REPOSITORIES * IMAGES
        counters = server.calls.counters
        assert counters.layer_bytes_received == report.bytes_sent == 0
        assert [counters.calls[call] for call in MOVES] == [0] * len(MOVES)
        # Each image's config and own layer, and the layer of all once for each repository.
        assert counters.mounts == REPOSITORIES * (2 * IMAGES + 1)
        assert counters.mounts_refused == 0
        assert warnings == []
        await assert_promoted(server, layouts)


def test_dockers_registry_promotes_120_images_without_a_byte_of_a_layer(
    tmp_path: Path, layouts: list[Path]
) -> None:
    env = environment(None, "") | {"DOCKER_CONFIG": "/nonexistent"}

    def job(name: str, sources: list[dict[str, str]], target: str) -> Path:
        path = tmp_path / f"{name}.yaml"
        document = {
            "version": 1,
            "registries": [{"hosts": [f"docker://{address}"]}],
            "sources": sources,
            "targets": [{"repository": target}],
        }
        path.write_text(json.dumps(document))
        return path

    with docker_registry_at(tmp_path) as address:
        fill = job("fill", [{"layouts": str(x)} for x in layouts], "dev/{directory}")
        done = asyncpush("run", fill, env=env)
        assert done.returncode == 0, done.stderr
        sources = [{"images": f"docker://{address}/dev/{x.name}"} for x in layouts]
        for name, flags in (("prod", []), ("atomic", ["--atomic"])):
            promotion = job(name, sources, f"{name}/{{source.repository}}")
            planned = asyncpush("plan", promotion, env=env)
            assert "260 to mount" in planned.stdout, planned.stdout + planned.stderr
            done = asyncpush("run", promotion, *flags, "--json", env=env)
            assert done.returncode == 0, done.stderr
            report = json.loads(done.stdout)
            assert report["bytes_sent"] == 0
            assert len(report["images"]) == REPOSITORIES * IMAGES
            assert sum(image["blobs_mounted"] for image in report["images"]) == 260


async def test_a_blob_that_comes_from_another_registry_first_is_mounted_from_where_it_is(
    store: Path, layouts: list[Path]
) -> None:
    async with serving(store, replace(AS_ECR, anonymous_push=True)) as server:
        # The same image, first by a name of the server that is another registry's.
        elsewhere = server.url.removeprefix("http://")
        items = [
            PushItem(f"docker://{elsewhere}/dev/app000:v0", f"{HOST}/prod/app001"),
            PushItem(f"{HOST}/dev/app000", f"{HOST}/prod/app000"),
        ]
        await promote(items, options_of(server, None))
        assert server.calls.counters.layer_bytes_received == 0
        await assert_promoted(server, layouts[:1])


async def test_another_endpoint_of_the_registry_is_the_same_registry(
    store: Path, layouts: list[Path]
) -> None:
    async with serving(store) as server:
        await promote(promotion(layouts[:2], DUAL_STACK), options_of(server, None))
        assert server.calls.counters.layer_bytes_received == 0
        await assert_promoted(server, layouts[:2])


async def test_the_same_account_behind_another_endpoint_is_another_registry(
    tmp_path: Path, store: Path, layouts: list[Path]
) -> None:
    some = layouts[:2]
    async with serving(store) as one, serving(tmp_path / "two") as two:
        for layout in some:
            await two.ensure_repository(ACCOUNT, REGION, f"prod/{layout.name}")
        options = replace(options_of(two, None), source_aws=options_of(one, None).aws)
        report, warnings = await promote(promotion(some), options)
        counters = two.calls.counters
        assert (counters.mounts, counters.mounts_refused, warnings) == (0, 0, [])
        assert counters.layer_bytes_received == report.bytes_sent > 0
        await assert_promoted(two, some)


@pytest.mark.parametrize("transport", [None, "hybrid", "distribution", "auto"])
async def test_where_mounting_is_off_three_refusals_are_enough_and_all_is_streamed(
    store: Path, layouts: list[Path], transport: str | None
) -> None:
    some = layouts[:6]
    async with serving(store, DistributionOptions(mounting="ecr")) as server:
        report, warnings = await promote(promotion(some), options_of(server, transport))
        counters = server.calls.counters
        assert (counters.mounts, counters.mounts_refused) == (0, 3)
        assert counters.layer_bytes_received == report.bytes_sent > 0
        assert counters.layer_bytes_duplicate == 0
        (warning,) = warnings
        assert "mounts no blobs" in warning
        assert "BLOB_MOUNTING" in warning
        await assert_promoted(server, some)


async def test_what_a_source_has_lost_the_manifest_of_since_is_streamed(
    store: Path, layouts: list[Path]
) -> None:
    async with serving(store) as server:
        async with Pusher(options_of(server, None)) as pusher:
            plan, rejected = await pusher.plan(promotion(layouts[:1]))
            assert not rejected
            tags = await server.tags(ACCOUNT, REGION, f"dev/{layouts[0].name}")
            await anyio.to_thread.run_sync(partial(delete, server, layouts[0].name, tags))
            report = await pusher.push_plan(plan)
        assert report.ok, [str(image.error) for image in report.failed]
        assert server.calls.counters.mounts_refused
        assert server.calls.counters.layer_bytes_received == report.bytes_sent > 0
        await assert_promoted(server, layouts[:1])


def delete(server: RunningRegistry, name: str, tags: Iterable[str]) -> None:
    client = boto3.client(
        "ecr",
        region_name=REGION,
        endpoint_url=server.url,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
    )
    client.batch_delete_image(
        repositoryName=f"dev/{name}", imageIds=[{"imageTag": tag} for tag in tags]
    )
