"""Metrics and spans of real pushes: from the engine, and from the command line while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from support import (
    ACCOUNT,
    HOST,
    KEY_ID,
    REGION,
    SECRET,
    Served,
    asyncpush,
    environment,
    error_lines,
)

from asyncpush import AwsOptions, Event, Pusher, PushItem, PushOptions
from asyncpush.localregistry import CallInfo, Fault, Key, LocalRegistry, LocalRegistryOptions
from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter
from asyncpush.telemetry.metrics import Metrics
from asyncpush.telemetry.spans import Spans

IMAGES = 8


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that share a layer, one of them in an index, one of which a test denies."""
    writer = LayoutWriter(tmp_path_factory.mktemp("telemetry") / "layout")
    base = writer.blob(os.urandom(100_000), mediatypes.OCI_LAYER)
    for i in range(IMAGES):
        image = writer.image([base], config={"number": i})
        writer.entry(writer.index([image]) if i == 0 else image, f"v{i}")
    return writer.close()


def samples(text: str) -> dict[str, dict[frozenset[str], float]]:
    """Values by name and label values."""
    found: dict[str, dict[frozenset[str], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.values())] = sample.value
    return found


@contextlib.asynccontextmanager
async def pushed(tmp_path: Path, layout: Path, *sinks: object):
    """A push into a registry that fails in passing now and then, and refuses one image."""

    def faults(call: CallInfo) -> Fault | None:
        if call.action == "UploadLayerPart" and call.number == 1:
            return Fault(code="ServerException", status=500)
        if call.action == "PutImage" and call.number == 1:
            return Fault(code="ThrottlingException")
        if call.action == "PutImage" and call.params.get("imageTag") == "v7":
            return Fault(code="AccessDeniedException")
        return None

    options = LocalRegistryOptions(faults=faults)
    registry = LocalRegistry(tmp_path / "store", [Key(KEY_ID, SECRET, ACCOUNT)], options)
    async with registry.run() as server:
        await server.ensure_repository(ACCOUNT, REGION, "told/app")
        aws = AwsOptions(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=server.url)

        def take(event: Event) -> None:
            for sink in sinks:
                sink(event)

        push_options = PushOptions(aws=aws, retry_base=0.01, retry_cap=0.05)
        async with Pusher(push_options, on_event=take) as pusher:
            report = await pusher.push([PushItem(layout, f"{HOST}/told/app")])
        yield server, report


@pytest.mark.anyio
async def test_metrics_agree_with_the_report_and_the_registry(tmp_path: Path, layout: Path) -> None:
    metrics = Metrics()
    async with pushed(tmp_path, layout, metrics.take) as (server, report):
        found = samples(metrics.text())

        assert found["asyncpush_images_total"] == {
            frozenset({HOST, "pushed"}): IMAGES - 1,
            frozenset({HOST, "failed"}): 1,
        }
        assert found["asyncpush_bytes_sent_total"] == {frozenset({HOST}): report.bytes_sent}
        assert found["asyncpush_blobs_total"][frozenset({HOST, "sent"})] == IMAGES + 1
        calls: Counter[str] = Counter()
        for labels, value in found["asyncpush_calls_total"].items():
            (call,) = labels & set(report.calls[HOST])
            calls[call] += int(value)
        assert dict(calls) == {call: of["calls"] for call, of in report.calls[HOST].items()}
        assert calls == Counter({call: server.calls.counters.calls[call] for call in calls})
        assert found["asyncpush_throttles_total"] == {frozenset({HOST, "PutImage"}): 1}
        assert found["asyncpush_retries_total"] == {frozenset({HOST, "UploadLayerPart"}): 1}
        assert set(found["asyncpush_images_in_flight"].values()) == {0}
        assert set(found["asyncpush_layers_in_flight"].values()) == {0}


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    yield exporter
    exporter.shutdown()


