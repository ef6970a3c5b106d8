"""Real programs as judges: skopeo reads what was pushed, docker-registry proves what it carries."""

from __future__ import annotations

import base64
import subprocess
import urllib.request
from pathlib import Path

import pytest
from support import Served, asyncpush, environment, require_program

from asyncpush.oci.digest import compute
from asyncpush.oci.layout import Layout


@pytest.fixture(scope="module")
def pushed(registry: Served, sample: Path) -> tuple[str, list[str]]:
    """The sample in the local registry: where, and how skopeo logs in."""
    target = registry.create("real/programs")
    done = asyncpush("push", sample, target, env=environment(registry.url))
    assert done.returncode == 0, done.stderr
    answer = registry.client().get_authorization_token()["authorizationData"][0]
    credentials = base64.b64decode(answer["authorizationToken"]).decode()
    source = f"docker://{registry.url.removeprefix('http://')}/real/programs"
    return source, ["--src-tls-verify=false", "--src-creds", credentials]


def skopeo_copy(*arguments: str) -> None:
    command = [require_program("skopeo"), "copy", "--insecure-policy", "--preserve-digests"]
    done = subprocess.run(
        [*command, "--all", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_skopeo_reads_every_entry_back_with_the_same_digests(
    pushed: tuple[str, list[str]], sample: Path, tmp_path: Path
) -> None:
    source, login = pushed
    for entry in Layout(sample).entries:
        folder = tmp_path / str(entry.ref_name)
        skopeo_copy(*login, f"{source}:{entry.ref_name}", f"dir:{folder}")
        assert compute((folder / "manifest.json").read_bytes()) == entry.digest
        for blob in folder.iterdir():
            if len(blob.name) == 64:
                assert compute(blob.read_bytes()) == f"sha256:{blob.name}"


def test_docker_registry_takes_and_proves_what_skopeo_carries_over(
    pushed: tuple[str, list[str]], sample: Path, docker_registry: str
) -> None:
    source, login = pushed
    for entry in Layout(sample).entries:
        target = f"docker://{docker_registry}/copied:{entry.ref_name}"
        skopeo_copy(*login, "--dest-tls-verify=false", f"{source}:{entry.ref_name}", target)
        request = urllib.request.Request(
            f"http://{docker_registry}/v2/copied/manifests/{entry.ref_name}",
            headers={"Accept": entry.media_type},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.headers["Docker-Content-Digest"] == entry.digest
            assert compute(answer.read()) == entry.digest
