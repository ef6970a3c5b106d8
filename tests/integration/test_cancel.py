"""Signals end a push within seconds, and the same command goes on with what is missing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from forked import Forked
from support import ACCOUNT, HOST, KEY_ID, REGION, SECRET, asyncpush, environment

from asyncpush.localregistry import CallInfo, Fault, Key, LocalRegistry, LocalRegistryOptions
from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

pytestmark = pytest.mark.anyio

REPOSITORY = "cancel/app"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    writer = LayoutWriter(tmp_path / "layout")
    for i in range(8):
        layer = writer.blob(os.urandom(1024 * 1024), mediatypes.OCI_LAYER)
        writer.entry(writer.image([layer]), f"v{i}")
    return writer.close()


@pytest.mark.parametrize(
    ("number", "action"),
    [
        (signal.SIGINT, "GetAuthorizationToken"),
        (signal.SIGINT, "UploadLayerPart"),
        (signal.SIGTERM, "PutImage"),
    ],
)
async def test_signal_ends_the_push_and_the_same_command_completes_it(
    tmp_path: Path, layout: Path, number: signal.Signals, action: str
) -> None:
    stuck = anyio.Event()

    def faults(call: CallInfo) -> Fault | None:
        if call.action == action and not released:
            stuck.set()
            return Fault(delay=4)
        return None

    released: list[bool] = []
    options = LocalRegistryOptions(faults=faults, shutdown_timeout=0)
    registry = LocalRegistry(tmp_path / "store", [Key(KEY_ID, SECRET, ACCOUNT)], options)
    command = ("push", layout, f"{HOST}/{REPOSITORY}")
    async with registry.run() as server:
        await server.ensure_repository(ACCOUNT, REGION, REPOSITORY)
        env = environment(server.url)
        process = Forked(*command, env=env)
        with anyio.fail_after(20):
            await stuck.wait()
        begin = time.monotonic()
        process.send_signal(number)
        out, err = await anyio.to_thread.run_sync(process.communicate)
        seconds = time.monotonic() - begin
        released.append(True)

        assert process.returncode == 130, err
        assert seconds < 3
        assert "interrupted: the same command goes on" in out
        assert "Traceback" not in err

        again = await anyio.to_thread.run_sync(lambda: asyncpush(*command, env=env))
        assert again.returncode == 0, again.stderr
        tags = await server.tags(ACCOUNT, REGION, REPOSITORY)
        assert tags == {e.ref_name: e.digest for e in Layout(layout).entries}
