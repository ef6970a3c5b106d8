"""Archives as sources: the digests that skopeo's own copy gives, and nothing unpacked."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Served, asyncpush, environment, error_lines, require_program
from tarfiles import archive_of, tar_of

from asyncpush.oci import mediatypes
from asyncpush.oci.archive import open_archive
from asyncpush.oci.digest import compute
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

try:
    from compression import zstd
except ImportError:
    from backports import zstd

ANYWHERE = environment(None, "") | {"DOCKER_CONFIG": "/nonexistent"}


def skopeo(*arguments: str, preserve: bool = True) -> None:
    command = [require_program("skopeo"), "copy", "--insecure-policy"]
    command += ["--preserve-digests"] if preserve else []
    done = subprocess.run(
        [*command, "--src-tls-verify=false", "--dest-tls-verify=false", *arguments],
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
    skopeo(f"oci:{image}:v1", f"docker-archive:{archive}:team/app:v1", preserve=False)
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
        f"{source}:team/app:v1",
        f"docker://{docker_registry}/asyncpush/docker:v1",
        "--verify",
        env=ANYWHERE,
    )
    assert done.returncode == 0, done.stderr


def test_docker_25s_form_gives_the_digests_of_the_layout_that_it_holds(
    image: Path, docker_registry: str, tmp_path: Path
) -> None:
    archive = tmp_path / "docker25.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(image, arcname=".")
        (tmp_path / "manifest.json").write_text("[]")
        tar.add(tmp_path / "manifest.json", arcname="manifest.json")
    skopeo(f"oci-archive:{archive}:v1", f"docker://{docker_registry}/skopeo/docker25:v1")
    source = f"docker-archive:{archive}"
    target = f"docker://{docker_registry}/archives/docker25"
    done = asyncpush("push", source, target, "--verify", env=ANYWHERE)
    assert done.returncode == 0, done.stderr
    assert digest_at(docker_registry, "archives/docker25", "v1") == digest_at(
        docker_registry, "skopeo/docker25", "v1"
    )


@pytest.fixture(scope="module")
def two_images(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of docker's older form with an image of two names, and one that has none."""
    folder = tmp_path_factory.mktemp("two")
    writer = LayoutWriter(folder / "layout")
    layer = writer.blob(os.urandom(300_000), mediatypes.OCI_LAYER)
    writer.entry(writer.image([layer], config={"os": "linux"}), "other")
    images: list[Any] = []
    members: dict[str, bytes] = {}
    for source in (f"oci:{image}:v1", f"oci:{writer.close()}:other"):
        path = folder / f"{len(images)}.tar"
        skopeo(source, f"docker-archive:{path}:team/app:v1", preserve=False)
        with tarfile.open(path) as tar:
            for member in tar:
                if file := tar.extractfile(member):
                    members[member.name] = file.read()
        images += json.loads(members["manifest.json"])
    images[0]["RepoTags"].append("team/app:v2")
    images[1]["RepoTags"] = None
    return tar_of(folder / "two.tar", {**members, "manifest.json": json.dumps(images).encode()})


def test_images_of_one_file_are_chosen_as_skopeo_chooses_them(
    two_images: Path, docker_registry: str
) -> None:
    source = f"docker-archive:{two_images}"
    target = f"docker://{docker_registry}/asyncpush/chosen"
    digests = []
    for selector, tag in (("team/app:v2", "named"), ("@0", "first"), ("@1", "second")):
        skopeo(f"{source}:{selector}", f"docker://{docker_registry}/skopeo/chosen:{tag}")
        done = asyncpush("push", f"{source}:{selector}", f"{target}:{tag}", env=ANYWHERE)
        assert done.returncode == 0, done.stderr
        digests.append(digest_at(docker_registry, "asyncpush/chosen", tag))
        assert digests[-1] == digest_at(docker_registry, "skopeo/chosen", tag)
    assert digests[0] == digests[1] != digests[2]
    shown = asyncpush("inspect", f"{source}:@1", "--json", env=ANYWHERE)
    (entry,) = json.loads(shown.stdout)["entries"]
    assert entry["digest"] == digests[2]
    done = asyncpush("verify", f"{source}:team/app:v1", f"{target}:named", "--deep", env=ANYWHERE)
    assert done.returncode == 0, done.stderr
    done = asyncpush("push", f"{source}:@2", target, env=ANYWHERE)
    assert done.returncode == 2
    assert "there is no @2" in error_lines(done)[0]


