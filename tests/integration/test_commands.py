"""The commands beside push: demo, inspect, serve, help."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from support import ACCOUNT, KEY_ID, SECRET, Served, asyncpush, environment, error_lines, serve

from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter


def test_demo_pushes_and_reads_everything_back(tmp_path: Path) -> None:
    done = asyncpush("demo", "--root", tmp_path / "demo", env=environment(None, ""), timeout=120)

    assert done.returncode == 0, done.stderr
    assert "15 images: 15 pushed" in done.stdout
    digests = {p.name for p in (tmp_path / "demo/layout/blobs/sha256").iterdir()}
    assert f"read back and proved {len(digests)} digests" in done.stdout
    assert "asyncpush serve" in done.stdout

    again = asyncpush("demo", "--root", tmp_path / "demo", env=environment(None, ""), timeout=120)

    assert again.returncode == 0, again.stderr
    assert "15 images: 15 there already; 0 B sent" in again.stdout


def test_demo_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = asyncpush("demo", "--root", tmp_path / "file" / "demo", env=environment(None, ""))

    (line,) = error_lines(done)
    assert "Not a directory" in line
    assert "--root" in line
    assert done.returncode == 2


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(registry: Served, sample: Path, closed: str) -> None:
    target = registry.create(f"closed-{closed.encode().hex()}")
    command = f"{sys.executable} -m asyncpush push {sample}:legacy {target} {closed}"
    done = subprocess.run(
        ["sh", "-c", command], env=environment(registry.url), capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert list(registry.digests(target.partition("/")[2])) == ["legacy"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["inspect", "inspect --json", "schema job"])
def test_output_that_cannot_be_written_is_one_line(sample: Path, command: str) -> None:
    words = [*command.split(), *([str(sample)] if command.startswith("inspect") else [])]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "asyncpush", *words],
            env=environment(None, ""),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.stderr.splitlines() == [
        "error: standard output cannot be written: No space left on device"
    ]
    assert done.returncode == 1


def test_inspect_shows_every_entry_with_sizes(sample: Path) -> None:
    text = asyncpush("inspect", sample, env=environment(None, ""))
    document = json.loads(asyncpush("inspect", sample, "--json", env=environment(None, "")).stdout)

    assert text.returncode == 0, text.stderr
    for words in ("service-01 sha256:", "gateway sha256:", "linux/arm64", "legacy sha256:"):
        assert words in text.stdout
    assert "artifact application/spdx+json subject sha256:" in text.stdout
    assert document["totals"]["entries"] == 15
    files = [p.stat().st_size for p in (sample / "blobs").rglob("*") if p.is_file()]
    assert (document["totals"]["blobs"], document["totals"]["bytes"]) == (len(files), sum(files))


def test_inspect_marks_what_is_broken_and_shows_the_rest(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layout")
    layer = writer.blob(b"layer", mediatypes.OCI_LAYER)
    writer.entry(writer.image([layer]), "broken")
    writer.entry(writer.image([writer.blob(b"other", mediatypes.OCI_LAYER)]), "whole")
    root = writer.close()
    (root / "blobs" / layer["digest"].replace(":", "/")).unlink()

    done = asyncpush("inspect", root, env=environment(None, ""))

    (line,) = error_lines(done)
    assert "does not hold this blob" in line
    assert "whole" in done.stdout
    assert done.returncode == 1


def test_served_content_survives_kill_9(tmp_path: Path, sample: Path) -> None:
    with serve(tmp_path) as served:
        target = served.create("kept/app")
        assert asyncpush("push", sample, target, env=environment(served.url)).returncode == 0
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait(10)
    with serve(tmp_path) as served:
        wanted = {e.ref_name: e.digest for e in Layout(sample).entries}
        assert served.digests("kept/app") == wanted
        again = asyncpush("push", sample, target, "--json", env=environment(served.url))
        assert json.loads(again.stdout)["bytes_sent"] == 0


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("{", "no JSON"),
        ('{"keys": []}', "no list of keys"),
        ('{"keys": [{"access_key_id": "x"}]}', "keys[0]"),
    ],
)
def test_serve_names_what_is_wrong_in_its_keys(tmp_path: Path, keys: str, words: str) -> None:
    (tmp_path / "keys.json").write_text(keys)

    done = asyncpush("serve", "--keys", tmp_path / "keys.json", env=environment(None, ""))

    (line,) = error_lines(done)
    assert words in line
    assert "keys.json" in line
    assert done.returncode == 2


def test_serve_creates_repositories(tmp_path: Path) -> None:
    with serve(
        tmp_path, (), "--repository", "a/one", "--repository", "a/two", "--region", "eu-west-1"
    ):
        pass
    with serve(tmp_path, (), "--repository", "a/one", "--region", "eu-west-1") as served:
        client = served.client()
        assert client.describe_repositories()["repositories"] == []
        west = boto3.client(
            "ecr",
            region_name="eu-west-1",
            endpoint_url=served.url,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
        )
        names = {r["repositoryName"] for r in west.describe_repositories()["repositories"]}
        assert names == {"a/one", "a/two"}
        assert west.describe_repositories()["repositories"][0]["registryId"] == ACCOUNT


@pytest.mark.parametrize("command", [(), ("push",), ("serve",), ("demo",), ("inspect",)])
def test_help_is_there(command: tuple[str, ...]) -> None:
    done = asyncpush(*command, "--help", env=environment(None, ""))

    assert done.returncode == 0
    assert "Usage:" in done.stdout
