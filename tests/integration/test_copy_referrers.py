"""What refers to an image comes along, by the referrers API, its tag fallback, cosign's tags."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import HOST, Served, asyncpush, docker_registry_at, environment, error_lines
from tarfiles import archive_of

from asyncpush.oci.writer import JsonDescriptor, LayoutWriter

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

    @property
    def env(self) -> dict[str, str]:
        return environment(self.registry.url) | {"DOCKER_CONFIG": "/nonexistent"}

    def source(self, kind: str, name: str = "app") -> str:
        return {
            "docker": f"docker://{self.docker}/source:{name}",
            "ecr": f"{HOST}/referrers/source:{name}",
            "layout": f"{self.tree.layout}:{name}",
            "archive": f"oci-archive:{self.archive}:{name}",
        }[kind]

    def copy(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        done = asyncpush("copy", *arguments, "--json", env=self.env)
        assert done.returncode == code, done.stderr + done.stdout
        self.errors = error_lines(done)
        report: dict[str, Any] = json.loads(done.stdout)
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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, registry: Served) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("referrers")
    tree = write_tree(folder / "layout")
    archive = archive_of(tree.layout, folder / "app.tar")
    with docker_registry_at(folder) as docker:
        made = World(tree, registry, docker, archive)
        registry.create("referrers/source")
        for target in (f"docker://{docker}/source", f"{HOST}/referrers/source"):
            made.copy(tree.layout, target)
        yield made


@pytest.mark.parametrize("transport", ["native", "distribution"])
@pytest.mark.parametrize("kind", ["docker", "ecr", "layout", "archive"])
def test_index_sbom_and_signatures_arrive_and_are_found(
    world: World, kind: str, transport: str
) -> None:
    repository = f"referrers/{kind}-{transport}"
    target = world.registry.create(repository)
    command = [world.source(kind), target, "--referrers", "--transport", transport]
    report = world.copy(*command)
    assert not world.errors
    world.assert_arrived(repository)
    # Each is there once, and the image comes first.
    digests = [image["digest"] for image in report["images"]]
    assert len(digests) == len(set(digests)) == 6
    again = world.copy(*command)
    assert {image["status"] for image in again["images"]} == {"exists"}
    assert len(again["images"]) == 6
    done = asyncpush("verify", command[0], target, "--referrers", env=world.env)
    assert done.returncode == 0, done.stderr


def test_without_the_option_nothing_comes_along(world: World) -> None:
    target = world.registry.create("referrers/none")
    world.copy(world.source("docker"), target)
    assert world.registry.digests("referrers/none") == {"app": world.tree["app"]}
    assert world.listed("referrers/none", world.tree["app"]) == set()
