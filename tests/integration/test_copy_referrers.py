"""What refers to an image comes along, by the referrers API, its tag fallback, cosign's tags."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import yaml
from aiohttp import web
from gate import Gate, gate_before
from support import (
    HOST,
    KEY_ID,
    SECRET,
    Served,
    asyncpush,
    docker_registry_at,
    environment,
    error_lines,
)
from tarfiles import archive_of

from asyncpush import Pusher, PushItem, PushOptions
from asyncpush.engine.events import Event, TagsMoving, Warned
from asyncpush.engine.results import ImageStatus, PushReport
from asyncpush.oci import mediatypes
from asyncpush.oci.writer import JsonDescriptor, LayoutWriter
from asyncpush.registries.ecr.options import AwsOptions

pytestmark = pytest.mark.anyio
SBOM, BUNDLE = "application/spdx+json", "application/vnd.dev.sigstore.bundle.v0.3+json"
PROVENANCE = "application/vnd.in-toto+json"
SIGNED = "application/vnd.dev.cosign.simplesigning.v1+json"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"


@dataclass
class Tree:
    """A layout with an image of two platforms, what refers to it, and an image beside it."""

    layout: Path
    digests: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.digests[name]

    def descriptor(self, name: str) -> JsonDescriptor:
        """Of an index."""
        path = self.layout / "blobs" / "sha256" / self[name].removeprefix("sha256:")
        size = path.stat().st_size
        return {"mediaType": mediatypes.OCI_INDEX, "digest": self[name], "size": size}

    def cosign(self, name: str, ending: str) -> str:
        return f"{self[name].replace(':', '-')}.{ending}"

    @property
    def referrers(self) -> dict[str, set[str]]:
        """By subject, what the referrers API must list for app."""
        return {
            self["app"]: {self["sbom"]},
            self["sbom"]: {self["signature of sbom"]},
            self["amd64"]: {self["provenance"]},
            self["arm64"]: set(),
        }

    @property
    def tags(self) -> dict[str, str]:
        """What the far side must have by tag for app."""
        return {
            "app": self["app"],
            self.cosign("app", "sig"): self["signature"],
            self.cosign("amd64", "att"): self["attestation"],
        }


def write_tree(folder: Path) -> Tree:
    writer = LayoutWriter(folder)
    stored: dict[str, JsonDescriptor] = {}

    def image(name: str, **more: Any) -> JsonDescriptor:
        layer = writer.layer({"bin/app": name.encode() * 2000})
        return stored.setdefault(name, writer.image([layer], **more))

    def artifact(name: str, kind: str, subject: str) -> JsonDescriptor:
        blob = writer.blob(name.encode(), kind)
        return stored.setdefault(name, writer.artifact(kind, [blob], subject=stored[subject]))

    def cosign(name: str, kind: str, subject: str, ending: str) -> None:
        stored[name] = writer.image([writer.blob(name.encode(), kind)], config={"created": name})
        writer.entry(stored[name], f"{stored[subject]['digest'].replace(':', '-')}.{ending}")

    platforms = [
        {**image(a, architecture=a), "platform": {"os": "linux", "architecture": a}}
        for a in ("amd64", "arm64")
    ]
    stored["app"] = writer.entry(writer.index(platforms), "app")
    writer.entry(image("other"), "other")
    writer.entry(artifact("sbom", SBOM, "app"))
    writer.entry(artifact("signature of sbom", BUNDLE, "sbom"))
    writer.entry(artifact("provenance", PROVENANCE, "amd64"))
    writer.entry(artifact("sbom of other", SBOM, "other"))
    cosign("signature", SIGNED, "app", "sig")
    cosign("attestation", ENVELOPE, "amd64", "att")
    cosign("signature of other", SIGNED, "other", "sig")
    writer.close()
    return Tree(folder, {name: descriptor["digest"] for name, descriptor in stored.items()})


@dataclass
class World:
    """The tree as a layout, an archive, in docker-registry and in ECR."""

    tree: Tree
    registry: Served
    docker: str
    archive: Path

    def source(self, kind: str, name: str = "app") -> str:
        return {
            "docker": f"docker://{self.docker}/source:{name}",
            "ecr": f"{HOST}/referrers/source:{name}",
            "layout": f"{self.tree.layout}:{name}",
            "archive": f"oci-archive:{self.archive}:{name}",
        }[kind]

    def options(self, **options: Any) -> PushOptions:
        aws = AwsOptions(
            access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=self.registry.url
        )
        return PushOptions(**{"aws": aws, "retry_base": 0.0, "attempts": 3, **options})

    async def copy(
        self,
        source: str | Path,
        *targets: str,
        types: Sequence[str] | None = (),
        platform: str | None = None,
        **options: Any,
    ) -> PushReport:
        """Push in this process; what was warned of is in ``warnings``."""
        events: list[Event] = []
        kept = None if types is None else tuple(types)
        items = [PushItem(source, target, platform, kept) for target in targets]
        with anyio.fail_after(50):
            async with Pusher(self.options(**options), on_event=events.append) as pusher:
                report = await pusher.push(items)
        self.events = events
        self.warnings = [event.message for event in events if isinstance(event, Warned)]
        return report

    def listed(self, repository: str, subject: str) -> set[str]:
        """What ECR's referrers API lists."""
        data = self.registry.client().get_authorization_token()["authorizationData"][0]
        request = urllib.request.Request(
            f"{self.registry.url}/v2/{repository}/referrers/{subject}",
            headers={"Authorization": f"Basic {data['authorizationToken']}"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return {entry["digest"] for entry in json.load(answer)["manifests"]}

    def assert_arrived(self, repository: str) -> None:
        tree = self.tree
        assert self.registry.digests(repository) == tree.tags
        found = {subject: self.listed(repository, subject) for subject in tree.referrers}
        assert found == tree.referrers


def assert_ok(report: PushReport) -> None:
    assert report.ok, [str(image.error) for image in report.failed]


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, registry: Served) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("referrers")
    tree = write_tree(folder / "layout")
    archive = archive_of(tree.layout, folder / "app.tar")
    with docker_registry_at(folder) as docker:
        made = World(tree, registry, docker, archive)
        targets = (f"docker://{docker}/source", registry.create("referrers/source"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_CONFIG", "/nonexistent")
            assert_ok(anyio.run(partial(made.copy, tree.layout, *targets, types=None)))
        yield made


@pytest.mark.parametrize("transport", ["native", "distribution"])
@pytest.mark.parametrize("kind", ["docker", "ecr", "layout", "archive"])
async def test_index_sbom_and_signatures_arrive_and_are_found(
    world: World, kind: str, transport: str
) -> None:
    repository = f"referrers/{kind}-{transport}"
    target = world.registry.create(repository)
    report = await world.copy(world.source(kind), target, transport=transport)
    assert_ok(report)
    assert world.warnings == []
    world.assert_arrived(repository)
    # Each goes once: the image, four that refer to its digests, and one to an SBOM.
    digests = [image.digest for image in report.images]
    assert len(digests) == len(set(digests)) == 6
    again = await world.copy(world.source(kind), target, transport=transport)
    assert [image.status for image in again.images] == [ImageStatus.EXISTS] * 6
    assert again.bytes_sent == 0


async def test_a_subject_is_planned_before_what_refers_to_it(world: World) -> None:
    for kind in ("docker", "layout"):
        item = PushItem(world.source(kind), f"{HOST}/order", referrers=())
        async with Pusher(world.options()) as pusher:
            plan, rejected = await pusher.plan([item])
        assert rejected == []
        order = [image.root for image in plan.images()]
        names = {digest: name for name, digest in world.tree.digests.items()}
        assert names[order[0]] == "app"
        assert [names[digest] for digest in order].index("signature of sbom") == 5
        for graph in plan.repositories.values():
            for image in graph.images:
                subject = graph.manifests[image.root].subject
                assert subject is None or subject in image.manifests


async def test_without_the_option_nothing_comes_along(world: World) -> None:
    target = world.registry.create("referrers/none")
    assert_ok(await world.copy(world.source("docker"), target, types=None))
    assert world.registry.digests("referrers/none") == {"app": world.tree["app"]}
    assert world.listed("referrers/none", world.tree["app"]) == set()


@pytest.mark.parametrize("kind", ["docker", "ecr", "layout"])
async def test_artifact_types_choose_among_referrers(world: World, kind: str) -> None:
    repository = f"referrers/types-{kind}"
    target, tree = world.registry.create(repository), world.tree
    report = await world.copy(world.source(kind), target, types=[SBOM, "*.cosign.*"])
    assert_ok(report)
    assert world.registry.digests(repository) == {
        "app": tree["app"],
        tree.cosign("app", "sig"): tree["signature"],
    }
    assert world.listed(repository, tree["app"]) == {tree["sbom"]}
    # What refers to an SBOM is another type, and so is what refers to a platform's image.
    assert len(report.images) == 3


async def test_what_is_taken_out_of_an_index_brings_its_own(world: World) -> None:
    target, tree = world.registry.create("referrers/platform"), world.tree
    report = await world.copy(world.source("docker"), f"{target}:one", platform="linux/amd64")
    assert_ok(report)
    assert {image.digest for image in report.images} == {
        tree["amd64"],
        tree["provenance"],
        tree["attestation"],
    }
    assert world.listed("referrers/platform", tree["amd64"]) == {tree["provenance"]}


async def test_all_tags_go_with_all_that_refers_to_them(world: World) -> None:
    tree, source = world.tree, f"docker://{world.docker}/source"
    target = world.registry.create("referrers/all")
    report = await world.copy(source, target, f"docker://{world.docker}/all")
    assert_ok(report)
    # The lists of referrers of the source are no images for a registry that keeps its own.
    assert set(world.registry.digests("referrers/all")) == {
        *tree.tags,
        "other",
        tree.cosign("other", "sig"),
    }
    assert world.listed("referrers/all", tree["other"]) == {tree["sbom of other"]}
    assert {s: world.listed("referrers/all", s) for s in tree.referrers} == tree.referrers
    references = [image.reference for image in report.images]
    assert len(references) == len(set(references))


def fallback_list(address: str, repository: str, subject: str) -> set[str]:
    request = urllib.request.Request(
        f"http://{address}/v2/{repository}/manifests/{subject.replace(':', '-')}",
        headers={"Accept": mediatypes.OCI_INDEX},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return {entry["digest"] for entry in json.load(answer)["manifests"]}


async def test_a_list_that_the_target_has_is_added_to_and_not_replaced(
    world: World, tmp_path: Path
) -> None:
    tree, target = world.tree, f"docker://{world.docker}/own-list"
    writer = LayoutWriter(tmp_path / "own")
    blob = writer.blob(b"own", SBOM)
    own = writer.artifact("application/own", [blob], subject=tree.descriptor("app"))
    writer.entry(own)
    writer.close()
    assert_ok(await world.copy(writer.root, target, types=None))
    assert_ok(await world.copy(f"docker://{world.docker}/source", target))
    listed = fallback_list(world.docker, "own-list", tree["app"])
    assert listed == {own["digest"], tree["sbom"]}


async def test_a_second_run_finds_what_was_signed_meanwhile(world: World, tmp_path: Path) -> None:
    tree, place = world.tree, f"docker://{world.docker}/signed"
    assert_ok(await world.copy(f"{tree.layout}:app", place, types=None))
    target = world.registry.create("referrers/signed")
    assert_ok(await world.copy(f"{place}:app", target))
    writer = LayoutWriter(tmp_path / "late")
    signed = writer.image([writer.blob(b"late", SIGNED)], config={"created": "late"})
    writer.entry(signed, tree.cosign("app", "sig"))
    sbom = writer.entry(
        writer.artifact(SBOM, [writer.blob(b"late", SBOM)], subject=tree.descriptor("app"))
    )
    writer.close()
    assert_ok(await world.copy(writer.root, place, types=None))
    async with gate_before(world.docker) as gate:
        report = await world.copy(f"docker://{gate.address}/signed:app", target)
        assert_ok(report)
        # The image itself is not read again, but for the list of its platforms.
        fetched = [
            path.rpartition("/")[2]
            for method, path in gate.requests
            if method == "GET" and "/manifests/" in path
        ]
        (listing,) = set(fetched) - {tree["app"], signed["digest"], sbom["digest"]}
        assert len(fetched) == 4
        statuses = {image.digest: image.status for image in report.images}
        assert statuses == {
            tree["app"]: ImageStatus.EXISTS,
            signed["digest"]: ImageStatus.PUSHED,
            sbom["digest"]: ImageStatus.PUSHED,
        }
        assert world.listed("referrers/signed", tree["app"]) == {sbom["digest"]}
        del gate.requests[:]
        again = await world.copy(f"docker://{gate.address}/signed:app", target)
        assert {image.status for image in again.images} == {ImageStatus.EXISTS}
        # The index, the list of its referrers, and the one that has no tag.
        assert gate.count("GET", "/manifests/") == 3
        assert gate.count("GET", listing) == 1
        assert gate.count("GET", "/blobs/") == 0
        # One call finds out that there is no such API, or one for each that was asked at once.
        assert gate.count("GET", "/referrers/") <= 3
        assert gate.count("GET", "/tags/list") == 1


async def test_where_tags_are_not_listed_they_are_asked_for_one_by_one(world: World) -> None:
    async def unlisted(request: web.Request, _gate: Gate) -> web.Response | None:
        return web.Response(status=403) if request.path.endswith("/tags/list") else None

    target = world.registry.create("referrers/unlisted")
    async with gate_before(world.docker, unlisted) as gate:
        assert_ok(await world.copy(f"docker://{gate.address}/source:app", target))
    world.assert_arrived("referrers/unlisted")


async def test_a_long_list_of_tags_is_not_read_to_its_end(world: World) -> None:
    async def endless(request: web.Request, gate: Gate) -> web.Response | None:
        if not request.path.endswith("/tags/list"):
            return None
        number = gate.count("GET", "/tags/list")
        following = f'</v2/source/tags/list?n=1000&last={number}>; rel="next"'
        return web.json_response(
            {"name": "source", "tags": [f"v{number}"]}, headers={"Link": following}
        )

    target = world.registry.create("referrers/endless")
    async with gate_before(world.docker, endless) as gate:
        assert_ok(await world.copy(f"docker://{gate.address}/source:app", target))
        # Four tags for each of the eight manifests are as many calls.
        assert gate.count("GET", "/tags/list") <= 4 * 8
    world.assert_arrived("referrers/endless")


@pytest.mark.parametrize("atomic", [False, True])
async def test_an_api_that_is_denied_fails_once_and_the_image_goes(
    world: World, atomic: bool
) -> None:
    async def denied(request: web.Request, _gate: Gate) -> web.Response | None:
        return web.Response(status=403) if "/referrers/" in request.path else None

    repository, tree = f"referrers/denied-{atomic}".lower(), world.tree
    target = world.registry.create(repository)
    async with gate_before(world.docker, denied) as gate:
        report = await world.copy(f"docker://{gate.address}/source:app", target, atomic=atomic)
    (failed,) = report.failed
    assert failed.name == "referrers of app"
    assert failed.error is not None
    where = failed.error.where
    assert where["source"] == f"docker://{gate.address}/source@{tree['app']}"
    assert where["call"] == "GET referrers"
    assert where["digest"] == failed.digest == tree["app"]
    # All of it or nothing, where that is asked for.
    assert world.registry.digests(repository) == ({} if atomic else tree.tags)


async def test_a_call_that_fails_fails_the_referrers_of_its_image_alone(world: World) -> None:
    tree = world.tree

    async def broken(request: web.Request, _gate: Gate) -> web.Response | None:
        bad = f"/referrers/{tree['other']}" in request.path
        return web.Response(status=503) if bad else None

    target = world.registry.create("referrers/broken")
    async with gate_before(world.docker, broken) as gate:
        report = await world.copy(f"docker://{gate.address}/source", target)
    assert [image.name for image in report.failed] == ["referrers of other"]
    tags = world.registry.digests("referrers/broken")
    assert tags.items() >= {**tree.tags, "other": tree["other"]}.items()
    assert world.listed("referrers/broken", tree["app"]) == {tree["sbom"]}


async def test_what_a_registry_lists_wrongly_is_left_behind(world: World) -> None:
    tree = world.tree
    missing, artifact = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"

    def entry(digest: str, media_type: str = mediatypes.OCI_MANIFEST) -> JsonDescriptor:
        path = tree.layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
        size = len(path.read_bytes()) if path.exists() else 100
        return {"mediaType": media_type, "digest": digest, "size": size}

    listed = {
        tree["app"]: [
            entry(tree["app"], mediatypes.OCI_INDEX),  # itself
            entry(tree["sbom"]),
            entry(tree["sbom of other"]),  # another's
            entry(missing),
            entry(artifact, "application/vnd.oci.artifact.manifest.v1+json"),
        ],
        # In a circle.
        tree["sbom"]: [entry(tree["app"], mediatypes.OCI_INDEX), entry(tree["sbom"])],
    }

    async def lying(request: web.Request, _gate: Gate) -> web.Response | None:
        if "/referrers/" not in request.path:
            return None
        found = listed.get(request.path.rpartition("/")[2], [])
        index = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": found}
        return web.json_response(index, content_type=mediatypes.OCI_INDEX)

    target = world.registry.create("referrers/lying")
    async with gate_before(world.docker, lying) as gate:
        report = await world.copy(f"docker://{gate.address}/source:app", target)
    (failed,) = report.failed
    assert "application/vnd.oci.artifact.manifest.v1+json cannot be copied" in str(failed.error)
    assert artifact in str(failed.error)
    assert str(gate.address) in str(failed.error)
    assert any(missing in text and "does not have it" in text for text in world.warnings)
    assert any(tree["sbom of other"] in text and "none" in text for text in world.warnings)
    world.assert_arrived("referrers/lying")


async def test_a_chain_of_signatures_ends(world: World, tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "chain")
    signed = image = writer.entry(writer.image([writer.layer({"a": b"a"})]), "app")
    for number in range(12):
        tag = f"{signed['digest'].replace(':', '-')}.sig"
        layer = writer.blob(f"{number}".encode(), SIGNED)
        signed = writer.entry(writer.image([layer], config={"created": f"{number}"}), tag)
    # One that is said to sign itself.
    writer.entry(image, f"{image['digest'].replace(':', '-')}.att")
    writer.close()
    target = world.registry.create("referrers/chain")
    report = await world.copy(f"{writer.root}:app", target)
    assert_ok(report)
    assert len(report.images) == 1 + 1 + 8
    (warning,) = world.warnings
    assert "more than 8 levels deep" in warning


async def test_atomic_pushes_move_cosigns_tags_with_the_others(world: World) -> None:
    target = world.registry.create("referrers/atomic")
    assert_ok(await world.copy(world.source("docker"), target, atomic=True))
    assert [e.tags for e in world.events if isinstance(e, TagsMoving)] == [len(world.tree.tags)]
    world.assert_arrived("referrers/atomic")


def test_a_job_brings_the_referrers_of_what_it_chooses(world: World, tmp_path: Path) -> None:
    tree, env = world.tree, environment(world.registry.url) | {"DOCKER_CONFIG": "/nonexistent"}
    source = f"docker://{world.docker}/source"

    def run(name: str, *flags: str, **more: Any) -> dict[str, str]:
        world.registry.create(f"referrers/{name}")
        job = {
            "version": 1,
            "registries": [{"hosts": [HOST]}],
            "sources": [{"images": source, "tags": {"include": ["app"]}, **more}],
            "targets": [{"repository": f"referrers/{name}"}],
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(job))
        done = asyncpush("run", path, *flags, "--lock", tmp_path / f"{name}.json", env=env)
        assert done.returncode == 0, done.stderr
        return world.registry.digests(f"referrers/{name}")

    assert run("job", referrers=True) == tree.tags
    world.assert_arrived("referrers/job")
    # A smaller index is another one, and nothing refers to it; its image stays what it was.
    kept = run("kept", "--referrers", platforms={"keep": ["linux/amd64"]})
    assert set(kept) == {"app", tree.cosign("amd64", "att")}
    assert kept["app"] != tree["app"]
    assert world.listed("referrers/kept", tree["amd64"]) == {tree["provenance"]}
    # A lock names what went, so it needs no option.
    world.registry.create("referrers/locked")
    lock = (tmp_path / "job.json").read_text().replace("referrers/job", "referrers/locked")
    (tmp_path / "locked.json").write_text(lock)
    done = asyncpush("run", tmp_path / "locked.json", env=env)
    assert done.returncode == 0, done.stderr
    world.assert_arrived("referrers/locked")
    done = asyncpush("run", tmp_path / "locked.json", "--referrers", env=env)
    assert done.returncode == 2
    assert "a lock names the referrers" in error_lines(done)[0]


def test_copy_and_verify_take_the_options(world: World) -> None:
    env = environment(world.registry.url) | {"DOCKER_CONFIG": "/nonexistent"}
    target = world.registry.create("referrers/command")
    arguments = [world.source("docker"), target]
    done = asyncpush("copy", *arguments, "--referrers-type", SBOM, "--verify", env=env)
    assert done.returncode == 0, done.stderr
    assert "2 images: 2 pushed" in done.stdout
    assert world.registry.digests("referrers/command") == {"app": world.tree["app"]}
    assert world.listed("referrers/command", world.tree["app"]) == {world.tree["sbom"]}
    done = asyncpush("verify", *arguments, "--referrers", "-q", env=env)
    assert done.returncode != 0
    assert world.tree.cosign("app", "sig") in done.stdout + done.stderr
