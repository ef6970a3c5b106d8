"""Referrers over OCI distribution: listed by the registry itself, or in an index beside it."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from proxy import proxy
from support import ACCOUNT, KEY_ID, REGION, SECRET

from asyncpush import ImageStatus, Pusher, PushItem, PushOptions, PushReport
from asyncpush.errors import RegistryError, TagConflictError
from asyncpush.localregistry import CallInfo, Fault, Key, LocalRegistry, LocalRegistryOptions
from asyncpush.localregistry.distribution_options import PLAIN_REGISTRY
from asyncpush.localregistry.identity import Registry
from asyncpush.oci import mediatypes
from asyncpush.oci.digest import compute
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio

SUBJECTS, EACH = 3, 8


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images with eight artifacts each."""
    writer = LayoutWriter(tmp_path_factory.mktemp("referrers") / "layout")
    for i in range(SUBJECTS):
        layer = writer.blob(f"layer {i}".encode(), mediatypes.OCI_LAYER)
        subject = writer.entry(writer.image([layer]), f"v{i}")
        for j in range(EACH):
            blob = writer.blob(f"{j} of {i}".encode(), "application/octet-stream")
            artifact = writer.artifact("application/x.test", [blob], subject=subject)
            writer.entry(artifact, f"a{i}-{j}")
    return writer.close()


def expected(layout: Path) -> dict[str, set[str]]:
    """The digests of the referrers by the tag of their index."""
    found: dict[str, set[str]] = {}
    for entry in json.loads((layout / "index.json").read_bytes())["manifests"]:
        raw = (layout / "blobs" / "sha256" / entry["digest"].removeprefix("sha256:")).read_bytes()
        if subject := json.loads(raw).get("subject"):
            tag = subject["digest"].replace(":", "-")
            found.setdefault(tag, set()).add(entry["digest"])
    assert len(found) == SUBJECTS
    return found


