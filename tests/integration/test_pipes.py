"""Archives that come through a pipe, or as standard input from a file."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
from support import asyncpush, environment, error_lines
from tarfiles import archive_of

from asyncpush.oci.layout import Layout

ENV = environment(None, "") | {"DOCKER_CONFIG": "/nonexistent"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    return archive_of(sample, tmp_path_factory.mktemp("archive") / "a.tar")


def with_input(stdin: IO[bytes] | int | bytes, *arguments: str, **env: str) -> tuple[int, str, str]:
    """Run the command line with something at its standard input."""
    given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    done = subprocess.run(
        [sys.executable, "-m", "asyncpush", *arguments],
        env=ENV | env,
        capture_output=True,
        timeout=60,
        check=False,
        **given,  # type: ignore[call-overload]
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_comes_through_a_pipe(
    archive: Path, sample: Path, docker_registry: str, packed: bool, tmp_path: Path
) -> None:
    data = archive.read_bytes()
    target = f"docker://{docker_registry}/pipe/{'packed' if packed else 'plain'}"
    code, out, err = with_input(
        gzip.compress(data, 1) if packed else data,
        "push",
        "oci-archive:-",
        target,
        TMPDIR=str(tmp_path),
    )
    assert code == 0, err
    assert "15 images: 15 pushed" in out
    done = asyncpush("verify", sample, target, "--deep", env=ENV)
    assert done.returncode == 0, done.stderr
    # The file has no name, so nothing can be left behind.
    assert list(tmp_path.iterdir()) == []


def test_standard_input_from_a_file_takes_no_space(archive: Path, docker_registry: str) -> None:
    with archive.open("rb") as file:
        code, out, err = with_input(
            file,
            "push",
            "oci-archive:-:gateway",
            f"docker://{docker_registry}/pipe/file",
            "--temp-space",
            "0",
            TMPDIR="/nonexistent",
        )
    assert code == 0, err
    assert "1 image: 1 pushed" in out


def test_a_named_pipe_is_read_as_well(archive: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", 'sleep 1; cat "$1" > "$2"', "-", archive, pipe]) as writer:
        done = asyncpush("inspect", f"oci-archive:{pipe}", env=ENV)
        assert done.returncode == 0, done.stderr
        assert writer.wait(10) == 0
    assert "15 entries" in done.stdout


@pytest.mark.parametrize(
    ("data", "space", "words"),
    [
        (b"", "64", "no whole tar file"),
        (b"no tar", "64", "no whole tar file"),
        (None, "5", "--temp-space"),
    ],
)
def test_what_is_wrong_with_a_pipe_is_one_line(
    archive: Path, docker_registry: str, data: bytes | None, space: str, words: str
) -> None:
    whole = archive.read_bytes()
    code, _, err = with_input(
        whole if data is None else data,
        "push",
        "oci-archive:-",
        f"docker://{docker_registry}/no",
        "--temp-space",
        space,
    )
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert words in line
    assert "Illegal seek" not in err


def test_a_terminal_is_no_archive(docker_registry: str) -> None:
    ours, theirs = os.openpty()
    try:
        code, _, err = with_input(
            theirs, "push", "docker-archive:-", f"docker://{docker_registry}/no"
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert code == 1
    assert "standard input is a terminal" in err


def test_a_writer_that_pauses_holds_no_signal_up(docker_registry: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "asyncpush", "push", "oci-archive:-"]
    command += [f"docker://{docker_registry}/no", "--journal", str(tmp_path / "journal")]
    with subprocess.Popen(
        command, env=ENV, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write("x" * 1000)
        process.stdin.flush()
        # The journal is opened in front of the sources.
        while not (tmp_path / "journal").exists():
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        assert process.wait(20) == 130
        assert time.monotonic() - begin < 3


def test_the_sample_is_what_is_piped(archive: Path, sample: Path) -> None:
    with archive.open("rb") as file:
        code, out, err = with_input(file, "inspect", "oci-archive:-", "--json")
    assert code == 0, err
    assert all(entry.digest in out for entry in Layout(sample).entries)
    assert error_lines(asyncpush("inspect", "oci-archive:/nonexistent", env=ENV))