def test_a_job_takes_archives_by_globs_and_their_images_by_name(
    two_images: Path, image: Path, docker_registry: str, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "app.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(image, arcname=".")
    (tmp_path / "two.tar").write_bytes(two_images.read_bytes())
    job = tmp_path / "job.yaml"
    job.write_text(
        "version: 1\n"
        f"registries: [{{hosts: ['docker://{docker_registry}']}}]\n"
        "sources:\n"
        "  - layouts: oci-archive:*.tar.gz\n"
        "  - layouts: docker-archive:tw*.tar:team/app:v2\n"
        "targets: [{repository: 'job/{directory}'}]\n"
    )
    planned = asyncpush("plan", job, env=ANYWHERE)
    assert planned.returncode == 0, planned.stderr
    for name in ("job/app:v1", "job/two:v2"):
        assert f"-> {docker_registry}/{name}: " in planned.stdout
    done = asyncpush("run", job, "--verify", env=ANYWHERE)
    assert done.returncode == 0, done.stderr
    assert digest_at(docker_registry, "job/app", "v1") == Layout(image).entries[0].digest
    skopeo(f"docker-archive:{two_images}:@0", f"docker://{docker_registry}/skopeo/two:x")
    assert digest_at(docker_registry, "job/two", "v2") == digest_at(
        docker_registry, "skopeo/two", "x"
    )
    done = asyncpush("verify", job, env=ANYWHERE)
    assert done.returncode == 0, done.stderr
    assert "2 good, 0 not" in done.stdout


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("zst", zstd.compress)])
def test_compressed_archives_give_the_same_digests_and_leave_nothing_behind(
    ending: str,
    pack: Callable[[bytes], bytes],
    image: Path,
    two_images: Path,
    docker_registry: str,
    tmp_path: Path,
) -> None:
    plain = tmp_path / "oci.tar"
    skopeo(f"oci:{image}:v1", f"oci-archive:{plain}:v1")
    skopeo(f"docker-archive:{two_images}:@0", f"docker://{docker_registry}/skopeo/unpacked:x")
    oci, docker = tmp_path / f"oci.tar.{ending}", tmp_path / f"docker.tar.{ending}"
    oci.write_bytes(pack(plain.read_bytes()))
    docker.write_bytes(pack(two_images.read_bytes()))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    env = ANYWHERE | {"TMPDIR": str(temporary)}
    target = f"docker://{docker_registry}/unpacked/{ending}"
    sources = [f"oci-archive:{oci}", f"docker-archive:{docker}:@0"]
    for source, tag in zip(sources, ("oci", "docker"), strict=True):
        done = asyncpush("push", source, f"{target}:{tag}", "--verify", env=env)
        assert done.returncode == 0, done.stderr
    assert digest_at(docker_registry, f"unpacked/{ending}", "oci") == (
        Layout(image).entries[0].digest
    )
    assert digest_at(docker_registry, f"unpacked/{ending}", "docker") == digest_at(
        docker_registry, "skopeo/unpacked", "x"
    )
    assert list(temporary.iterdir()) == []


def test_layers_are_compressed_once_and_always_to_the_same(
    two_images: Path, docker_registry: str, tmp_path: Path
) -> None:
    source = f"docker-archive:{two_images}:@0"
    target = f"docker://{docker_registry}/compressed"
    for repository in ("one", "two"):
        done = asyncpush(
            "push",
            source,
            f"{target}/{repository}:x",
            "--compress-layers",
            "--verify",
            env=ANYWHERE,
        )
        assert done.returncode == 0, done.stderr
    digest = digest_at(docker_registry, "compressed/one", "x")
    assert digest == digest_at(docker_registry, "compressed/two", "x")
    # skopeo unpacks the layers, and finds in them what the config says.
    skopeo(f"{target}/one:x", f"docker-archive:{tmp_path / 'back.tar'}:team/app:v1", preserve=False)
    plain, back = (
        open_archive("docker-archive", path) for path in (two_images, tmp_path / "back.tar")
    )
    assert back.entries[0].digest == plain.entries[0].digest
    assert digest != plain.entries[0].digest
    done = asyncpush("verify", source, f"{target}/one:x", "--deep", env=ANYWHERE)
    assert done.returncode == 1
    done = asyncpush(
        "verify", source, f"{target}/one:x", "--deep", "--compress-layers", env=ANYWHERE
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    """200 KB that become 200 MB, if they are let."""
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(2**24)) * 12)
    return path


