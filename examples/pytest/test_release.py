"""The release script against the local registry."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from release import release

from asyncpush.testing import Fault, LocalEcr, LocalEcrSettings

SIX_ACTIONS = [
    "ecr:GetAuthorizationToken",
    "ecr:BatchCheckLayerAvailability",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload",
    "ecr:PutImage",
]


@pytest.fixture
def local_ecr_settings() -> LocalEcrSettings:
    """The account and the policy that the pipeline has: no more than a push takes."""
    statement = {"Effect": "Allow", "Action": SIX_ACTIONS, "Resource": "*"}
    return LocalEcrSettings(
        account="111122223333",
        region="eu-central-1",
        policy={"Version": "2012-10-17", "Statement": [statement]},
    )


def test_release_pushes_everything_once(local_ecr: LocalEcr, layout: Path) -> None:
    """A second release of the same finds all of it there."""
    repository = local_ecr.create("team/app", immutable=True)

    assert release(layout, repository)
    assert {"service-01", "service-02", "gateway"} <= local_ecr.tags("team/app").keys()

    local_ecr.clear()
    assert not release(layout, repository)
    assert local_ecr.calls("UploadLayerPart") == []


def test_release_stands_throttling_and_lost_connections(local_ecr: LocalEcr, layout: Path) -> None:
    """What passes is tried again."""
    repository = local_ecr.create("team/app")
    local_ecr.inject("PutImage", Fault(code="ThrottlingException"), times=2)
    local_ecr.inject("UploadLayerPart", Fault(drop="after"))

    assert release(layout, repository)

    assert local_ecr.faults_left() == {}
    assert "gateway" in local_ecr.tags("team/app")


def test_release_to_a_missing_repository_fails(local_ecr: LocalEcr, layout: Path) -> None:
    """It may not create one: the policy above does not let it."""
    with pytest.raises(subprocess.CalledProcessError):
        release(layout, f"{local_ecr.host}/team/missing")
