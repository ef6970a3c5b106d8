"""Events as log records: which are worth one, at which level, and what is in it."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest

from asyncpush.engine.events import (
    BlobExists,
    CallEnded,
    CallRetried,
    Event,
    ImageFinished,
    ImageReplicated,
    ImageStaged,
    ImageStarted,
    ImageVerified,
    LayerComplete,
    LayerFailed,
    LayerStarted,
    ManifestCommitted,
    PartSent,
    PushEnded,
    PushPlanned,
    ReplicationAwaited,
    RepositoryCreated,
    TagsMoving,
    UploadResumed,
    Warned,
)
from asyncpush.engine.log import log_event
from asyncpush.engine.results import ImageResult, ImageStatus, PushReport
from asyncpush.errors import RegistryError
from asyncpush.replication.results import DestinationResult, ImageReplication, ReplicationStatus
from asyncpush.replication.rules import Destination

HOST = "registry.example"
REPOSITORY = f"{HOST}/app"
DIGEST = "sha256:" + "1" * 64
THERE = Destination("111122223333", "us-east-1")
COMPLETE = DestinationResult(THERE, ReplicationStatus.COMPLETE, seconds=2.0)
REPLICATION_FAILED = DestinationResult(THERE, ReplicationStatus.FAILED, "ACCESS_DENIED", 1.0)
ERROR = RegistryError("it broke", advice="mend it", repository=REPOSITORY, request_id="r-1")


def result(status: ImageStatus, error: RegistryError | None = None) -> ImageResult:
    return ImageResult("v1", f"{REPOSITORY}:v1", DIGEST, status, 10, 1, 2, 0.5, error)


@pytest.fixture
def records() -> Iterator[list[Any]]:
    logger, found = logging.getLogger("asyncpush"), []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("event", "level", "name", "words"),
    [
        (PushPlanned(2, 1, 3, 4, 1024), "INFO", "push_planned", "2 images: 3 manifests, 4 blobs"),
        (TagsMoving(3), "INFO", "tags_moving", "moving 3 tags"),
        (RepositoryCreated(REPOSITORY), "INFO", "repository_created", f"created .* {REPOSITORY}"),
        (ImageFinished(result(ImageStatus.PUSHED)), "INFO", "image_finished", "pushed  reg"),
        (
            ImageFinished(result(ImageStatus.REFUSED, ERROR)),
            "WARNING",
            "image_finished",
            "it broke",
        ),
        (
            ImageFinished(result(ImageStatus.FAILED, ERROR)),
            "ERROR",
            "image_finished",
            r"v1 -> registry.example/app:v1: it broke \(.*request id r-1\); mend it",
        ),
        (Warned("mind the gap"), "WARNING", "warned", "^mind the gap$"),
        (
            CallRetried("PutImage", REPOSITORY, "lost", 2, 0.5),
            "DEBUG",
            "call_retried",
            "retry 2 of PutImage in 0.50 s: lost",
        ),
        (UploadResumed(REPOSITORY, DIGEST, 1024), "DEBUG", "upload_resumed", "at 1.0 KiB"),
        (LayerComplete(REPOSITORY, DIGEST, 5, 5), "DEBUG", "layer_complete", "uploaded sha256"),
        (LayerFailed(REPOSITORY, DIGEST, 5, 0, ERROR), "DEBUG", "layer_failed", "it broke"),
        (
            ManifestCommitted(REPOSITORY, DIGEST, "v1", False, 0.1),
            "DEBUG",
            "manifest_committed",
            "committed sha256:1+ as v1 in",
        ),
        (ImageStaged(f"{REPOSITORY}:v1", REPOSITORY), "DEBUG", "image_staged", "reference .*:v1"),
        (
            ReplicationAwaited(HOST, 2, 1),
            "INFO",
            "replication_awaited",
            "of 2 images from registry",
        ),
        (
            ImageReplicated(ImageReplication("r:v1", DIGEST, (COMPLETE,))),
            "INFO",
            "image_replicated",
            "replicated r:v1 to .*us-east-1.* \\(2.0 s\\)",
        ),
        (
            ImageReplicated(ImageReplication("r:v1", DIGEST, (REPLICATION_FAILED,))),
            "ERROR",
            "image_replicated",
            "^r:v1: replication to .* failed: ACCESS_DENIED",
        ),
        (
            ImageReplicated(ImageReplication("r:v1", DIGEST)),
            "INFO",
            "image_replicated",
            "no replication rule covers r:v1",
        ),
        (ImageVerified("v1", "r", DIGEST, ()), "DEBUG", "image_verified", "verified r"),
        (ImageVerified("v1", "r", DIGEST, (ERROR,)), "ERROR", "image_verified", "it broke"),
    ],
)
def test_events_that_are_worth_a_line_are_logged(
    records: list[Any], event: Event, level: str, name: str, words: str
) -> None:
    log_event(event)

    (record,) = records
    assert (record.levelname, record.event, record.name) == (level, name, "asyncpush.push")
    assert re.search(words, record.getMessage())
    json.dumps(record.fields)


@pytest.mark.parametrize(
    "event",
    [
        ImageStarted("r", "n", REPOSITORY, {}),
        BlobExists(REPOSITORY, DIGEST, 1),
        LayerStarted(REPOSITORY, DIGEST, 1),
        PartSent(REPOSITORY, DIGEST, 0, 1),
        CallEnded("PutImage", REPOSITORY, "ok", 0.0, 0.1, 10, 10),
    ],
)
def test_events_of_which_there_are_many_are_not_logged(records: list[Any], event: Event) -> None:
    log_event(event)

    assert records == []


def test_errors_say_kind_where_and_advice(records: list[Any]) -> None:
    log_event(ImageFinished(result(ImageStatus.FAILED, ERROR)))

    assert records[0].fields["error"] == {
        "kind": "registry",
        "message": "it broke",
        "where": {"repository": REPOSITORY, "request_id": "r-1"},
        "advice": "mend it",
    }


def test_the_end_has_the_sums_and_not_every_image(records: list[Any]) -> None:
    report = PushReport([result(ImageStatus.PUSHED)] * 3, bytes_sent=30, complete=True)

    log_event(PushEnded(report))

    assert records[0].getMessage() == "3 images: 3 pushed"
    assert records[0].fields["bytes_sent"] == 30
    assert "images" not in records[0].fields


def test_an_event_that_nobody_knows_is_told_with_its_fields(records: list[Any]) -> None:
    @dataclasses.dataclass(frozen=True, slots=True)
    class BlobTeleported:
        repository: str
        size: int
        error: RegistryError

    log_event(cast("Event", BlobTeleported(REPOSITORY, 7, ERROR)))

    (record,) = records
    assert (record.levelname, record.event) == ("DEBUG", "blob_teleported")
    assert f"blob teleported: repository {REPOSITORY}, size 7" in record.getMessage()
    assert record.fields["error"]["kind"] == "registry"


def test_what_a_layout_names_cannot_act_on_a_terminal(records: list[Any]) -> None:
    log_event(Warned("evil \x1b[2J\r\n name"))

    assert records[0].getMessage() == r"evil \x1b[2J\r\n name"


def test_without_handlers_nothing_is_printed() -> None:
    program = (
        "from asyncpush import Warned\n"
        "from asyncpush.engine.log import log_event\n"
        "log_event(Warned('nobody listens'))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
