"""Standard error for machines and for logs: JSON lines, heartbeats, what pipes and colors do."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support import KEY_ID, SECRET, Served, asyncpush, environment

from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images with a layer that they share, and one whose name is no tag."""
    writer = LayoutWriter(tmp_path_factory.mktemp("logs") / "layout")
    layer = writer.blob(os.urandom(50_000), mediatypes.OCI_LAYER)
    for i in range(20):
        writer.entry(writer.image([layer], config={"number": i}), f"v{i}")
    writer.entry(writer.image([layer], config={"number": "bad"}), "no tag\x1b[2J")
    return writer.close()


def objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Standard error, every line of which must be a JSON object."""
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(isinstance(one, dict) for one in found)
    return found


def push(registry: Served, layout: Path, target: str, *options: str) -> Any:
    return asyncpush("push", layout, target, *options, env=environment(registry.url))


def test_json_has_an_object_for_each_event_that_is_worth_a_line(
    registry: Served, layout: Path
) -> None:
    target = registry.create("logs/json")

    done = push(registry, layout, target, "--log-format", "json")

    lines = objects(done)
    assert done.returncode == 1
    assert Counter(line["event"] for line in lines) == {
        "push_planned": 1,
        "image_finished": 21,
        "push_ended": 1,
    }
    for line in lines:
        assert line["time"].endswith("Z")
        time = datetime.fromisoformat(line["time"])
        assert abs((datetime.now(UTC) - time).total_seconds()) < 3600
        assert line["level"] in ("info", "error")
        assert line["message"].isprintable()
    assert lines[0] | {"images": 21, "manifests": 20, "blobs": 21} == lines[0]
    pushed = [line for line in lines if line.get("status") == "pushed"]
    assert {line["reference"] for line in pushed} == {f"{target}:v{i}" for i in range(20)}
    assert all(line["error"] is None and line["tags"] for line in pushed)
    (failed,) = (line for line in lines if line["level"] == "error")
    assert failed["error"]["kind"] == "usage"
    assert failed["error"]["where"]["digest"].startswith("sha256:")
    assert failed["error"]["advice"].startswith("give the target a tag")
    end = lines[-1]
    assert (end["event"], end["complete"], end["ok"]) == ("push_ended", True, False)
    assert end["counts"]["pushed"] == 20


def test_verbose_json_also_tells_of_layers_manifests_and_no_secret(
    registry: Served, layout: Path
) -> None:
    target = registry.create("logs/verbose")

    done = push(registry, layout, target, "--log-format", "json", "-v")

    counts = Counter(line["event"] for line in objects(done))
    assert counts["layer_complete"] == 21
    assert counts["manifest_committed"] == 20
    token = registry.client().get_authorization_token()["authorizationData"][0]
    for secret in (SECRET, token["authorizationToken"], "AWS4-HMAC", KEY_ID):
        assert secret not in done.stderr


def test_errors_before_a_push_are_json_too(registry: Served, layout: Path) -> None:
    done = push(registry, layout, "no-such.example/app", "--log-format", "json")

    (line,) = objects(done)
    assert done.returncode == 2
    assert (line["event"], line["level"]) == ("error", "error")
    assert line["error"]["kind"] == "invalid-reference"
    assert line["error"]["advice"]


def test_plan_and_verify_log_json(registry: Served, layout: Path, tmp_path: Path) -> None:
    target = registry.create("logs/verified")
    host, _, name = target.partition("/")
    (tmp_path / "job.yaml").write_text(
        f"version: 1\nregistries:\n  - hosts: [{host}]\nsources:\n  - layouts: {layout}\n"
        f"targets:\n  - repository: {name}\n"
    )
    env = environment(registry.url)

    plan = asyncpush("plan", tmp_path / "job.yaml", "--log-format", "json", env=env)
    verify = asyncpush("verify", layout, target, "--log-format", "json", env=env)

    (refused,) = (line for line in objects(plan) if "name" in line)
    assert refused["error"]["kind"] == "usage"
    problems = objects(verify)
    assert {line["event"] for line in problems} == {"image_verified"}
    missing = [line for line in problems if line["error"]["kind"] == "verification"]
    assert {line["reference"] for line in missing} == {f"{target}:v{i}" for i in range(20)}


def test_heartbeats_tell_how_a_push_stands(registry: Served, layout: Path) -> None:
    options = ("--heartbeat", "0.3", "--quota", "PutImage=12")
    text = push(registry, layout, registry.create("logs/beats"), *options)
    as_json = push(
        registry, layout, registry.create("logs/json-beats"), *options, "--log-format", "json"
    )

    beats = [line for line in text.stderr.splitlines() if line.startswith("progress: ")]
    assert len(beats) >= 2
    wanted = re.compile(
        r"progress: \d+ of 21 images, \d+\.\d of \d+\.\d KiB, .*/s; \d:\d\d gone,"
        r" about \d:\d\d left; 1 failed;"
        r" \d+ in flight, the oldest: .*/logs/beats:v\d+ \(.*, \d:\d\d\)"
    )
    assert any(map(wanted.fullmatch, beats)), beats
    all_beats = [line for line in objects(as_json) if line["event"] == "progress"]
    beat = next(line for line in all_beats if line["seconds_left"] is not None)
    assert beat["images"] == 21
    assert beat["images_failed"] == 1
    assert beat["seconds_left"] > 0
    assert beat["slowest"][0]["reference"].startswith("111122223333.dkr.ecr")
    assert beat["slowed_calls"] == []


def test_without_heartbeats_there_is_a_line_for_each_image(registry: Served, layout: Path) -> None:
    target = registry.create("logs/still")

    done = push(registry, layout, target, "--heartbeat", "0", "--quota", "PutImage=20")

    assert "progress:" not in done.stderr
    assert len(re.findall(r"^pushed  ", done.stderr, re.MULTILINE)) == 20


@pytest.mark.parametrize(
    ("settings", "colored"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_a_pipe_gets_whole_lines_and_colors_only_when_forced(
    registry: Served, layout: Path, settings: dict[str, str], colored: bool
) -> None:
    target = registry.create(f"logs/pipe{len(settings)}{colored}".lower())
    env = {**environment(registry.url), "TERM": "xterm-256color", **settings}
    env = {k: v for k, v in env.items() if k in settings or k not in ("NO_COLOR", "FORCE_COLOR")}

    done = asyncpush("push", layout, target, env=env)

    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", done.stderr)) == colored
    assert not re.search(r"\x1b\[[0-9;?]*[A-HJKhl]", done.stderr)  # nothing that moves a cursor
    (error,) = (line for line in done.stderr.splitlines() if "no tag" in line)
    assert "request" not in error
    assert error.endswith("to push it untagged")


def test_json_on_standard_output_leaves_errors_alone_on_standard_error(
    registry: Served, layout: Path
) -> None:
    done = push(registry, layout, registry.create("logs/report"), "--json")

    assert json.loads(done.stdout)["counts"]["pushed"] == 20
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
