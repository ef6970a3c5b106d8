"""Bulk jobs by the command line: many repositories, three registries, two accounts, kills."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import yaml
from fleet import KEYS, ONE, REGISTRIES, TWO, all_tags, serving, wanted_tags, write_layouts
from forked import Forked
from support import ACCOUNT, REGION, asyncpush, environment, error_lines
from transports import count, does, names_of, parts

from asyncpush.localregistry import CallInfo, Fault, RunningRegistry
from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024
# All 50 take some minutes: CI runs some of them, ASYNCPUSH_KILLS=50 runs all.
KILLS = int(os.environ.get("ASYNCPUSH_KILLS", "10"))


class Bulk:
    """A job of many images, the server that it goes to, and the command.

    ``each`` of the three registries gets so many images.
    """

    def __init__(
        self, folder: Path, server: RunningRegistry, layouts: list[Path], transport: str
    ) -> None:
        self.server = server
        self.layouts = layouts
        self.transport = transport
        self.each = 5 * len(layouts)
        self.names = [layout.name for layout in layouts]
        self.job = folder / "job.yaml"
        credentials = folder / "credentials"
        credentials.write_text(
            "".join(
                f"[{account}]\naws_access_key_id={key.access_key_id}\n"
                f"aws_secret_access_key={key.secret_access_key}\n"
                for account, key in KEYS.items()
            )
        )
        self.env = environment(None, "") | {
            "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self.document = {
            "version": 1,
            "quotas": {"PutImage": 500},
            "registries": [
                {
                    "accounts": [ONE],
                    "regions": ["eu-central-1", "us-east-1"],
                    "profile": ONE,
                    "endpoint_url": server.url,
                    "transport": transport,
                },
                {
                    "hosts": [REGISTRIES[2].host],
                    "profile": TWO,
                    "endpoint_url": server.url,
                    "transport": transport,
                },
            ],
            "sources": [{"layouts": "layouts/*"}],
            "targets": [{"repository": "{directory}", "tags": ["{tag}"]}],
        }
        self.write()

    def write(self, **changes: object) -> None:
        self.job.write_text(yaml.safe_dump({**self.document, **changes}))

    def start(self, *arguments: str, command: str = "run") -> Forked:
        return Forked(command, self.job, *arguments, env=self.env)

    async def run(self, *arguments: str, command: str = "run") -> tuple[int, str, str]:
        process = self.start(*arguments, command=command)
        out, err = await anyio.to_thread.run_sync(process.communicate)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    async def kill_at_call(self, number: int, *arguments: str) -> bool:
        """Kill the command when the server meets so many calls, if it ever does."""
        before = self.calls()
        process = self.start(*arguments)
        while self.calls() - before < number and process.poll() is None:
            await anyio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await anyio.to_thread.run_sync(process.communicate)
        return process.returncode == -signal.SIGKILL

    def calls(self) -> int:
        return self.server.calls.counters.calls.total()

    async def is_complete(self) -> bool:
        return await all_tags(self.server, self.names) == wanted_tags(self.layouts)


@pytest.fixture(scope="module", params=["native", "distribution"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def layouts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 images of a job in three registries, a few of them large."""
    return write_bulk(tmp_path_factory.mktemp("bulk") / "layouts", 4)


def write_bulk(folder: Path, small: int) -> Path:
    """Layouts of five images each: so many small ones, and two with a large layer."""
    write_layouts(folder, small, 5)
    for i in (small, small + 1):
        # Layers of several parts, so that a kill finds some of them half-sent.
        writer = LayoutWriter(folder / f"app{i:03}")
        for j in range(5):
            size = 26 * MIB if j == 0 else 20_000
            own = writer.blob(os.urandom(size), mediatypes.OCI_LAYER)
            writer.entry(writer.image([own]), f"v{j}")
        writer.close()
    return folder


class Slowly:
    """Stretches a run, so that kills meet it in all its moments; and what a test adds."""

    def __init__(self) -> None:
        self.extra = lambda call: None

    def __call__(self, call: CallInfo) -> Fault | None:
        if (fault := self.extra(call)) is not None:
            return fault
        return Fault(delay=0.04) if does(call.action, "UploadLayerPart", "PutImage") else None


@asynccontextmanager
async def bulk_at(folder: Path, layouts_folder: Path, transport: str) -> AsyncIterator[Bulk]:
    (folder / "layouts").symlink_to(layouts_folder)
    layouts = sorted(layouts_folder.iterdir())
    faults = Slowly()
    async with serving(folder / "store", [p.name for p in layouts], faults) as server:
        bulk = Bulk(folder, server, layouts, transport)
        bulk.faults = faults
        yield bulk


@pytest.fixture
async def bulk(tmp_path: Path, layouts_folder: Path, transport: str) -> AsyncIterator[Bulk]:
    async with bulk_at(tmp_path, layouts_folder, transport) as bulk:
        yield bulk


