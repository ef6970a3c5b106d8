"""Commands of asyncpush as processes that are forked, not started: each spares the imports.

As a program it imports asyncpush once, then forks a process for each command that arrives. Such a
process has arguments, environment, folder and standard streams of its own, takes signals and ends
as any other. What only a fresh interpreter shows needs ``sys.executable``, not this.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import awsmodels
import botocore.session

import asyncpush
from asyncpush.cli.main import main

# What aiobotocore and rich import when they are first used.
_LATE = (
    "aiobotocore.retries.adaptive",
    "aiobotocore.retries.standard",
    "aiobotocore.session",
    "rich.console",
    "rich.text",
    "uvloop",
)


def _preload() -> None:
    for module in pkgutil.walk_packages(asyncpush.__path__, "asyncpush."):
        if not module.name.startswith(("asyncpush.testing", "asyncpush.__main__")):
            importlib.import_module(module.name)
    for name in _LATE:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    awsmodels.read_once()
    session = botocore.session.Session()
    for service in ("ecr", "sts", "s3"):
        session.create_client(
            service, "us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
    gc.collect()
    gc.freeze()


def _serve(listener: socket.socket, parent: socket.socket) -> Callable[[], None] | None:
    """Fork a process per command.

    :param parent: its end is the end of this process and of all commands.
    :returns: in a fork, what makes the command of it; none when there will be no more.
    """
    running: dict[int, socket.socket] = {}
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        for file in (listener, parent, woken):
            selector.register(file, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if parent in ready:
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
                return None
            for pid, client in running.items():
                if client in ready:  # Its client was killed, as a shell kills the command.
                    os.kill(pid, signal.SIGKILL)
                    selector.unregister(client)
            if woken in ready:
                os.read(woken, 4096)
                for client in _report_ended(running):
                    with contextlib.suppress(KeyError):
                        selector.unregister(client)
                    client.close()
            if listener not in ready:
                continue
            client, _ = listener.accept()
            text, streams, _, _ = socket.recv_fds(client, 65536, 3)
            while text and not text.endswith(b"\n"):
                text += client.recv(65536)
            if len(streams) == 3 and text:
                if (pid := os.fork()) == 0:
                    break
                running[pid] = client
                selector.register(client, selectors.EVENT_READ)
                with contextlib.suppress(BrokenPipeError):
                    client.sendall(b"%d\n" % pid)
            for stream in streams:
                os.close(stream)
    for other in (listener, parent, client, *running.values()):
        other.close()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(woken)
    os.close(waker)
    return functools.partial(_become, json.loads(text), streams)


def _report_ended(running: dict[int, socket.socket]) -> Iterator[socket.socket]:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        client = running.pop(pid)
        with contextlib.suppress(BrokenPipeError):
            client.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        yield client


def _become(command: dict[str, Any], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(command["env"])
    os.chdir(command["cwd"])
    tempfile.tempdir = None
    sys.argv = ["asyncpush", *command["arguments"]]


if __name__ == "__main__":
    _preload()
    become = _serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:]))
    if become is not None:
        become()
        main()