def get(address: str, repository: str, reference: str) -> Any:
    request = urllib.request.Request(
        f"http://{address}/v2/{repository}/manifests/{reference}",
        headers={"Accept": mediatypes.OCI_INDEX},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def assert_listed(address: str, repository: str, layout: Path) -> None:
    """Each referrer is in its subject's index, once."""
    for tag, digests in expected(layout).items():
        entries = get(address, repository, tag)["manifests"]
        assert Counter(entry["digest"] for entry in entries) == Counter(digests)


async def push(layout: Path, target: str, **options: Any) -> PushReport:
    settings = PushOptions(**{"retry_base": 0.01, "retry_cap": 0.05, **options})
    async with Pusher(settings) as pusher:
        return await pusher.push([PushItem(layout, f"docker://{target}")])


def is_index(request: web.Request) -> bool:
    return "/manifests/sha256-" in request.path


@pytest.mark.parametrize("atomic", [False, True])
async def test_an_index_whose_writing_fails_once_is_written_all_the_same(
    docker_registry: str, layout: Path, atomic: bool
) -> None:
    failed: list[str] = []

    async def once(request: web.Request) -> web.Response | None:
        if request.method == "PUT" and is_index(request) and not failed:
            failed.append(request.path)
            return web.Response(status=503)
        return None

    repository = f"once/atomic-{atomic}".lower()
    async with proxy(docker_registry, once) as running:
        report = await push(layout, f"{running.address}/{repository}", atomic=atomic)
    assert failed
    assert report.ok, [str(image.error) for image in report.failed]
    assert_listed(docker_registry, repository, layout)


async def test_a_referrer_that_an_earlier_push_left_unlisted_is_listed(
    docker_registry: str, layout: Path
) -> None:
    async def never(request: web.Request) -> web.Response | None:
        return web.Response(status=503) if is_index(request) else None

    async with proxy(docker_registry, never) as running:
        report = await push(layout, f"{running.address}/left", attempts=1)
    assert len(report.failed) == SUBJECTS * EACH
    for _ in range(2):
        async with proxy(docker_registry) as running:
            report = await push(layout, f"{running.address}/left")
        assert {image.status for image in report.images} <= {
            ImageStatus.EXISTS,
            ImageStatus.PUSHED,
        }
        assert report.ok
        assert_listed(docker_registry, "left", layout)
    # All was there: it takes one question whether the registry lists referrers itself, and one
    # look at the index for each referrer.
    assert running.count("GET", "/referrers/") == 1
    assert running.count("GET", "/manifests/sha256-") == SUBJECTS * EACH
    assert running.count("PUT", "/") == 0


async def test_a_registry_that_lists_referrers_itself_gets_no_index(
    tmp_path: Path, layout: Path
) -> None:
    for denied in (False, True):

        def fault(call: CallInfo, denied: bool = denied) -> Fault | None:
            lists = call.action == "v2.ListReferrers"
            return Fault(code="DENIED", status=403) if denied and lists else None

        home = Registry(ACCOUNT, REGION)
        options = LocalRegistryOptions(
            distribution=PLAIN_REGISTRY, default_registry=home, faults=fault
        )
        root = tmp_path / f"store-{denied}"
        async with LocalRegistry(root, [Key(KEY_ID, SECRET, ACCOUNT)], options).run() as server:
            target = f"{server.url.removeprefix('http://')}/api"
            assert (await push(layout, target)).ok
            calls = server.calls.counters.calls
            assert calls["v2.ListReferrers"] == 0
            stored = calls["v2.PutManifest"]
            report = await push(layout, target)
            assert {image.status for image in report.images} == {ImageStatus.EXISTS}
            assert calls["v2.ListReferrers"] == 1
            # Where the list is not ours to read, storing a manifest again says what it would.
            assert calls["v2.PutManifest"] == stored + denied
            tags = await server.tags(ACCOUNT, REGION, "api")
            assert not [tag for tag in tags if tag.startswith("sha256-")]


IMAGE = {
    "schemaVersion": 2,
    "mediaType": mediatypes.OCI_MANIFEST,
    "config": {"mediaType": mediatypes.OCI_CONFIG, "digest": compute(b"{}"), "size": 2},
    "layers": [],
}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"schemaVersion": 2, "manif', "no JSON"),
        (b"[]", "no object"),
        (json.dumps(IMAGE).encode(), "media type"),
        (b'{"schemaVersion": 2, "manifests": {}}', "no list"),
        (b'{"schemaVersion": 2, "manifests": [5]}', "no list"),
    ],
)
async def test_an_index_that_cannot_be_read_is_an_error_and_stays(
    docker_registry: str, layout: Path, content: bytes, reason: str
) -> None:
    async def damaged(request: web.Request) -> web.Response | None:
        if request.method in ("GET", "HEAD") and is_index(request):
            return web.Response(body=content, content_type=mediatypes.OCI_INDEX)
        return None

    async with proxy(docker_registry, damaged) as running:
        report = await push(layout, f"{running.address}/damaged")
        assert len(report.failed) == SUBJECTS * EACH
        for image in report.failed:
            assert type(image.error) is RegistryError
            assert reason in image.error.message
            assert image.error.where["referrers_tag"].startswith("sha256-")
        assert running.count("PUT", "/manifests/sha256-") == 0


async def test_an_index_that_may_not_change_fails_its_referrers_each_time(
    docker_registry: str, layout: Path
) -> None:
    """An immutable tag takes one referrer; that the others are not listed is never forgotten."""

    async def immutable(request: web.Request) -> web.Response | None:
        if request.method == "PUT" and is_index(request):
            error = {"code": "TAG_INVALID", "message": "the tag is immutable"}
            return web.json_response({"errors": [error]}, status=400)
        return None

    for _ in range(2):
        async with proxy(docker_registry, immutable) as running:
            report = await push(layout, f"{running.address}/immutable")
        assert len(report.failed) == SUBJECTS * EACH
        assert {type(image.error) for image in report.failed} == {TagConflictError}
