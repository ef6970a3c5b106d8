"""Job files whose images are in registries: what ``plan`` finds, and what it says is left out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import (
    HOST,
    KEY_ID,
    SECRET,
    Served,
    asyncpush,
    docker_registry_at,
    environment,
    error_lines,
    serve,
)

from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

LISTS_NOTHING = "AKIDLISTSNOTHING0000"
REPOSITORIES = ("team/api", "team/web", "team/deep/er", "other/app")
TAGS = ("v1.0.0", "v1.1.0", "v2.0.0-rc.1", "latest")


@dataclass
class World:
    """A registry of each kind with the same images, and a folder for job files."""

    folder: Path
    served: Served
    docker: str

    def plan(self, *sources: dict[str, Any], key: str = KEY_ID, **more: Any) -> dict[str, Any]:
        job = {
            "version": 1,
            "registries": [{"hosts": [HOST]}],
            "sources": sources,
            "targets": [{"repository": "mirror/{source.repository}"}],
            **more,
        }
        path = self.folder / "job.yaml"
        path.write_text(yaml.safe_dump(job))
        self.done = asyncpush("plan", path, "--json", env=environment(self.served.url, key))
        assert self.done.stdout, self.done.stderr
        found: dict[str, Any] = json.loads(self.done.stdout)
        return found

    def references(self, found: dict[str, Any]) -> list[str]:
        prefix = f"{HOST}/mirror/"
        return sorted(image["reference"].removeprefix(prefix) for image in found["images"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("choosing")
    writer = LayoutWriter(folder / "layout")
    for tag in TAGS:
        layer = writer.blob(tag.encode() * 1000, mediatypes.OCI_LAYER)
        writer.entry(writer.image([layer], config={"tag": tag}), tag)
    writer.close()
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:ListImages"],
                "Resource": "*",
            }
        ],
    }
    limited = {
        "access_key_id": LISTS_NOTHING,
        "secret_access_key": SECRET,
        "account": HOST.partition(".")[0],
        "user": "limited",
        "policy": policy,
    }
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(serve(folder / "ecr", [limited]))
        docker = stack.enter_context(docker_registry_at(folder))
        seed = {
            "version": 1,
            "registries": [{"hosts": [HOST, f"docker://{docker}"]}],
            "sources": [{"layouts": "layout"}],
            "targets": [{"repository": name} for name in REPOSITORIES],
        }
        (folder / "seed.yaml").write_text(yaml.safe_dump(seed))
        env = environment(served.url)
        done = asyncpush("run", folder / "seed.yaml", "--create-repositories", "-q", env=env)
        assert done.returncode == 0, done.stderr
        yield World(folder, served, docker)


@pytest.fixture(params=["docker-registry", "ecr"])
def source(request: pytest.FixtureRequest, world: World) -> str:
    return f"docker://{world.docker}" if request.param == "docker-registry" else HOST


def test_patterns_and_ranges_choose_and_plan_says_what_is_left_out(
    world: World, source: str
) -> None:
    found = world.plan({"images": f"{source}/team/*", "tags": {"semver": "^1", "newest": 1}})
    assert world.done.stderr == ""
    assert world.references(found) == ["team/api:v1.1.0", "team/web:v1.1.0"]
    left = {one["source"]: one for one in found["left_out"]["choices"]}
    host = source.removeprefix("docker://")
    assert set(left) == {f"{host}/team/api", f"{host}/team/web"}
    assert {rule["rule"]: rule["examples"] for rule in left[f"{host}/team/api"]["left_out"]} == {
        "semver ^1": ["v2.0.0-rc.1"],
        "semver ^1 (no version)": ["latest"],
        "newest 1": ["v1.0.0"],
    }
    done = asyncpush("plan", world.folder / "job.yaml", env=environment(world.served.url))
    assert f"{host}/team/web: newest 1 leaves out 1 (v1.0.0)" in done.stdout


def test_single_images_and_whole_repositories(world: World) -> None:
    docker = f"docker://{world.docker}"
    found = world.plan({"images": [f"{HOST}/team/deep/er:latest", f"{docker}/other/app"]})
    assert world.references(found) == [
        *(f"other/app:{tag}" for tag in sorted(TAGS)),
        "team/deep/er:latest",
    ]


def test_ecr_has_times_and_other_registries_say_that_they_have_none(world: World) -> None:
    found = world.plan({"images": f"{HOST}/other/*", "tags": {"newer_than": "1h"}})
    assert len(found["images"]) == 4
    found = world.plan({"images": f"docker://{world.docker}/other/*", "tags": {"newer_than": "1h"}})
    assert world.done.returncode == 2
    (line,) = [result["error"]["message"] for result in found["rejected"]]
    assert line == f"newer_than needs times of pushes, and {world.docker} lists none"


def test_what_is_not_there_is_one_line_and_the_rest_goes(world: World, source: str) -> None:
    found = world.plan(
        {"images": f"{source}/nobody/*"},
        {"images": f"{source}/other/none"},
        {"images": f"{source}/other/app:none"},
        {"images": f"{source}/other/app", "tags": {"include": ["nothing-*"]}},
        {"images": f"{source}/other/app:latest"},
    )
    assert world.done.returncode == 1
    assert world.references(found) == ["other/app:latest"]
    lines = [result["error"]["message"] for result in found["rejected"]]
    assert lines[0] == "no repository matches the pattern"
    assert "does not exist" in lines[1]
    assert lines[2] == "there is no tag none in the source repository"
    assert lines[3].startswith("no tag of 1 repository is chosen: include nothing-* leaves out ")
    assert len(lines) == 4


def test_a_catalog_that_is_denied_says_what_to_list_instead(world: World) -> None:
    found = world.plan({"images": f"{HOST}/team/*"}, key=LISTS_NOTHING)
    (error,) = [result["error"] for result in found["rejected"]]
    assert error["kind"] == "access-denied"
    assert "name the repositories in images: instead of a pattern" in error["advice"]
    assert world.done.returncode == 1


def test_a_source_with_a_profile_that_is_not_there_fails_alone(world: World) -> None:
    found = world.plan(
        {"images": f"{HOST}/other/app:latest", "profile": "nobody"},
        {"images": f"{HOST}/team/api:latest"},
    )
    assert world.references(found) == ["team/api:latest"]
    (error,) = [result["error"] for result in found["rejected"]]
    assert "nobody" in error["message"]
    assert not [line for line in error_lines(world.done) if "Traceback" in line]


def test_chosen_images_arrive_and_their_lock_finds_nothing_to_do(world: World, source: str) -> None:
    world.plan({"images": f"{source}/team/*", "tags": {"semver": "^1"}})
    env = environment(world.served.url)
    lock = world.folder / "lock.json"
    job = ("run", world.folder / "job.yaml", "--create-repositories", "--lock", lock)
    done = asyncpush(*job, "--no-journal", env=env)
    assert done.returncode in (0, 4), done.stderr
    whole = world.served.digests("team/api")
    assert world.served.digests("mirror/team/api") == {t: whole[t] for t in ("v1.0.0", "v1.1.0")}
    host = source.removeprefix("docker://")
    sources = {image["source"] for image in json.loads(lock.read_text())["images"]}
    assert sources == {f"docker://{host}/team/api", f"docker://{host}/team/web"}
    done = asyncpush("run", lock, "--no-journal", env=env)
    assert done.returncode == 4, done.stderr
