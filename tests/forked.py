"""The client of ``forkserver``: commands of asyncpush as processes, without their imports."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Self

_STARTING = threading.Lock()


class Forked:
    """A command as a process: what ``subprocess.Popen`` offers, as far as tests need it."""

    def __init__(
        self,
        *arguments: str | Path,
        env: Mapping[str, str],
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> None:
        """Start it, with nothing on standard input.

        :param stdout: ``subprocess.PIPE``, ``subprocess.DEVNULL`` or an open file's number.
        """
        self.args = ["asyncpush", *map(str, arguments)]
        self.returncode: int | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        command = {"arguments": self.args[1:], "env": dict(env), "cwd": str(Path.cwd())}
        text = json.dumps(command).encode() + b"\n"
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(str(server()))
        with contextlib.ExitStack() as stack:
            nothing = os.open(os.devnull, os.O_RDWR)
            stack.callback(os.close, nothing)
            streams = [nothing]
            for name, asked in (("stdout", stdout), ("stderr", stderr)):
                number = nothing if asked == subprocess.DEVNULL else asked
                if asked == subprocess.PIPE:
                    ours, number = os.pipe()
                    stack.callback(os.close, number)
                    setattr(self, name, os.fdopen(ours, encoding="utf-8"))
                streams.append(number)
            sent = socket.send_fds(self._server, [text], streams)
            self._server.sendall(text[sent:])
        with self._server.makefile("rb", buffering=0) as answer:
            self.pid = int(answer.readline())

    def poll(self) -> int | None:
        """Its exit code, or what signal ended it, negative; none while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; what ``poll`` gives then."""
        if self.returncode is None:
            if not select.select([self._server], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with self._server, self._server.makefile("rb") as answer:
                self.returncode = int(answer.readline())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; what is left of standard output and error."""
        texts: dict[IO[str], str] = {}

        def read(file: IO[str]) -> None:
            texts[file] = file.read()

        files = [file for file in (self.stdout, self.stderr) if file is not None]
        readers = [threading.Thread(target=read, args=(file,), daemon=True) for file in files]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        for file in files:
            file.close()
        out, err = (texts[file] if file else "" for file in (self.stdout, self.stderr))
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self.stdout, self.stderr):
            if file is not None:
                file.close()
        self.wait()


def server() -> Path:
    """The socket of the server, which ends when this process does."""
    with _STARTING:  # Threads may ask at the same time.
        return _start()


@functools.cache
def _start() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="asyncpush-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "forks"
    ours, theirs = socket.socketpair()
    with theirs, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        # In a session of its own, so that Ctrl-C reaches the tests alone.
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("forkserver.py")]
            + [str(file.fileno()) for file in (listener, theirs)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno(), theirs.fileno()],
            start_new_session=True,
        )
    atexit.register(_end, process, ours)
    return path


def _end(process: subprocess.Popen[bytes], ours: socket.socket) -> None:
    ours.close()
    process.wait()


def run_forked(
    *arguments: str | Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as ``subprocess.run`` does."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with Forked(*arguments, env=env, stdout=out.fileno(), stderr=err.fileno()) as process:
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess(process.args, code, *texts)


_PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    command = {{"arguments": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}}
    text = json.dumps(command).encode() + b"\\n"
    server.sendall(text[socket.send_fds(server, [text], [0, 1, 2]) :])
    answer = server.makefile("rb", buffering=0)
    pid = int(answer.readline())
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    code = int(answer.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def write_program(folder: Path) -> None:
    """Write a program ``asyncpush`` for shells, which has its commands forked."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "asyncpush"
    program.write_text(_PROGRAM.format(python=sys.executable, path=str(server())))
    program.chmod(0o755)