def provider_of(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.mark.anyio
async def test_spans_of_a_push(
    tmp_path: Path, layout: Path, exporter: InMemorySpanExporter
) -> None:
    provider = provider_of(exporter)
    with provider.get_tracer("pipeline").start_as_current_span("release") as around:
        parent = trace.set_span_in_context(around)
        spans = Spans(provider, parent=parent)
        async with pushed(tmp_path, layout, spans.take) as (_, report):
            pass
    found: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    (push,) = found["push"]
    images = {span.attributes["asyncpush.image.name"]: span for span in found["push image"]}
    entries = {str(e.ref_name): e.digest for e in Layout(layout).entries}

    assert Counter({name: len(some) for name, some in found.items()}) == {
        "release": 1,
        "push": 1,
        "push image": IMAGES,
        "push layer": IMAGES + 1,
        "commit manifest": IMAGES,  # the index has a child, and one image is refused
    }
    assert push.parent.span_id == around.get_span_context().span_id
    assert all(span.parent.span_id == push.context.span_id for span in images.values())
    by_id = {span.context.span_id: span for span in images.values()}
    assert all(span.parent.span_id in by_id for span in found["push layer"])
    assert all(span.parent.span_id in by_id for span in found["commit manifest"])
    for name, span in images.items():
        assert span.attributes["oci.manifest.digest"] == entries[name]
        assert span.attributes["container.image.tags"] == (name,)
        assert span.attributes["container.image.name"] == f"{HOST}/told/app"
        assert span.attributes["server.address"] == HOST
    for span in found["commit manifest"]:
        if tags := span.attributes.get("container.image.tags"):
            assert by_id[span.parent.span_id] is images[tags[0]]
    sent = sum(span.attributes["asyncpush.bytes_sent"] for span in found["push layer"])
    assert sent == report.bytes_sent == push.attributes["asyncpush.bytes_sent"]
    for span in exporter.get_finished_spans():
        assert span.start_time <= span.end_time
        if span.name != "release":
            assert push.start_time <= span.start_time
            assert span.end_time <= push.end_time

    refused = images["v7"]
    assert refused.status.status_code is trace.StatusCode.ERROR
    assert refused.attributes["error.type"] == "access-denied"
    (event,) = refused.events
    assert event.name == "exception"
    assert "AccessDenied" in event.attributes["exception.message"]
    assert images["v1"].status.status_code is trace.StatusCode.UNSET
    assert push.status.description == f"1 of {IMAGES} images failed"
    assert Counter(event.name for event in push.events) == {"call retried": 1, "call throttled": 1}
    told = json.dumps([span.to_json() for span in exporter.get_finished_spans()])
    assert SECRET not in told
    assert KEY_ID not in told


@pytest.mark.anyio
async def test_spans_of_an_interrupted_push_are_ended(
    tmp_path: Path, layout: Path, exporter: InMemorySpanExporter
) -> None:
    spans = Spans(provider_of(exporter))
    stuck = anyio.Event()

    def faults(call: CallInfo) -> Fault | None:
        if call.action == "UploadLayerPart":
            stuck.set()
            return Fault(delay=2)
        return None

    options = LocalRegistryOptions(faults=faults, shutdown_timeout=0)
    registry = LocalRegistry(tmp_path / "store", [Key(KEY_ID, SECRET, ACCOUNT)], options)
    async with registry.run() as server:
        await server.ensure_repository(ACCOUNT, REGION, "told/app")
        aws = AwsOptions(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=server.url)
        async with Pusher(PushOptions(aws=aws), on_event=spans.take) as pusher:
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(pusher.push, [PushItem(layout, f"{HOST}/told/app")])
                    await stuck.wait()
                    tasks.cancel_scope.cancel()

    ended = exporter.get_finished_spans()
    assert Counter(span.name for span in ended)["push"] == 1
    assert {"push layer", "push image", "push"} == {span.name for span in ended}
    assert all(span.status.description == "interrupted" for span in ended)


def test_metrics_file_and_endpoint_of_a_command(
    registry: Served, layout: Path, tmp_path: Path
) -> None:
    target = registry.create("told/command")
    path = tmp_path / "push.prom"
    command = [sys.executable, "-m", "asyncpush", "push", layout, target, "--quota", "PutImage=2"]
    command += ["--metrics", path, "--metrics-listen", "127.0.0.1:0"]
    with subprocess.Popen(
        list(map(str, command)),
        env=environment(registry.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        match = re.fullmatch(r"metrics are served at (http://127\.0\.0\.1:\d+/metrics)\n", line)
        assert match, line
        for _ in range(200):
            with urllib.request.urlopen(match[1], timeout=10) as answer:
                running = samples(answer.read().decode())
            if running.get("asyncpush_images_total"):
                break
            time.sleep(0.05)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert running["asyncpush_running"] == {frozenset(): 1}
    assert running["asyncpush_call_quota"][frozenset({HOST, "PutImage"})] == 2
    text = path.read_text()
    found = samples(text)
    assert found["asyncpush_images_total"] == {frozenset({HOST, "pushed"}): IMAGES}
    assert found["asyncpush_running"] == {frozenset(): 0}
    assert found["asyncpush_success"] == {frozenset(): 1}
    for word in (SECRET, KEY_ID, "told/command", "sha256:"):
        assert word not in text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--metrics", "/nowhere/at/all/x.prom"), "the metrics cannot be written"),
        (("--metrics-listen", "0.0.0.0:9464"), "0.0.0.0 is no loopback address"),
        (("--metrics-listen", "9464"), "'9464' is no address and port"),
        (("--otel",), "nothing has been set up to receive spans"),
        (("--heartbeat", "-1"), "-1"),
    ],
)
def test_what_cannot_be_had_is_said_before_anything_is_sent(
    registry: Served, layout: Path, options: tuple[str, ...], words: str
) -> None:
    done = asyncpush("push", layout, f"{HOST}/told/none", *options, env=environment(registry.url))

    (line,) = error_lines(done)
    assert words in line
    assert done.returncode == 2


def test_spans_of_a_command_go_to_the_provider_that_was_set_up(
    registry: Served, layout: Path, tmp_path: Path
) -> None:
    """As opentelemetry-instrument does it: a provider first, then the program."""
    target = registry.create("told/traced")
    program = (
        "import sys\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor\n"
        "provider = TracerProvider()\n"
        "out = open(sys.argv.pop(1), 'w')\n"
        "line = lambda span: span.to_json(indent=None) + '\\n'\n"
        "exporter = ConsoleSpanExporter(out=out, formatter=line)\n"
        "provider.add_span_processor(SimpleSpanProcessor(exporter))\n"
        "trace.set_tracer_provider(provider)\n"
        "from asyncpush.cli.main import main\n"
        "main()\n"
    )
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    env = {**environment(registry.url), "TRACEPARENT": f"00-{trace_id}-{span_id}-01"}
    out = tmp_path / "spans.jsonl"

    done = subprocess.run(
        [sys.executable, "-c", program, str(out), "push", str(layout), target, "--otel"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    spans = [json.loads(line) for line in out.read_text().splitlines()]
    assert Counter(span["name"] for span in spans)["push image"] == IMAGES
    assert {span["context"]["trace_id"] for span in spans} == {f"0x{trace_id}"}
    (push,) = (span for span in spans if span["name"] == "push")
    assert push["parent_id"] == f"0x{span_id}"


def test_a_push_without_traces_does_not_import_opentelemetry() -> None:
    code = (
        "import sys\nimport asyncpush, asyncpush.cli.push\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
