"""Options refuse what cannot be meant; results add up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncpush.engine.options import PushOptions
from asyncpush.engine.results import ImageResult, ImageStatus, PushReport
from asyncpush.errors import AsyncpushError, ContentError, CredentialsError, UsageError
from asyncpush.plan.limits import MIB
from asyncpush.registries.ecr.options import AwsOptions

STATUSES = [ImageStatus.PUSHED, ImageStatus.EXISTS, ImageStatus.REFUSED, ImageStatus.FAILED]


@pytest.mark.parametrize(
    ("option", "bad", "good"),
    [
        *((name, [0, -1], [1]) for name in ("images", "layers", "parts", "connections")),
        ("attempts", [0], [1]),
        ("memory", [MIB - 1, 0], [MIB]),
        ("part_size", [0, 5 * MIB - 1, 20 * MIB + 1], [None, 5 * MIB, 20 * MIB]),
        ("temp_space", [-1], [0, MIB]),
        ("on_refused", ["", "ignore"], ["fail", "warn"]),
        ("retry_base", [-0.1], [0, 0.1]),
        ("retry_cap", [-0.1], [0]),
        ("quotas", [{"PutImage": 0}, {"Nothing": 1}], [{}, {"PutImage": 0.5}]),
    ],
)
def test_each_bound_is_checked(option: str, bad: list[Any], good: list[Any]) -> None:
    for value in good:
        assert getattr(PushOptions(**{option: value}), option) == value
    for value in bad:
        with pytest.raises(UsageError):
            PushOptions(**{option: value})


def test_credentials_stay_out_of_texts() -> None:
    options = PushOptions(aws=AwsOptions(secret_access_key="hush", session_token="hush"))
    assert "hush" not in repr(options)


def result(status: ImageStatus, error: AsyncpushError | None = None) -> ImageResult:
    return ImageResult("app", "registry/app:v1", "sha256:0", status, 5, 1, 2, 0.12345, error)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("complete", [True, False])
def test_a_push_is_good_when_it_ended_and_nothing_failed(
    status: ImageStatus, complete: bool
) -> None:
    report = PushReport([result(ImageStatus.PUSHED), result(status)], complete=complete)
    assert report.ok == (complete and status is not ImageStatus.FAILED)
    assert len(report.failed) == report.count(ImageStatus.FAILED) == (status == "failed")


@pytest.mark.parametrize(
    ("errors", "only"),
    [
        ([], False),
        ([CredentialsError("x")], True),
        ([CredentialsError("x"), ContentError("y")], False),
        ([None], False),
    ],
)
def test_a_lack_of_credentials_is_told_from_other_failures(
    errors: list[AsyncpushError | None], only: bool
) -> None:
    failed = [result(ImageStatus.FAILED, error) for error in errors]
    assert PushReport([result(ImageStatus.PUSHED), *failed]).only_credentials_failed is only


def test_a_report_is_json_with_everything_in_it() -> None:
    error = ContentError("broken", advice="mend it", digest="sha256:0")
    images = [result(s, error if s == "failed" else None) for s in STATUSES]
    document = json.loads(json.dumps(PushReport(images, 20, 3, complete=True).to_dict()))
    assert document["counts"] == {s: int(s != "staged") for s in document["counts"]}
    assert (document["ok"], document["complete"], document["retries"]) == (False, True, 3)
    assert document["images"][3] == {
        "name": "app",
        "reference": "registry/app:v1",
        "digest": "sha256:0",
        "status": "failed",
        "bytes_sent": 5,
        "bytes_mounted": 0,
        "blobs_sent": 1,
        "blobs_mounted": 0,
        "blobs_existing": 2,
        "seconds": 0.123,
        "error": {
            "kind": "content",
            "message": "broken",
            "where": {"digest": "sha256:0"},
            "advice": "mend it",
        },
        "tags": [],
    }