async def test_300_images_in_60_repositories_and_3_registries(tmp_path: Path) -> None:
    many = write_bulk(tmp_path / "many", 18)
    async with bulk_at(tmp_path, many, "native") as bulk:
        assert 3 * bulk.each == 300
        await assert_complete_and_nothing_to_do(bulk)


async def test_many_images_by_way_of_distribution(tmp_path: Path, layouts_folder: Path) -> None:
    async with bulk_at(tmp_path, layouts_folder, "distribution") as bulk:
        await assert_complete_and_nothing_to_do(bulk)


async def assert_complete_and_nothing_to_do(bulk: Bulk) -> None:
    """The first run pushes everything; a second one asks what all tags point to."""
    code, out, err = await bulk.run()
    assert code == 0, err
    total = 3 * bulk.each
    assert f"{total} images: {total} pushed" in out
    assert await bulk.is_complete()
    # The question how to authenticate comes from nobody.
    assert {(c.account, c.access_key_id) for c in bulk.server.calls if c.account} == {
        (account, key.access_key_id) for account, key in KEYS.items()
    }

    # The second run finds nothing to do, uploads nothing, and says so.
    bulk.server.calls.clear()
    code, out, _ = await bulk.run()
    assert code == 4
    assert "nothing to do: everything was there already" in out
    # What all tags point to, a hundred in a call, says enough.
    expected = {"GetAuthorizationToken" if bulk.transport == "native" else "v2.Ping"}
    expected.add("BatchGetImage")
    assert set(bulk.server.calls.counters.calls) == expected
    assert bulk.server.calls.counters.calls["BatchGetImage"] == 3 * len(bulk.names)


async def test_a_registry_that_refuses_everything_leaves_the_others_complete(bulk: Bulk) -> None:
    bulk.faults.extra = lambda call: (
        Fault(code="AccessDeniedException", message="no") if call.account == TWO else None
    )
    report = bulk.job.parent / "report.json"
    code, out, _ = await bulk.run("--report", str(report))
    assert code == 1
    assert f"{2 * bulk.each} pushed, {bulk.each} failed" in out
    tags = await all_tags(bulk.server, bulk.names)
    wanted = wanted_tags(bulk.layouts)
    for repository, found in tags.items():
        assert found == ({} if repository.startswith(TWO) else wanted[repository])
    document = json.loads(report.read_text())
    images = {host: sums["images"] for host, sums in document["registries"].items()}
    assert images[REGISTRIES[0].host]["pushed"] == bulk.each
    assert images[REGISTRIES[1].host]["pushed"] == bulk.each
    assert images[REGISTRIES[2].host]["failed"] == bulk.each
    shown = asyncpush("report", report, env=bulk.env)
    assert shown.returncode == 0
    assert f"{bulk.each} images failed: access-denied" in shown.stdout
    failed = asyncpush("report", report, "--failed", env=bulk.env).stdout.split()
    assert len(failed) == bulk.each
    assert all(reference.startswith(TWO) for reference in failed)


def assert_nothing_twice(server: RunningRegistry) -> None:
    acknowledged: defaultdict[str, int] = defaultdict(int)
    for call in parts(server.calls):
        acknowledged[str(call.upload_id)] += call.acknowledged_bytes
        # What the server has is refused: the only such call may be the question how much that is.
        if call.error == "InvalidLayerPartException":
            assert call.layer_bytes <= 1
    assert max(acknowledged.values()) == 26 * MIB
    assert server.calls.counters.layer_bytes_duplicate == 0


