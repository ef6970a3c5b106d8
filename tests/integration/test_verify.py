"""Proof after a push: what is missing, changed or moved on the far side is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Served, asyncpush, docker_registry_at, environment, error_lines

from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.manifest import parse_manifest
from asyncpush.oci.writer import LayoutWriter


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


def test_blobs_that_changed_or_shrank_on_the_server_are_found_by_deep(
    tmp_path: Path, sample: Path
) -> None:
    (tmp_path / "registry").mkdir()
    with docker_registry_at(tmp_path / "registry") as address:
        target = f"docker://{address}/verify/deep"
        env = environment(None, "") | {"DOCKER_CONFIG": "/nonexistent"}
        done = asyncpush("push", sample, target, "--verify", env=env)
        assert done.returncode == 0, done.stderr
        layout = Layout(sample)
        broken = []
        for name, spoil in (
            ("service-01", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
            ("service-02", lambda data: data[: len(data) // 2]),
        ):
            (entry,) = (e for e in layout.entries if e.ref_name == name)
            raw = (sample / "blobs" / "sha256" / entry.digest[7:]).read_bytes()
            digest = parse_manifest(raw, entry.media_type).layers[-1].digest
            (file,) = (tmp_path / "registry" / "data").glob(f"**/sha256/*/{digest[7:]}/data")
            file.write_bytes(spoil(file.read_bytes()))
            broken.append(digest)
        # By digest alone everything seems to be there.
        done = asyncpush("verify", sample, target, env=env)
        assert done.returncode == 0, done.stderr
        done = asyncpush("verify", sample, target, "--deep", "--json", env=env)
        assert done.returncode == 1
        document = json.loads(done.stdout)
        found = {
            problem["where"]["digest"]: problem["message"]
            for image in document["images"]
            for problem in image["problems"]
        }
        assert set(found) == set(broken)
        assert "content is another" in found[broken[0]]
        assert "bytes there, and must have" in found[broken[1]]


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
