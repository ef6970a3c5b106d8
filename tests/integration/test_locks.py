"""``--lock`` and ``--image-refs``: what a run wrote, pushed again elsewhere, is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from support import HOST, asyncpush, environment, error_lines, serve

from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter


def layout(folder: Path) -> None:
    writer = LayoutWriter(folder)
    members = []
    for name in ("amd64", "arm64", "s390x"):
        layer = writer.blob(name.encode() * 5000, mediatypes.OCI_LAYER)
        image = writer.image([layer], config={"for": name})
        members.append({**image, "platform": {"os": "linux", "architecture": name}})
    writer.entry(writer.index(members), "v1")
    writer.entry(members[2], "plain")
    writer.close()


def job(folder: Path, **source: Any) -> Path:
    document = {
        "version": 1,
        "registries": [{"hosts": [HOST]}],
        "sources": [{"layouts": "app", **source}],
        "targets": [{"repository": "one"}, {"repository": "two", "tags": ["{tag}", "{tag}-x"]}],
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_lock_pushes_exactly_the_same_set_again(tmp_path: Path) -> None:
    layout(tmp_path / "app")
    path = job(tmp_path, platforms={"keep": ["linux/amd64", "linux/arm64"]})
    lock, refs = tmp_path / "lock.json", tmp_path / "refs.txt"
    more = ("--lock", lock, "--image-refs", refs, "--create-repositories", "--no-journal")
    with serve(tmp_path / "first") as first:
        done = asyncpush("run", path, *more, env=environment(first.url))
        assert done.returncode == 0, done.stderr
        wanted = {name: first.digests(name) for name in ("one", "two")}
    assert set(wanted["two"]) == {"v1", "v1-x", "plain", "plain-x"}
    lines = refs.read_text().splitlines()
    assert lines == sorted(
        f"{HOST}/{name}@{digest}" for name in wanted for digest in set(wanted[name].values())
    )
    assert [image.get("keep") for image in json.loads(lock.read_text())["images"]].count(
        ["linux/amd64", "linux/arm64"]
    ) == 1
    before = lock.read_bytes()
    with serve(tmp_path / "second") as second:
        env = environment(second.url)
        done = asyncpush("run", lock, *more, env=env)
        assert done.returncode == 0, done.stderr
        assert {name: second.digests(name) for name in ("one", "two")} == wanted
        assert lock.read_bytes() == before
        assert asyncpush("run", lock, "--no-journal", env=env).returncode == 4
        done = asyncpush("run", lock, "--only", "x", env=env)
        assert done.returncode == 2
        assert "are for job files" in done.stderr
        lock.write_bytes(before[:-40])
        (line,) = error_lines(asyncpush("run", lock, env=env))
        assert "the lock cannot be read: this is no JSON" in line


def test_a_run_that_fails_leaves_the_lock_before_it_and_says_so(tmp_path: Path) -> None:
    layout(tmp_path / "app")
    lock = tmp_path / "lock.json"
    lock.write_text("before")
    with serve(tmp_path / "registry") as served:
        served.client().create_repository(repositoryName="one")
        env = environment(served.url)
        more = ("--lock", lock, "--image-refs", tmp_path / "refs", "--no-journal")
        done = asyncpush("run", job(tmp_path), *more, env=env)
        assert done.returncode == 1
        assert "no lock is written" in done.stderr
        assert lock.read_text() == "before"
        assert (tmp_path / "refs").read_text().count(f"{HOST}/one@") == 2
        done = asyncpush("run", job(tmp_path), "--lock", tmp_path / "no" / "lock", env=env)
        assert done.returncode == 2
        assert len(error_lines(done)) == 1
