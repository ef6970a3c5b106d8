"""40 images in 40 repositories share layers: sent once to a registry, mounted 39 times, counted."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import boto3
import pytest
from forked import Forked
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

from asyncpush import (
    AwsOptions,
    BlobMounted,
    Event,
    Pusher,
    PushItem,
    PushOptions,
    PushReport,
    Warned,
)
from asyncpush.localregistry import (
    PLAIN_REGISTRY,
    CallInfo,
    DistributionOptions,
    Fault,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
)
from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter
from asyncpush.plan.shards import cut

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
COUNT, LAYERS = 40, 10
SMALL = LAYERS * 200_000
NAMES = [f"app{i:02}" for i in range(COUNT)]
# Where 40 repositories would tell no more than these.
FEW = NAMES[:12]
AS_ECR = DistributionOptions(mounting="ecr", blob_mounting=True)
SIX_ACTIONS = [
    "ecr:GetAuthorizationToken",
    "ecr:BatchCheckLayerAvailability",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload",
    "ecr:PutImage",
]


def write_fleet(folder: Path, shared: int) -> Path:
    """A layout of 40 images; ``shared`` bytes in 10 layers are in all of them."""
    writer = LayoutWriter(folder)
    base = [writer.blob(os.urandom(shared // LAYERS), mediatypes.OCI_LAYER) for _ in range(LAYERS)]
    for name in NAMES:
        own = writer.blob(os.urandom(20_000), mediatypes.OCI_LAYER)
        writer.entry(writer.image([*base, own]), name)
    return writer.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fleet(tmp_path_factory.mktemp("large") / "fleet", 200 * MIB)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fleet(tmp_path_factory.mktemp("small") / "fleet", SMALL)


def own_bytes(layout: Path, names: Sequence[str] = NAMES) -> int:
    """Bytes of the configs and layers that each image has alone."""
    total = 0
    for entry in Layout(layout).entries:
        if entry.ref_name in names:
            path = layout / "blobs" / "sha256" / entry.digest.partition(":")[2]
            manifest = json.loads(path.read_bytes())
            total += manifest["config"]["size"] + manifest["layers"][-1]["size"]
    return total


@asynccontextmanager
async def serving(
    folder: Path,
    distribution: DistributionOptions = AS_ECR,
    faults: Callable[[CallInfo], Fault | None] | None = None,
    keys: Sequence[Key] = (),
    **options: Any,
) -> AsyncIterator[RunningRegistry]:
    settings = LocalRegistryOptions(distribution=distribution, faults=faults, **options)
    all_keys = [Key(KEY_ID, SECRET, ACCOUNT), *keys]
    async with LocalRegistry(folder, all_keys, settings).run() as server:
        for name in NAMES:
            await server.ensure_repository(ACCOUNT, REGION, name)
        yield server


def client_of(server: RunningRegistry) -> Any:
    """A botocore client of the server, for what an administrator does."""
    return boto3.client(
        "ecr",
        region_name=REGION,
        endpoint_url=server.url,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
    )


class Push:
    """A push of a fleet by the Python API, with all its events."""

    def __init__(self, server: RunningRegistry, transport: str, key: Key | None = None) -> None:
        key = key or Key(KEY_ID, SECRET, ACCOUNT)
        self.events: list[Event] = []
        self.options: dict[str, Any] = {
            "transport": transport,
            "quotas": {"PutImage": 200, "InitiateLayerUpload": 1000, "CompleteLayerUpload": 1000},
            "aws": AwsOptions(
                access_key_id=key.access_key_id,
                secret_access_key=key.secret_access_key,
                endpoint_url=server.url,
            ),
        }

    async def run(
        self, layout: Path, names: Sequence[str] = NAMES, host: str = HOST, **options: Any
    ) -> PushReport:
        settings = PushOptions(**{**self.options, **options})
        async with Pusher(settings, on_event=self.events.append) as pusher:
            return await pusher.push(items_for(layout, names, host))

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


def items_for(layout: Path, names: Sequence[str] = NAMES, host: str = HOST) -> list[PushItem]:
    return [PushItem(f"{layout}:{name}", f"{host}/{name}") for name in names]


async def assert_complete(
    server: RunningRegistry, layout: Path, names: Sequence[str] = NAMES
) -> None:
    wanted = {str(e.ref_name): e.digest for e in Layout(layout).entries}
    for name in names:
        assert await server.tags(ACCOUNT, REGION, name) == {name: wanted[name]}


@pytest.mark.parametrize("transport", ["hybrid", "distribution"])
async def test_200_mib_of_shared_layers_are_sent_once_and_mounted_by_39_repositories(
    tmp_path: Path, large: Path, transport: str
) -> None:
    async with serving(tmp_path / "store") as server:
        push = Push(server, transport)
        report = await push.run(large)
        assert report.ok, [str(image.error) for image in report.failed]
        await assert_complete(server, large)
        counters = server.calls.counters
        assert counters.layer_bytes_received == 200 * MIB + own_bytes(large)
        assert (counters.mounts, counters.mounts_refused) == (39 * LAYERS, 0)
        assert counters.layer_bytes_duplicate == 0
        assert report.bytes_sent == counters.layer_bytes_received
        assert report.bytes_mounted == 39 * 200 * MIB
        mounted = [event for event in push.events if isinstance(event, BlobMounted)]
        assert len({event.source for event in mounted}) == 1
        assert push.warnings == []

        # The second push has nothing to do: no upload, no mount.
        server.calls.clear()
        report = await push.run(large)
        assert report.nothing_to_do
        assert server.calls.counters.mounts == server.calls.counters.layer_bytes_received == 0
        assert not server.calls.of("InitiateLayerUpload")
        assert not server.calls.of("v2.StartUpload")


@pytest.mark.parametrize(
    ("transport", "mounting", "names"),
    [("hybrid", "ecr", NAMES), ("distribution", "off", FEW), ("auto", "off", FEW)],
)
async def test_where_mounting_is_off_all_is_uploaded_after_three_refusals(
    tmp_path: Path, small: Path, transport: str, mounting: Any, names: Sequence[str]
) -> None:
    async with serving(tmp_path / "store", DistributionOptions(mounting=mounting)) as server:
        push = Push(server, transport)
        report = await push.run(small, names)
        assert report.ok
        await assert_complete(server, small, names)
        counters = server.calls.counters
        assert (counters.mounts, counters.mounts_refused) == (0, 3)
        assert counters.layer_bytes_duplicate == 0
        sessions = counters.calls["v2.StartUpload"] + counters.calls["InitiateLayerUpload"]
        blobs = len(names) * (LAYERS + 2)
        # Where blobs go by the API of mounts, the session that comes with a refusal is used.
        assert sessions == (blobs if transport == "hybrid" else blobs - 3)
        # Who asked for it hears of it, who left the choice to the program does not.
        assert len(push.warnings) == (0 if transport == "auto" else 1)
        assert all("BLOB_MOUNTING" in warning for warning in push.warnings)


@pytest.mark.parametrize(("transport", "names"), [("hybrid", NAMES), ("distribution", FEW)])
async def test_mounting_that_is_switched_off_half_way_leaves_all_complete(
    tmp_path: Path, small: Path, transport: str, names: Sequence[str]
) -> None:
    slowly = lambda call: Fault(delay=0.05) if call.action == "v2.MountBlob" else None  # noqa: E731
    async with serving(tmp_path / "store", faults=slowly) as server:
        client = client_of(server)

        async def switch_off() -> None:
            while server.calls.counters.mounts < 50:
                await anyio.sleep(0.01)
            await anyio.to_thread.run_sync(
                lambda: client.put_account_setting(name="BLOB_MOUNTING", value="DISABLED")
            )

        push = Push(server, transport)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(switch_off)
            report = await push.run(small, names)
        assert report.ok, [str(image.error) for image in report.failed]
        await assert_complete(server, small, names)
        counters = server.calls.counters
        assert 50 <= counters.mounts < (len(names) - 1) * LAYERS
        assert counters.mounts_refused
        uploads = (len(names) - 1) * LAYERS - counters.mounts
        assert report.bytes_sent == SMALL // LAYERS * (LAYERS + uploads) + own_bytes(small, names)
        assert counters.layer_bytes_duplicate == 0


async def test_a_plain_registry_mounts_blobs_as_soon_as_they_are_there(
    tmp_path: Path, small: Path
) -> None:
    async with serving(tmp_path / "store", PLAIN_REGISTRY) as server:
        host = f"docker://{server.url.removeprefix('http://')}"
        push = Push(server, "native")
        report = await push.run(small, FEW, host)
        assert report.ok, [str(image.error) for image in report.failed]
        counters = server.calls.counters
        assert (counters.mounts, counters.mounts_refused) == (11 * LAYERS, 0)
        assert counters.layer_bytes_received == SMALL + own_bytes(small, FEW)


@pytest.mark.parametrize("transport", ["hybrid", "distribution"])
async def test_bearer_tokens_of_mounts_have_the_scope_of_their_source_too(
    tmp_path: Path, small: Path, transport: str
) -> None:
    bearer = DistributionOptions(authentication="bearer", blob_mounting=True)
    async with serving(tmp_path / "store", bearer) as server:
        report = await Push(server, transport).run(small, FEW)
        assert report.ok, [str(image.error) for image in report.failed]
        await assert_complete(server, small, FEW)
        counters = server.calls.counters
        assert (counters.mounts, counters.mounts_refused) == (11 * LAYERS, 0)


def test_dockers_registry_gets_shared_layers_once(tmp_path: Path, small: Path) -> None:
    job = tmp_path / "job.yaml"
    with docker_registry_at(tmp_path) as address:
        job.write_text(
            json.dumps(
                {
                    "version": 1,
                    "registries": [{"hosts": [f"docker://{address}"]}],
                    "sources": [{"layouts": str(small)}],
                    "targets": [{"repository": "team/{tag}"}],
                }
            )
        )
        report = tmp_path / "report.json"
        env = environment(None, "") | {"DOCKER_CONFIG": str(tmp_path)}
        planned = asyncpush("plan", job, env=env)
        assert f"{39 * LAYERS} to mount (74.4 MiB)" in planned.stdout, planned.stderr
        done = asyncpush("run", job, "--verify", "--report", report, env=env)
        assert done.returncode == 0, done.stderr
        document = json.loads(report.read_text())
        assert document["totals"]["blobs_mounted"] == 39 * LAYERS
        assert document["totals"]["bytes_mounted"] == 39 * SMALL
        assert document["totals"]["bytes_sent"] == SMALL + own_bytes(small)
        mounted = [blob for blob in document["blobs"] if blob["status"] == "mounted"]
        assert len(mounted) == 39 * LAYERS
        assert all(blob["mounted_from"].startswith(f"{address}/team/app") for blob in mounted)
        assert "74.4 MiB mounted" in asyncpush("report", report, env=env).stdout


async def test_a_killed_job_mounts_and_sends_nothing_again(tmp_path: Path, small: Path) -> None:
    slowly = lambda call: Fault(delay=0.02)  # noqa: E731
    async with serving(tmp_path / "store", faults=slowly) as server:
        job = tmp_path / "job.yaml"
        job.write_text(
            json.dumps(
                {
                    "version": 1,
                    "quotas": {"PutImage": 100},
                    "registries": [{"hosts": [HOST], "endpoint_url": server.url}],
                    "sources": [{"layouts": str(small), "entries": FEW}],
                    "targets": [{"repository": "{tag}"}],
                }
            )
        )
        env = environment(server.url) | {"XDG_STATE_HOME": str(tmp_path / "state")}

        async def run(until: Callable[[], bool]) -> int:
            """Run the command, and kill it when something has happened."""
            process = Forked("run", job, "--transport", "hybrid", env=env)
            while process.poll() is None and not until():
                await anyio.sleep(0.005)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            await anyio.to_thread.run_sync(process.communicate)
            return process.returncode

        counters = server.calls.counters
        shared = SMALL
        assert await run(lambda: counters.layer_bytes_acknowledged >= shared // 2) == -9
        assert await run(lambda: counters.mounts >= 5) == -9
        assert await run(lambda: counters.calls["PutImage"] >= 4) == -9
        assert await run(lambda: False) == 0
        await assert_complete(server, small, FEW)
        assert counters.layer_bytes_acknowledged == shared + own_bytes(small, FEW)
        assert counters.mounts_refused == 0
        assert counters.mounts >= 11 * LAYERS


@pytest.mark.parametrize("transport", ["hybrid", "distribution", "auto"])
async def test_atomic_pushes_mount_by_digest(tmp_path: Path, small: Path, transport: str) -> None:
    def refuse(call: CallInfo) -> Fault | None:
        last = call.repository == FEW[-1] and call.action in ("PutImage", "v2.PutManifest")
        return Fault(code="KmsException", message="no key") if last and failing else None

    failing = True
    async with serving(tmp_path / "store", faults=refuse) as server:
        push = Push(server, transport)
        report = await push.run(small, FEW, atomic=True)
        assert len(report.failed) == 1
        for name in FEW:
            assert await server.tags(ACCOUNT, REGION, name) == {}
        failing = False
        report = await push.run(small, FEW, atomic=True)
        assert report.ok
        await assert_complete(server, small, FEW)
        counters = server.calls.counters
        assert counters.mounts == 11 * LAYERS
        assert counters.layer_bytes_received == SMALL + own_bytes(small, FEW)


async def test_each_shard_and_each_registry_has_leaders_of_its_own(
    tmp_path: Path, small: Path
) -> None:
    other = "us-east-1"
    async with serving(tmp_path / "store") as server:
        for name in FEW:
            await server.ensure_repository(ACCOUNT, other, name)
        items = [
            *items_for(small, FEW),
            *items_for(small, FEW, HOST.replace(REGION, other)),
        ]
        push = Push(server, "hybrid")
        async with Pusher(PushOptions(**push.options)) as pusher:
            plan, rejected = await pusher.plan(items)
            for shard in cut(plan, 2):
                report = await pusher.push_plan(shard.plan, rejected, sharing=shard.sharing)
                assert report.ok
        await assert_complete(server, small, FEW)
        # Two shards of two registries: four leaders.
        assert server.calls.counters.mounts == (2 * len(FEW) - 4) * LAYERS
        assert server.calls.counters.mounts_refused == 0


async def test_what_a_plan_foretells_is_what_a_push_does(tmp_path: Path, small: Path) -> None:
    async with serving(tmp_path / "store") as server:
        push = Push(server, "hybrid")
        async with Pusher(PushOptions(**push.options)) as pusher:
            preview = await pusher.preview(items_for(small, FEW))
            (sums,) = preview.registries.values()
            assert not server.calls.of("v2.MountBlob")
            assert (sums.mounts, sums.bytes_mounted) == (11 * LAYERS, 11 * SMALL)
            assert sums.bytes == preview.bytes == SMALL + own_bytes(small, FEW)
            server.calls.clear()
            report = await pusher.push(items_for(small, FEW))
        calls = server.calls.counters.calls
        assert report.bytes_sent == sums.bytes
        assert report.bytes_mounted == sums.bytes_mounted
        foretold = sums.calls["InitiateLayerUpload"]
        # The first mount is answered with the question for credentials.
        assert foretold == calls["InitiateLayerUpload"] + calls["v2.MountBlob"] - 1
        assert sums.calls["CompleteLayerUpload"] == calls["CompleteLayerUpload"]
        assert sums.calls["UploadLayerPart"] == calls["UploadLayerPart"]
        assert sums.calls["PutImage"] == calls["PutImage"]


@pytest.mark.parametrize("transport", ["hybrid", "auto"])
async def test_the_six_actions_of_a_push_suffice_and_mount_nothing(
    tmp_path: Path, small: Path, transport: str
) -> None:
    pusher = Key(
        "AKIDPUSHERPUSHER0000",
        "secret-of-the-pusher",
        ACCOUNT,
        policy={
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": SIX_ACTIONS, "Resource": "*"}],
        },
    )
    async with serving(tmp_path / "store", keys=[pusher]) as server:
        push = Push(server, transport, pusher)
        report = await push.run(small, FEW)
        assert report.ok, [str(image.error) for image in report.failed]
        await assert_complete(server, small, FEW)
        assert server.calls.counters.mounts == 0
        assert {c.mount for c in server.calls.of("v2.MountBlob") if c.mount} == {"no permission"}
        assert len(push.warnings) == (transport == "hybrid")
        assert all("ecr:GetDownloadUrlForLayer" in warning for warning in push.warnings)


async def test_repositories_with_another_key_share_among_themselves(
    tmp_path: Path, small: Path
) -> None:
    async with serving(tmp_path / "store") as server:
        client = client_of(server)

        def encrypt() -> None:
            for name in FEW[::2]:
                client.delete_repository(repositoryName=name, force=True)
                client.create_repository(
                    repositoryName=name, encryptionConfiguration={"encryptionType": "KMS"}
                )

        await anyio.to_thread.run_sync(encrypt)
        push = Push(server, "hybrid")
        # In order, so that those who are refused by the first leader find the second.
        report = await push.run(small, FEW, images=4)
        assert report.ok
        await assert_complete(server, small, FEW)
        counters = server.calls.counters
        assert counters.mounts >= (len(FEW) - 5) * LAYERS
        assert counters.mounts_refused <= len(FEW)


async def test_mounts_that_cannot_be_reached_are_uploads_and_one_warning(
    tmp_path: Path, small: Path
) -> None:
    cut_off = lambda call: Fault(drop="before") if call.action.startswith("v2.") else None  # noqa: E731
    async with serving(tmp_path / "store", faults=cut_off) as server:
        push = Push(server, "auto")
        report = await push.run(small, FEW, retry_base=0.01)
        assert report.ok
        await assert_complete(server, small, FEW)
        # The other one says that layers are sent otherwise, too.
        (warning,) = [text for text in push.warnings if "mounts no blobs" in text]
        assert len(push.warnings) <= 2
        assert "the connection failed" in warning
        assert server.calls.counters.calls["v2.MountBlob"] <= 3 * 2


async def test_the_token_is_renewed_while_mounts_go_on(tmp_path: Path, small: Path) -> None:
    slowly = lambda call: Fault(delay=0.1) if call.action == "v2.MountBlob" else None  # noqa: E731
    async with serving(tmp_path / "store", faults=slowly, token_lifetime=1) as server:
        push = Push(server, "hybrid")
        report = await push.run(small, FEW, images=3)
        assert report.ok
        assert server.calls.counters.mounts == 11 * LAYERS
        assert len(server.calls.of("GetAuthorizationToken")) > 2
        assert push.warnings == []
