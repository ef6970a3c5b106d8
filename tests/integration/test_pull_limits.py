"""Sources that count pulls: kept to, waited for or refused clearly, and shown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from aiohttp import web
from gate import Gate, gate_before
from oddregistries import DockerHub, by_proxy
from support import asyncpush, environment

from asyncpush import Pusher, PushItem, PushOptions
from asyncpush.engine.events import Event, Warned
from asyncpush.engine.results import ImageStatus, PushReport
from asyncpush.oci.layout import Layout
from asyncpush.registries.distribution.ratelimit import RateLimit

pytestmark = pytest.mark.anyio
REPOSITORY = "team/app"


@dataclass
class Counting:
    """Answers with the registry's own answers, and counts GETs of manifests as Docker Hub does."""

    limit: int
    window: int
    used: int = 0
    since: float = field(default_factory=time.monotonic)
    refused: int = 0

    async def __call__(self, request: web.Request, gate: Gate) -> web.StreamResponse | None:
        if time.monotonic() - self.since > self.window:
            self.since, self.used = time.monotonic(), 0
        counted = request.method == "GET" and "/manifests/" in request.path
        left = self.limit - self.used
        if counted and left <= 0:
            self.refused += 1
            error = {"errors": [{"code": "TOOMANYREQUESTS", "message": "pull rate limit"}]}
            return web.json_response(error, status=429, headers=self.headers(0))
        self.used += counted
        answer = await gate.fetch(request)
        answer.headers.update(self.headers(self.limit - self.used))
        return answer

    def headers(self, left: int) -> dict[str, str]:
        window = f";w={self.window}"
        return {
            "ratelimit-limit": f"{self.limit}{window}",
            "ratelimit-remaining": f"{left}{window}",
        }


@pytest.fixture(autouse=True)
def nobodys_credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    return


async def push(source: str, target: str, events: list[Event] | None = None) -> PushReport:
    on_event = None if events is None else events.append
    with anyio.fail_after(50):
        async with Pusher(PushOptions(retry_base=0.0), on_event=on_event) as pusher:
            return await pusher.push([PushItem(source, target)])


async def test_what_is_left_is_used_and_the_rest_fails_without_being_asked(
    source: str, sample: Path, docker_registry: str
) -> None:
    counting = Counting(limit=100, window=21600, used=94)
    async with gate_before(source, counting) as gate:
        text = f"docker://{gate.address}/{REPOSITORY}"
        target = f"docker://{docker_registry}/limited/app"
        report = await push(text, target)
        assert counting.refused == 0
        assert counting.used == 100
        done = report.count(ImageStatus.PUSHED)
        assert done > 0
        assert report.rate_limits == {gate.address: RateLimit(100, 0, 21600)}
        for image in report.failed:
            line = str(image.error)
            assert image.error is not None
            assert image.error.kind == "pull-limit"
            assert "0 of 100 pulls left in 6 h" in line
            assert f"docker login {gate.address}" in line
            assert text in line
            assert "\n" not in line
        assert len(report.failed) + done == len(report.images)

        # What has arrived costs nothing, and when the window has passed the rest goes.
        counting.used = 0
        report = await push(text, target)
        assert report.ok, [str(image.error) for image in report.failed]
        assert report.count(ImageStatus.EXISTS) == done


async def test_a_short_window_is_waited_for(source: str, docker_registry: str) -> None:
    counting = Counting(limit=12, window=1)
    events: list[Event] = []
    async with gate_before(source, counting) as gate:
        text = f"docker://{gate.address}/{REPOSITORY}"
        report = await push(text, f"docker://{docker_registry}/waited/app", events)
    assert report.ok, [str(image.error) for image in report.failed]
    (first, *_) = [event.message for event in events if isinstance(event, Warned)]
    assert "0 of 12 pulls left in 1 s; waiting 1 s" in first


async def test_plan_and_summary_show_what_is_left(
    source: str, docker_registry: str, tmp_path: Path
) -> None:
    env = environment(None, "") | {"DOCKER_CONFIG": "/nonexistent"}
    counting = Counting(limit=100, window=21600, used=20)
    async with gate_before(source, counting) as gate:
        text = f"docker://{gate.address}/{REPOSITORY}:service-01"
        target = f"docker://{docker_registry}/shown/app"

        def run(*more: str | Path) -> str:
            done = asyncpush("push", text, target, *more, env=env)
            assert done.returncode == 0, done.stderr
            return done.stdout

        shown = await anyio.to_thread.run_sync(run, "--dry-run")
        assert f"{gate.address}: 79 of 100 pulls left in 6 h\n" in shown
        planned = json.loads(await anyio.to_thread.run_sync(run, "--dry-run", "--json"))
        left = {"limit": 100, "remaining": 78, "window_seconds": 21600}
        assert planned["rate_limits"] == {gate.address: left}
        report = tmp_path / "report.json"
        shown = await anyio.to_thread.run_sync(run, "--report", report)
        assert f"{gate.address}: 77 of 100 pulls left in 6 h\n" in shown
        document = json.loads(report.read_text())
        assert document["registries"][gate.address]["rate_limit"] == {**left, "remaining": 77}
        told = await anyio.to_thread.run_sync(lambda: asyncpush("report", report, env=env))
        assert "77 of 100 pulls left in 6 h" in told.stdout


async def test_docker_hub_goes_by_its_own_name(sample: Path) -> None:
    hub = DockerHub()
    hub.password = False
    entry = Layout(sample).entries[0]
    hub.hold(
        entry.media_type, (sample / "blobs" / entry.digest.replace(":", "/")).read_bytes(), "v1"
    )
    async with hub.run() as address:
        with by_proxy(address):
            options = PushOptions(plain_http=True, retry_base=0.0)
            async with Pusher(options) as pusher:
                item = PushItem("docker://docker.io/app:v1", f"docker://{address}/team/app")
                preview = await pusher.preview([item])
    assert [result.error for result in preview.rejected] == []
    assert {host: str(limit) for host, limit in preview.rate_limits.items()} == {
        "docker.io": "75 of 100 pulls left in 6 h"
    }
