"""References by digest, and locks: what is written of a push."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asyncpush.engine.results import ImageResult, ImageStatus, PushReport, TagResult, TagStatus
from asyncpush.errors import UsageError
from asyncpush.oci.digest import Digest
from asyncpush.plan.graph import Origin
from asyncpush.plan.lock import read_lock
from asyncpush.report.refs import image_refs, lock_document, write_image_refs, write_lock

ECR = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/app"
A, B, C = (Digest("sha256:" + letter * 64) for letter in "abc")
LAYOUT = Origin("oci:/layouts/app", A)


def result(
    reference: str,
    digest: str = A,
    status: ImageStatus = ImageStatus.PUSHED,
    origin: Origin = LAYOUT,
    tags: tuple[str, ...] = ("v1",),
) -> ImageResult:
    results = tuple(TagResult(tag, TagStatus.MOVED) for tag in tags)
    return ImageResult("app", reference, digest, status, tags=results, origin=origin)


def test_references_have_no_tag_and_come_once_and_in_order() -> None:
    found = image_refs(
        [
            result("localhost:5000/z:v1", B),
            result(f"{ECR}:v2"),
            result(f"{ECR}:v1", status=ImageStatus.EXISTS),
            result(f"{ECR}@{C}", C, tags=()),
            result(f"{ECR}:bad", status=ImageStatus.FAILED),
            result(f"{ECR}:staged", C, status=ImageStatus.STAGED),
        ]
    )
    assert found == [f"{ECR}@{A}", f"{ECR}@{C}", f"localhost:5000/z@{B}"]


def test_a_lock_joins_the_targets_of_an_image_and_knows_trimmed_ones(tmp_path: Path) -> None:
    keep = Origin("docker://ghcr.io/team/app", B, ("linux/amd64",))
    images = [
        result("localhost:5000/app:v1", tags=("v1", "latest")),
        result(f"{ECR}:v1"),
        result(f"{ECR}@{C}", C, origin=keep, tags=()),
    ]
    document = lock_document(images)
    assert document == lock_document(images[::-1])
    assert document == {
        "lock_version": 1,
        "images": [
            {
                "name": "app",
                "source": "docker://ghcr.io/team/app",
                "digest": C,
                "source_digest": B,
                "keep": ["linux/amd64"],
                "targets": [f"{ECR}@{C}"],
            },
            {
                "name": "app",
                "source": "oci:/layouts/app",
                "digest": A,
                "targets": [f"{ECR}:v1", "localhost:5000/app:latest", "localhost:5000/app:v1"],
            },
        ],
    }
    path = tmp_path / "lock.json"
    assert write_lock(path, PushReport(images, complete=True))
    smaller, whole = read_lock(path).items
    assert (smaller.origin, smaller.digest) == (keep, C)
    assert whole.origin == LAYOUT
    assert [str(target) for target in whole.targets] == document["images"][1]["targets"]


@pytest.mark.parametrize("status", [ImageStatus.FAILED, ImageStatus.REFUSED])
def test_a_push_that_is_not_whole_has_references_and_no_lock(
    tmp_path: Path, status: ImageStatus
) -> None:
    report = PushReport([result(f"{ECR}:v1"), result(f"{ECR}:v2", B, status)], complete=True)
    (tmp_path / "lock.json").write_text("before")
    assert not write_lock(tmp_path / "lock.json", report)
    assert (tmp_path / "lock.json").read_text() == "before"
    write_image_refs(tmp_path / "refs", report)
    assert (tmp_path / "refs").read_text() == f"{ECR}@{A}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock.json", "refs"]


def test_files_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be written: .*none/refs"):
        write_image_refs(tmp_path / "none" / "refs", PushReport([result(ECR)], complete=True))


def test_what_is_written_is_json_with_a_line_end(tmp_path: Path) -> None:
    write_lock(tmp_path / "lock", PushReport([result(f"{ECR}:v1")], complete=True))
    text = (tmp_path / "lock").read_text()
    assert text.endswith("}\n")
    assert text.startswith('{\n  "lock_version": 1,')
    assert json.loads(text)["images"]
