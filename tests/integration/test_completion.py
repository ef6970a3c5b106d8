"""Completion in real shells: the script is sourced, and Tab pressed on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import asyncpush, environment, require_program

PROGRAM = Path(sys.executable).with_name("asyncpush")
SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], 'eval "$(asyncpush completion bash)"'),
    "zsh": (
        ["-f", "-i"],
        'autoload -U compinit && compinit -u -D && eval "$(asyncpush completion zsh)"',
    ),
}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``asyncpush`` completes, and otherwise notes how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "asyncpush").write_text(
        "#!/bin/sh\n"
        f'if [ -n "$_ASYNCPUSH_COMPLETE" ] || [ "$1" = completion ]; then exec {PROGRAM} "$@"; fi\n'
        'echo "$@" >> called\n'
    )
    (folder / "asyncpush").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return environment(None, "") | {"PATH": path, "HOME": str(tmp_path), "TERM": "dumb"}


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_commands_options_and_files(
    shell: str, tmp_path: Path, env: dict[str, str]
) -> None:
    arguments, source = SHELLS[shell]
    (tmp_path / "an-archive.tar").touch()
    lines = [
        f"{source} && asyncpush is ready",
        "asyncpush ver\t",
        "asyncpush serve --ano\t",
        "asyncpush push an-arch\t",
    ]

    called: list[list[str]] = []
    with terminal([require_program(shell), *arguments], env, tmp_path) as keyboard:
        for number, line in enumerate(lines, start=1):
            os.write(keyboard, f"{line}\r".encode())
            called = wait_for_calls(tmp_path / "called", number)

    assert called == [
        ["is", "ready"],
        ["verify"],
        ["serve", "--anonymous-pull"],
        ["push", "an-archive.tar"],
    ]


def test_fish_completes_commands_and_options(tmp_path: Path, env: dict[str, str]) -> None:
    script = (
        "asyncpush completion fish | source;"
        "complete --do-complete 'asyncpush ver';"
        "complete --do-complete 'asyncpush serve --ano'"
    )
    done = subprocess.run(
        [require_program("fish"), "--no-config", "-c", script],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert [line.split()[0] for line in done.stdout.splitlines()] == ["verify", "--anonymous-pull"]


def test_a_shell_that_is_not_known_is_named() -> None:
    done = asyncpush("completion", "tcsh", env=environment(None, ""))

    assert done.returncode == 2
    assert "'tcsh' is not one of" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def terminal(command: list[str], env: dict[str, str], folder: Path) -> Iterator[int]:
    """Run a program at a terminal of its own; gives what its keyboard writes to."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        cwd=folder,
        start_new_session=True,
    )
    os.close(theirs)
    # A program whose terminal nobody reads stops once that is full.
    reader = threading.Thread(target=_read_all, args=(ours,))
    reader.start()
    try:
        yield ours
    finally:
        process.kill()
        process.wait(30)
        reader.join(30)
        os.close(ours)


def _read_all(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            pass
    except OSError:
        return  # the program has gone, and its terminal with it


def wait_for_calls(path: Path, count: int) -> list[list[str]]:
    """Wait until the program was called that often; the arguments of each call."""
    for _ in range(1200):
        calls = path.read_text().splitlines() if path.exists() else []
        if len(calls) >= count:
            return [line.split() for line in calls]
        time.sleep(0.05)
    pytest.fail(f"after a minute {calls}, where {count} were expected")