def test_an_archive_larger_than_the_room_for_it_is_one_error(bomb: Path, tmp_path: Path) -> None:
    target = "docker://127.0.0.1:9/app:x"
    source = f"oci-archive:{bomb}"
    done = asyncpush("push", source, target, "--temp-space", "64", env=ANYWHERE)
    assert done.returncode == 1
    (line,) = error_lines(done)
    assert "takes more than the 64 MiB" in line
    assert "--temp-space" in line
    # A disk that is full looks like a file that may not grow.
    code = (
        "import resource, sys\nfrom asyncpush.cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**26, 2**26))\n"
        f"sys.argv = ['asyncpush', 'push', '--no-journal', {source!r}, {target!r}]\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ANYWHERE | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = error_lines(done)
    assert f"the temporary file in {tmp_path} cannot be written: File too large" in line


@pytest.mark.parametrize(("ended_by", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_command_that_ends_while_it_unpacks_leaves_nothing_behind(
    ended_by: signal.Signals, code: int, tmp_path: Path
) -> None:
    # 32 GB of zeros: nothing that is unpacked before the signal comes.
    endless = tmp_path / "endless.tar.gz"
    endless.write_bytes(gzip.compress(bytes(2**24)) * 2000)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "asyncpush", "push", f"oci-archive:{endless}"]
    command += ["docker://127.0.0.1:9/app:x", "--temp-space", "100000"]
    with subprocess.Popen(
        command, env=ANYWHERE | {"TMPDIR": str(temporary)}, stderr=subprocess.PIPE, text=True
    ) as process:
        descriptors = Path(f"/proc/{process.pid}/fd")
        deadline = time.monotonic() + 60
        while not any(str(temporary) in target for target in links_in(descriptors)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert list(temporary.iterdir()) == []
        process.send_signal(ended_by)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert list(temporary.iterdir()) == []


def links_in(folder: Path) -> list[str]:
    """Where the links in a folder lead that changes while it is read."""
    found = []
    for link in list(folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return found


def peak_of(source: str, target: str, *options: str) -> float:
    """Peak MiB of a push; the process reads it itself, since a child inherits ru_maxrss."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom asyncpush.cli import main\n"
        "sys.argv = ['asyncpush', 'push', '-q', '--no-journal', *sys.argv[1:]]\n"
        "try:\n main.main()\nexcept SystemExit as exc:\n assert not exc.code, exc.code\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(status.split('VmHWM:')[1].split()[0])\n"
    )
    command = [sys.executable, "-c", code, source, target, *options]
    done = subprocess.run(command, env=ANYWHERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / 1024


def archives_of(mib: int, folder: Path) -> dict[str, Path]:
    """The same image as an OCI archive, compressed and not, and in docker's older form."""
    writer = LayoutWriter(folder / "layout")
    layers = [os.urandom(mib * 1024 * 1024 // 4) for _ in range(4)]
    writer.entry(writer.image([writer.blob(layer, mediatypes.OCI_LAYER) for layer in layers]), "v1")
    plain = archive_of(writer.close(), folder / "plain.tar")
    packed = folder / "packed.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes(), compresslevel=1))
    members: dict[str, bytes] = {f"{i}.tar": layer for i, layer in enumerate(layers)}
    diff_ids = [compute(layer) for layer in layers]
    config = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    image = [{"Config": "c.json", "RepoTags": ["app:v1"], "Layers": list(members)}]
    members |= {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps(image).encode()}
    return {"plain": plain, "packed": packed, "docker": tar_of(folder / "docker.tar", members)}


def test_memory_does_not_grow_with_the_archive(docker_registry: str, tmp_path: Path) -> None:
    peaks: dict[str, list[float]] = {"plain": [], "packed": [], "docker": []}
    for mib in (8, 40):
        (tmp_path / str(mib)).mkdir()
        for kind, path in archives_of(mib, tmp_path / str(mib)).items():
            target = f"docker://{docker_registry}/memory/{kind}{mib}"
            if kind == "docker":
                peak = peak_of(f"docker-archive:{path}", target, "--compress-layers")
            else:
                peak = peak_of(f"oci-archive:{path}", target)
            peaks[kind].append(peak)
    for small, large in peaks.values():
        assert large / small < 1.3, peaks
