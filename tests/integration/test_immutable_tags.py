"""Tags that never move cost no call where the target has them, and are not believed elsewhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml
from gate import Gate, gate_before
from releases import releasing, write_release
from support import ACCOUNT, HOST, KEY_ID, REGION, SECRET, docker_registry_at

from asyncpush import AwsOptions, ImageStatus, Pusher, PushItem, PushOptions, PushReport
from asyncpush.engine.results import TagStatus
from asyncpush.job.load import load_job
from asyncpush.localregistry import RunningRegistry

pytestmark = pytest.mark.anyio

TAGS = ["v1", "v2", "latest"]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with docker_registry_at(tmp_path_factory.mktemp("docker-registry")) as address:
        yield address


async def run(folder: Path, server: RunningRegistry, source: str, **target: object) -> PushReport:
    job = {
        "version": 1,
        "registries": [{"hosts": [HOST]}],
        "sources": [{"images": f"docker://{source}/team/*"}],
        "targets": [{"repository": "mirror/{source.repository}", **target}],
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    aws = AwsOptions(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=server.url)
    async with Pusher(PushOptions(aws=aws, quotas={"PutImage": 1000})) as pusher:
        return await pusher.push(load_job(path, {}, {}).items())


def asked(gate: Gate) -> Counter[str]:
    """How often each manifest was asked for at the source."""
    found = Counter(path.rpartition("/")[2] for _, path in gate.requests if "/manifests/" in path)
    gate.requests.clear()
    return found


async def test_a_tag_that_never_moves_is_not_asked_for_again(tmp_path: Path, upstream: str) -> None:
    release = write_release(tmp_path, "new", {"app": TAGS})
    newer = write_release(tmp_path, "newer", {"app": TAGS})
    target = f"docker://{upstream}/team/app"
    async with Pusher() as pusher:
        assert (await pusher.push([PushItem(release["app"], target)])).ok
    async with (
        releasing(tmp_path, ["mirror/team/app"]) as it,
        gate_before(upstream) as gate,
    ):
        patterns = {"immutable_tags": ["v*"]}
        report = await run(tmp_path, it.server, gate.address, **patterns)
        assert report.count(ImageStatus.PUSHED) == 3, [str(i.error) for i in report.failed]
        before = await it.server.tags(ACCOUNT, REGION, "mirror/team/app")
        assert set(asked(gate)) >= set(TAGS)

        # The source has moved all of them; those that never move are what they were.
        async with Pusher() as pusher:
            assert (await pusher.push([PushItem(newer["app"], target)])).ok
        report = await run(tmp_path, it.server, gate.address, **patterns)
        assert report.ok
        assert report.count(ImageStatus.EXISTS) == 2
        assert not {"v1", "v2"} & set(asked(gate))
        after = await it.server.tags(ACCOUNT, REGION, "mirror/team/app")
        assert {tag for tag in TAGS if after[tag] == before[tag]} == {"v1", "v2"}
        statuses = {tag.tag: tag.status for image in report.images for tag in image.tags}
        assert statuses == {
            "v1": TagStatus.UNCHANGED,
            "v2": TagStatus.UNCHANGED,
            "latest": TagStatus.MOVED,
        }
        digests = {image.name: image.digest for image in report.images}
        assert digests["v1"] == before["v1"]

        # Where what a tag gets depends on the image, it must be asked for.
        report = await run(
            tmp_path, it.server, gate.address, tags=["{tag}", "{short_digest}"], **patterns
        )
        assert report.ok
        assert set(asked(gate)) >= set(TAGS)