@pytest.mark.parametrize("arguments", [(), ("--atomic",)])
async def test_killed_at_random_moments_it_ends_complete_and_sends_nothing_twice(
    bulk: Bulk, arguments: tuple[str, ...]
) -> None:
    rng = random.Random(len(arguments))
    killed = tries = 0
    share = 2 if bulk.transport == "native" or KILLS > 10 else 5
    wanted = -(-KILLS // share)
    while killed < wanted and tries < 3 * wanted:
        tries += 1
        # A run has some six calls for each image.
        killed += await bulk.kill_at_call(rng.randrange(18 * bulk.each), *arguments)
        if tries % 5 == 0 or await bulk.is_complete():
            code, _, err = await bulk.run(*arguments)
            assert code in (0, 4), err
            assert await bulk.is_complete()
            assert_nothing_twice(bulk.server)
            await start_over(bulk)
    code, _, err = await bulk.run(*arguments)
    assert code in (0, 4), err
    assert await bulk.is_complete()
    assert_nothing_twice(bulk.server)
    assert killed == wanted


async def start_over(bulk: Bulk) -> None:
    """Other repositories, so that the next kills find work to do again."""
    bulk.names = [f"{name}x" for name in bulk.names]
    for registry in REGISTRIES:
        for name in bulk.names:
            await bulk.server.ensure_repository(registry.account, registry.region, name)
    suffix = bulk.names[0].removeprefix(bulk.layouts[0].name)
    bulk.write(targets=[{"repository": f"{{directory}}{suffix}", "tags": ["{tag}"]}])

    async def is_complete() -> bool:
        found = await all_tags(bulk.server, bulk.names)
        return {k.removesuffix(suffix): v for k, v in found.items()} == wanted_tags(bulk.layouts)

    bulk.is_complete = is_complete


async def test_a_kill_while_tags_move_is_completed_by_the_next_run(bulk: Bulk) -> None:
    # More than can be on their way at once to three registries: some were noted.
    process = bulk.start("--atomic", "--images", "4")
    with anyio.fail_after(60):
        while await count_tags(bulk) < 20:
            await anyio.sleep(0.02)
    process.kill()
    await anyio.to_thread.run_sync(process.communicate)
    assert not await bulk.is_complete()
    bulk.server.calls.clear()
    code, _, err = await bulk.run("--atomic")
    assert code == 0, err
    assert await bulk.is_complete()
    assert bulk.server.calls.counters.layer_bytes_received == 0
    # What moved before the kill is not moved again.
    assert count(bulk.server.calls, "PutImage") < 3 * bulk.each


async def count_tags(bulk: Bulk) -> int:
    return sum(map(len, (await all_tags(bulk.server, bulk.names)).values()))


async def test_plan_shows_calls_and_time_and_sends_nothing(bulk: Bulk) -> None:
    bulk.write(quotas={"PutImage": 10})
    code, out, err = await bulk.run("--json", command="plan")
    assert code == 0, err
    assert names_of(bulk.server.calls) - {"v2.Ping"} == {
        "GetAuthorizationToken",
        "BatchCheckLayerAvailability",
        "BatchGetImage",
    }
    document = json.loads(out)
    assert len(document["images"]) == 3 * bulk.each
    sums = document["registries"][REGISTRIES[0].host]
    predicted = sums["calls"]
    assert predicted["PutImage"] == bulk.each
    assert sums["seconds_under_quotas"] == bulk.each / 10
    bulk.write()
    bulk.server.calls.clear()
    assert (await bulk.run())[0] == 0
    names = ["InitiateLayerUpload", "CompleteLayerUpload", "PutImage"]
    if bulk.transport == "native":
        names.append("UploadLayerPart")  # over /v2/ a part is as large as it likes
    # What turns out to be ready to be mounted is not uploaded.
    mounts = {"CompleteLayerUpload": bulk.server.calls.counters.mounts}
    for name in names:
        made = count(bulk.server.calls, name) + mounts.get(name, 0)
        assert made == 3 * predicted[name]


async def test_only_and_exclude_choose_images(bulk: Bulk) -> None:
    only = ("--only", "app00[01]", "--exclude", "*us-east-1*", "--exclude", "v4")
    code, out, err = await bulk.run(*only)
    assert code == 0, err
    assert "16 images: 16 pushed" in out
    tags = {name: sorted(t) for name, t in (await all_tags(bulk.server, bulk.names)).items() if t}
    assert tags == {
        f"{registry.host}/{name}": ["v0", "v1", "v2", "v3"]
        for registry in (REGISTRIES[0], REGISTRIES[2])
        for name in ("app000", "app001")
    }


@pytest.mark.parametrize(
    "command",
    [("run",), ("plan",), ("verify",), ("check",), ("replication", "wait")],
    ids=lambda command: command[-1],
)
def test_a_choice_that_leaves_nothing_is_a_mistake_and_no_job_that_is_done(
    sample: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    job = tmp_path / "job.yaml"
    document = {
        "version": 1,
        "registries": [{"accounts": [ACCOUNT], "regions": [REGION]}],
        "sources": [{"layouts": str(sample)}],
        "targets": [{"repository": "team/app"}],
    }
    job.write_text(json.dumps(document))

    done = asyncpush(*command, job, "--only", "APP*", env=environment("http://127.0.0.1:1"))

    (line,) = error_lines(done)
    assert "no image of the job is chosen" in line
    assert done.returncode == 2


async def test_shards_of_a_job_end_complete_together(bulk: Bulk) -> None:
    for number in (1, 2, 3):
        code, _, err = await bulk.run("--shard", f"{number}/3")
        assert code == 0, err
    assert await bulk.is_complete()


async def test_two_sources_for_one_tag_are_told_before_anything_is_sent(bulk: Bulk) -> None:
    bulk.write(targets=[{"repository": "app000", "tags": ["{tag}"]}])
    code, _, err = await bulk.run()
    assert code == 2
    assert "two images want the tag v0" in err
    assert "nothing was sent" in err
    assert not bulk.server.calls.counters.calls


async def test_names_that_ecr_refuses_are_told_before_anything_is_sent(bulk: Bulk) -> None:
    bulk.write(targets=[{"repository": "UPPER/{directory}", "tags": ["a b"]}])
    code, _, err = await bulk.run()
    assert code == 2
    assert "ECR takes no repository named 'UPPER/app000'" in err
    assert not bulk.server.calls.counters.calls
