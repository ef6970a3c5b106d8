"""Proof after a push: what is missing, changed or moved on the far side is found."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import Served, asyncpush, docker_registry_at, environment, error_lines, serve

from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.manifest import ImageManifest, parse_manifest
from asyncpush.oci.writer import LayoutWriter

ANYWHERE = environment(None, "") | {"DOCKER_CONFIG": "/nonexistent"}


def test_what_was_pushed_is_proven_and_a_tag_that_moved_is_found(
    registry: Served, sample: Path, tmp_path: Path
) -> None:
    target = registry.create("verify/native")
    env = environment(registry.url)
    done = asyncpush("push", sample, target, "--verify", env=env)
    assert done.returncode == 0, done.stderr
    assert "verified 15 images (manifests byte for byte, blobs by digest): 15 good, 0 not" in (
        done.stdout
    )
    done = asyncpush("verify", sample, target, "--deep", env=env)
    assert done.returncode == 0, done.stderr
    assert "verified 15 images (byte for byte): 15 good, 0 not" in done.stdout

    writer = LayoutWriter(tmp_path / "other")
    other = writer.image([writer.blob(b"other", mediatypes.OCI_LAYER)])
    writer.entry(other, "service-03")
    assert asyncpush("push", writer.close(), target, env=env).returncode == 0
    done = asyncpush("verify", sample, target, env=env)
    assert done.returncode == 1
    (line,) = error_lines(done)
    assert f"the tag points to {other['digest']}" in line
    assert "service-03" in line


@pytest.fixture(scope="module", params=["docker-registry", "local registry"])
def v2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[V2]:
    """A registry that is spoken to with OCI distribution, and where it keeps its content."""
    folder = tmp_path_factory.mktemp("v2")
    if request.param == "docker-registry":
        with docker_registry_at(folder) as address:
            yield V2(address, folder / "data")
    else:
        with serve(folder, (), "--open") as served:
            yield V2(served.url.removeprefix("http://"), folder / "store")


@dataclass(frozen=True)
class V2:
    address: str
    folder: Path

    def content_of(self, digest: str) -> Path:
        """The file that holds a blob."""
        encoded = digest.partition(":")[2]
        files = [f for f in self.folder.glob(f"**/*{encoded}*/**/data") if f.is_file()]
        (file,) = files or [f for f in self.folder.glob(f"**/*{encoded}*") if f.is_file()]
        return file


def layer_of(sample: Path, name: str) -> str:
    """The last layer of an entry."""
    (entry,) = (e for e in Layout(sample).entries if e.ref_name == name)
    raw = (sample / "blobs" / "sha256" / entry.digest[7:]).read_bytes()
    manifest = parse_manifest(raw, entry.media_type)
    assert isinstance(manifest, ImageManifest)
    return manifest.layers[-1].digest


def problems_of(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What a verification found, by digest."""
    assert done.returncode == 1
    return {
        problem["where"]["digest"]: problem["message"]
        for image in json.loads(done.stdout)["images"]
        for problem in image["problems"]
    }


def test_a_tag_that_points_elsewhere_is_found(v2: V2, sample: Path, tmp_path: Path) -> None:
    target = f"docker://{v2.address}/verify/tags"
    assert asyncpush("push", sample, target, env=ANYWHERE).returncode == 0
    writer = LayoutWriter(tmp_path / "other")
    other = writer.image([writer.blob(b"other", mediatypes.OCI_LAYER)])
    writer.entry(other, "service-03")
    assert asyncpush("push", writer.close(), target, env=ANYWHERE).returncode == 0
    done = asyncpush("verify", sample, target, env=ANYWHERE)
    assert done.returncode == 1
    (line,) = error_lines(done)
    assert f"the tag points to {other['digest']}" in line


def test_blobs_that_changed_or_shrank_on_the_server_are_found(v2: V2, sample: Path) -> None:
    target = f"docker://{v2.address}/verify/deep"
    done = asyncpush("push", sample, target, "--verify", env=ANYWHERE)
    assert done.returncode == 0, done.stderr
    changed, shrunk = layer_of(sample, "service-01"), layer_of(sample, "service-02")
    for digest in (changed, shrunk):
        data = v2.content_of(digest).read_bytes()
        bad = data[:-1] + bytes([data[-1] ^ 1]) if digest == changed else data[: len(data) // 2]
        v2.content_of(digest).write_bytes(bad)
    done = asyncpush("verify", sample, target, "--deep", "--json", env=ANYWHERE)
    found = problems_of(done)
    assert set(found) == {changed, shrunk}
    assert "content is another" in found[changed]
    assert "bytes there, and must have" in found[shrunk]
    if v2.folder.name == "data":
        # docker-registry tells the sizes of its files, so one that shrank is found without that.
        done = asyncpush("verify", sample, target, "--json", env=ANYWHERE)
        assert set(problems_of(done)) == {shrunk}


def test_a_referrer_that_is_gone_is_found(registry: Served, sample: Path) -> None:
    target = registry.create("verify/referrers")
    env = environment(registry.url)
    assert asyncpush("push", sample, target, env=env).returncode == 0
    (referrer,) = (
        entry
        for entry in Layout(sample).entries
        if b'"subject"' in (sample / "blobs" / "sha256" / entry.digest[7:]).read_bytes()
    )
    registry.client().batch_delete_image(
        repositoryName="verify/referrers", imageIds=[{"imageDigest": referrer.digest}]
    )
    done = asyncpush("verify", sample, target, "--json", env=env)
    assert done.returncode == 1
    broken = [i for i in json.loads(done.stdout)["images"] if not i["ok"]]
    assert [image["digest"] for image in broken] == [referrer.digest]
    assert [problem["message"] for problem in broken[0]["problems"]] == [
        "the repository does not have this manifest",
        "the tag does not exist",
    ]


def test_what_was_never_pushed_is_found(registry: Served, sample: Path) -> None:
    target = registry.create("verify/empty")
    done = asyncpush("verify", f"{sample}:service-01", target, env=environment(registry.url))
    assert done.returncode == 1
    lines = error_lines(done)
    assert any("does not have this manifest" in line for line in lines)
    assert any("the tag does not exist" in line for line in lines)
    assert any("does not have this blob" in line for line in lines)


def test_a_job_is_verified_in_all_its_registries(
    registry: Served, sample: Path, tmp_path: Path
) -> None:
    target = registry.create("verify/job")
    job = tmp_path / "job.yaml"
    job.write_text(
        json.dumps(
            {
                "version": 1,
                "registries": [{"hosts": [target.partition("/")[0]]}],
                "sources": [{"layouts": str(sample)}],
                "targets": [{"repository": "verify/job"}],
            }
        )
    )
    env = environment(registry.url)
    assert asyncpush("verify", job, env=env).returncode == 1
    assert asyncpush("run", job, "--verify", env=env).returncode == 0
    done = asyncpush("verify", job, env=env)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["nothing"], ["layout", "no-target"]])
def test_what_cannot_be_meant_is_a_matter_of_usage(arguments: list[str]) -> None:
    done = asyncpush("verify", *arguments, env=environment(None))
    assert done.returncode == 2
    assert len(error_lines(done)) == 1
