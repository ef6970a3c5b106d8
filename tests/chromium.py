"""Debian's Chromium without a window, driven over a pipe by its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import require_program

_SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
_TIMEOUT = 60.0


class Page:
    """One tab. ``problems`` are what its console and its policy complained of."""

    def __init__(self, write: int, read: int) -> None:
        self._write = write
        self._read = read
        self._pending = b""
        self._session: str | None = None
        self._last = 0
        self._events: list[dict[str, Any]] = []
        self.problems: list[str] = []

    def attach(self) -> None:
        """Open the tab, and listen to its console."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Make one call of the protocol; its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def open(self, url: str) -> None:
        """Go to an address, and wait until the page says that it is ready."""
        self.problems.clear()
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + _TIMEOUT
        while not self.run("document.documentElement?.dataset.ready === 'yes'"):
            assert time.monotonic() < deadline, (f"{url} never got ready", self.problems)
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a picture of what is in sight, or of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def size(self, width: int, height: int) -> None:
        """Make the tab so large."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def scheme(self, scheme: str) -> None:
        """Prefer light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def pdf(self, path: Path) -> None:
        """Print the page."""
        printed = self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(printed["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            read = os.read(self._read, 1 << 16)
            assert read, "Chromium has gone"
            self._pending += read
        raw, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        match message:
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.problems.append(json.dumps(details))
            case {"method": "Runtime.consoleAPICalled", "params": params}:
                self.problems.append(json.dumps(params["args"]))
            case {"method": "Log.entryAdded", "params": {"entry": entry}}:
                self.problems.append(entry["text"])
            case {"method": "Network.requestWillBeSent", "params": {"request": request}}:
                if not request["url"].startswith(("file:", "data:", "about:")):
                    self.problems.append(f"asked for {request['url']}")


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """A browser with one tab, in a folder of its own, until the context ends."""
    program = require_program("chromium")
    to_browser, from_us = _pipe()
    from_browser, to_us = _pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [program, *_SWITCHES, f"--user-data-dir={folder}"]
        # The protocol's pipes are descriptors 3 and 4; dash takes no descriptor of two digits.
        shell = f'exec "$@" 3<&{to_browser} 4>&{to_us} {to_browser}<&- {to_us}>&-'
        with subprocess.Popen(
            ["bash", "-c", shell, "bash", *command],
            pass_fds=(to_browser, to_us),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder},
        ) as process:
            os.close(to_browser)
            os.close(to_us)
            try:
                page = Page(from_us, from_browser)
                page.attach()
                yield page
            finally:
                os.close(from_us)
                os.close(from_browser)
                process.terminate()
                process.wait(20)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends have numbers that no redirection takes."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
