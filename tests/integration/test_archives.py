"""Archives as sources: the digests that skopeo's own copy gives, and nothing unpacked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path

import pytest
from support import Served, asyncpush, environment, require_program

from asyncpush.oci import mediatypes
from asyncpush.oci.digest import compute
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter


def skopeo(*arguments: str) -> None:
    command = [require_program("skopeo"), "copy", "--insecure-policy", "--preserve-digests"]
    done = subprocess.run(
        [*command, "--dest-tls-verify=false", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def digest_at(address: str, repository: str, tag: str) -> str:
    kinds = f"{mediatypes.OCI_MANIFEST},{mediatypes.DOCKER_MANIFEST}"
    request = urllib.request.Request(
        f"http://{address}/v2/{repository}/manifests/{tag}", headers={"Accept": kinds}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return compute(answer.read())


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout of one runnable image of two uncompressed layers, with a true config."""
    folder = tmp_path_factory.mktemp("image")
    writer = LayoutWriter(folder / "layout")
    layers = []
    for i in range(2):
        (folder / f"file{i}").write_bytes(os.urandom(300_000))
        with tarfile.open(folder / f"{i}.tar", "w") as tar:
            tar.add(folder / f"file{i}", arcname=f"file{i}")
        layers.append(writer.blob((folder / f"{i}.tar").read_bytes(), mediatypes.OCI_LAYER))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        "history": [{"created_by": "test"}, {"created_by": "test"}],
    }
    described = writer.blob(json.dumps(config).encode(), mediatypes.OCI_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": described,
        "layers": layers,
    }
    raw = json.dumps(manifest).encode()
    writer.entry(writer.blob(raw, mediatypes.OCI_MANIFEST), "v1")
    return writer.close()


def test_an_oci_archive_gives_the_digests_of_skopeos_copy(
    image: Path, registry: Served, docker_registry: str, tmp_path: Path
) -> None:
    archive = tmp_path / "oci.tar"
    skopeo(f"oci:{image}:v1", f"oci-archive:{archive}:v1")
    skopeo(f"oci-archive:{archive}:v1", f"docker://{docker_registry}/skopeo/oci:v1")

    target = registry.create("archives/oci")
    done = asyncpush("push", f"oci-archive:{archive}", target, env=environment(registry.url))
    assert done.returncode == 0, done.stderr
    assert registry.digests("archives/oci") == {
        "v1": digest_at(docker_registry, "skopeo/oci", "v1")
    }


def test_a_docker_archive_gives_the_digests_of_skopeos_copy(
    image: Path, registry: Served, docker_registry: str, tmp_path: Path
) -> None:
    archive = tmp_path / "docker.tar"
    command = [require_program("skopeo"), "copy", "--insecure-policy", f"oci:{image}:v1"]
    subprocess.run([*command, f"docker-archive:{archive}:team/app:v1"], check=True, timeout=60)
    skopeo(f"docker-archive:{archive}", f"docker://{docker_registry}/skopeo/docker:v1")

    target = registry.create("archives/docker")
    source = f"docker-archive:{archive}"
    done = asyncpush("push", source, target, "--verify", env=environment(registry.url))
    assert done.returncode == 0, done.stderr
    assert registry.digests("archives/docker") == {
        "v1": digest_at(docker_registry, "skopeo/docker", "v1")
    }
    # The same over the other API, straight from the middle of the file.
    done = asyncpush(
        "push",
        f"{source}:docker.io/team/app:v1",
        f"docker://{docker_registry}/asyncpush/docker:v1",
        "--verify",
        env=environment(None, "") | {"DOCKER_CONFIG": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr


def test_docker_25s_form_is_pushed_as_the_layout_that_it_holds(
    image: Path, registry: Served, tmp_path: Path
) -> None:
    archive = tmp_path / "docker25.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(image, arcname=".")
        (tmp_path / "manifest.json").write_text("[]")
        tar.add(tmp_path / "manifest.json", arcname="manifest.json")
    target = registry.create("archives/docker25")
    source = f"docker-archive:{archive}"
    done = asyncpush("push", source, target, env=environment(registry.url))
    assert done.returncode == 0, done.stderr
    assert registry.digests("archives/docker25") == {
        e.ref_name: e.digest for e in Layout(image).entries
    }
    shown = asyncpush("inspect", source, env=environment(None))
    assert shown.returncode == 0, shown.stderr


def peak_of(source: Path, target: str, env: dict[str, str]) -> float:
    """Peak MiB of a push; the process reads it itself, since a child inherits ru_maxrss."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom asyncpush.cli import main\n"
        "sys.argv = ['asyncpush', 'push', '-q', *sys.argv[1:]]\n"
        "try:\n main.main()\nexcept SystemExit as exc:\n assert not exc.code, exc.code\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(status.split('VmHWM:')[1].split()[0])\n"
    )
    command = [sys.executable, "-c", code, f"oci-archive:{source}", target]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / 1024


def test_memory_does_not_grow_with_the_archive(registry: Served, tmp_path: Path) -> None:
    peaks = []
    for mib in (10, 200):
        writer = LayoutWriter(tmp_path / f"layout{mib}")
        layers = [
            writer.blob(os.urandom(mib * 1024 * 1024 // 4), mediatypes.OCI_LAYER) for _ in range(4)
        ]
        writer.entry(writer.image(layers), "v1")
        path = tmp_path / f"{mib}.tar"
        with tarfile.open(path, "w") as tar:
            tar.add(writer.close(), arcname=".")
        target = registry.create(f"archives/memory{mib}")
        peaks.append(peak_of(path, target, environment(registry.url)))
    assert peaks[1] - peaks[0] < 15
