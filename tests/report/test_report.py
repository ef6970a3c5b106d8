"""Reports: complete, valid under their schema, without secrets, and safe to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from fleet import KEYS, REGISTRIES, items_for, options_for, serving, write_layouts

from asyncpush import Pusher, PushOptions, PushReport
from asyncpush.engine.events import BlobExists, LayerComplete, LayerStarted, PartSent
from asyncpush.engine.results import ImageResult, ImageStatus
from asyncpush.errors import UsageError
from asyncpush.localregistry import CallInfo, Fault
from asyncpush.replication.results import ReplicationReport
from asyncpush.report.document import Report, report_schema
from asyncpush.report.file import check_writable, read_report, write_report
from asyncpush.report.recorder import Recorder

pytestmark = pytest.mark.anyio


IMAGE = ImageResult("v1", "host/app:v1", "sha256:1", ImageStatus.EXISTS).to_dict()


async def test_a_push_in_three_registries_is_told_image_by_image_and_blob_by_blob(
    tmp_path: Path,
) -> None:
    layouts = write_layouts(tmp_path / "layouts", 3, 2)
    (layouts[1] / "blobs" / "sha256" / "x").write_text("")

    def refuse(call: CallInfo) -> Fault | None:
        refused = call.region == "us-east-1" and call.action == "CompleteLayerUpload"
        return Fault(code="KmsException", message="no key") if refused else None

    path = tmp_path / "report.json"
    async with serving(tmp_path / "store", [p.name for p in layouts], refuse) as server:
        recorder = Recorder()
        options = options_for(server)
        async with Pusher(options, on_event=recorder.take) as pusher:
            report = await pusher.push(items_for(layouts))
        await anyio.to_thread.run_sync(write_report, path, "job", recorder, report, options)

    document = read_report(path)
    assert document["outcome"] == "failed"
    assert document["totals"]["images"] == {
        "pushed": 12,
        "exists": 0,
        "refused": 0,
        "staged": 0,
        "failed": 6,
    }
    healthy = document["registries"][REGISTRIES[0].host]
    # A repository has the shared layer, two own layers, two configs.
    assert healthy["blobs_sent"] == healthy["parts"] == 15
    assert healthy["calls"]["CompleteLayerUpload"]["calls"] == 15
    assert document["registries"][REGISTRIES[1].host]["blobs_failed"] > 0
    failed = [blob for blob in document["blobs"] if blob["status"] == "failed"]
    assert failed
    assert all(blob["error"] and blob["error"]["message"] == "no key" for blob in failed)
    sent = sum(blob["bytes_sent"] for blob in document["blobs"])
    assert sent == document["totals"]["bytes_sent"]
    _check_times(document)
    for image in document["images"]:
        moved = "moved" if image["status"] == "pushed" else "not-moved"
        assert [tag["status"] for tag in image["tags"]] == [moved]
    text = path.read_text()
    for key in KEYS.values():
        assert key.secret_access_key not in text
        assert key.access_key_id not in text


def _check_times(document: Report) -> None:
    """What a report says of times agrees with itself."""
    blobs = document["blobs"]
    for image in document["images"]:
        assert 0 <= image["started"] <= image["ended"] <= document["seconds"]
        assert {blobs[blob]["repository"] for blob in image["blobs"]} == {
            image["reference"].rpartition(":")[0]
        }
        assert len(image["blobs"]) == 3
        committed = [commit["digest"] for commit in image["manifests"]]
        assert committed == [image["digest"]] * (image["status"] == "pushed")
        for commit in image["manifests"]:
            assert image["started"] <= commit["ended"] <= image["ended"]
    for blob in blobs:
        if blob["status"] == "sent":
            assert blob["seconds"] is not None
            assert blob["sending"] + blob["slots"] <= blob["seconds"] + 0.005
            assert sum(size for _, _, size, _ in blob["stretches"]) == blob["bytes_sent"]
    for host, series in document["timeline"]["registries"].items():
        sums = document["registries"][host]
        assert sum(series["bytes"]) == pytest.approx(sums["bytes_sent"], abs=len(series["bytes"]))
        for name, calls in series["calls"].items():
            assert sum(calls["calls"]) == sums["calls"][name]["calls"]
        assert max(series["layers"]) > 0
        assert max(series["images"]) > 0


def test_a_blob_that_comes_twice_counts_once() -> None:
    recorder = Recorder()
    recorder.take(LayerStarted("r/a", "sha256:1", 10))
    recorder.take(PartSent("r/a", "sha256:1", 0, 10))
    recorder.take(LayerComplete("r/a", "sha256:1", 10, 10))
    recorder.take(BlobExists("r/a", "sha256:1", 10))
    (blob,) = recorder.documents()
    assert (blob["status"], blob["parts"], blob["bytes_sent"]) == ("sent", 1, 10)


def test_twenty_thousand_images_make_one_valid_document(tmp_path: Path) -> None:
    images = [
        ImageResult(f"v{i}", f"host/app:v{i}", f"sha256:{i}", ImageStatus.EXISTS)
        for i in range(20_000)
    ]
    path = tmp_path / "report.json"
    write_report(path, "big", Recorder(), PushReport(images, complete=True), PushOptions())
    document = read_report(path)
    assert len(document["images"]) == 20_000
    assert document["outcome"] == "nothing-to-do"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "no report of version 1"),
        ({"schema_version": 2}, "no report of version 1"),
        ({"images": [{"name": "x"}]}, "damaged"),
        ({"totals": None}, "damaged"),
        ({"outcome": "fine"}, "damaged"),
        ({"seconds": float("inf")}, "damaged"),
        ({"images": [{**IMAGE, "blobs": [0]}]}, "names a blob that is not there"),
        ({"images": [{**IMAGE, "blobs": [-1]}]}, "damaged"),
    ],
)
def test_what_is_no_report_is_one_error(
    tmp_path: Path, change: bytes | dict[str, Any], message: str
) -> None:
    path = tmp_path / "report.json"
    write_report(path, "job", Recorder(), PushReport(complete=True), PushOptions())
    if isinstance(change, bytes):
        path.write_bytes(change)
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match=message) as caught:
        read_report(path)
    assert caught.value.where["file"] == str(path)


def test_a_place_that_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "report.json", Path("/proc/report.json")):
        with pytest.raises(UsageError, match="the report cannot be written"):
            check_writable(path)


def test_the_schema_names_every_key_of_a_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report, replication = PushReport(complete=True), ReplicationReport(complete=True)
    write_report(path, "job", Recorder(), report, PushOptions(), replication)
    schema = report_schema()
    assert set(schema["properties"]) == set(json.loads(path.read_text()))
    # Reports of earlier versions have no timeline, and many pushes wait for no replication.
    assert set(schema["required"]) == set(schema["properties"]) - {"timeline", "replication"}
