"""What the texts of remote sources mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpush.engine.journal import fingerprint
from asyncpush.errors import InvalidReferenceError, UsageError
from asyncpush.plan.items import PushItem
from asyncpush.plan.sources import (
    REGISTRY,
    Sources,
    parse_remote,
    source_identity,
    source_kind,
    source_name,
    split_source,
)

ECR = "111122223333.dkr.ecr.eu-central-1.amazonaws.com"
ARN = "arn:aws:ecr:eu-central-1:111122223333:repository"
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "repository", "entry", "name"),
    [
        ("docker://host:5000/team/app", "host:5000/team/app", None, "app"),
        ("docker://host/app:v1", "host/app", "v1", "app"),
        (f"docker://host/app@{DIGEST}", "host/app", DIGEST, "app"),
        (f"docker://host/app:v1@{DIGEST}", "host/app", "v1", "app"),
        ("docker://docker.io/nginx:1", "docker.io/library/nginx", "1", "nginx"),
        ("docker://index.docker.io/team/app", "docker.io/team/app", None, "app"),
        (f"{ECR}/team/app:v1", f"{ECR}/team/app", "v1", "app"),
        (f"docker://{ECR}/app", f"{ECR}/app", None, "app"),
        (f"{ARN}/team/app:v1", f"{ECR}/team/app", "v1", "app"),
        ("public.ecr.aws/nginx/nginx:1", "public.ecr.aws/nginx/nginx", "1", "nginx"),
    ],
)
def test_a_source_may_be_a_repository(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    repository: str,
    entry: str | None,
    name: str,
) -> None:
    assert source_kind(text) == (REGISTRY, text)
    assert split_source(text) == (f"docker://{repository}", entry)
    assert source_name(text) == name
    assert str(parse_remote(text).repository) == repository
    # The same job wherever it is run, and another one for another image.
    first = fingerprint([PushItem(text, f"{ECR}/x")], None)
    monkeypatch.chdir(tmp_path)
    assert fingerprint([PushItem(text, f"{ECR}/x")], None) == first
    other = text.replace(DIGEST, "sha256:" + "b" * 64) if DIGEST in text else f"{text}1"
    assert fingerprint([PushItem(other, f"{ECR}/x")], None) != first
    assert source_identity(text) == (REGISTRY, text)


@pytest.mark.parametrize("text", [f"{ECR}/app", f"{ECR}/app:v1", "public.ecr.aws/app", f"{ARN}/a"])
def test_a_path_of_that_name_is_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(text.removesuffix(":v1")).mkdir(parents=True)
    assert source_kind(text) == ("oci", text)
    assert split_source(text)[0] == text.removesuffix(":v1")


@pytest.mark.parametrize("text", ["host/app", "layouts/app:v1", f"x{ECR}/app", "arn:aws:s3:::b/c"])
def test_other_texts_are_paths(text: str) -> None:
    assert source_kind(text)[0] == "oci"


@pytest.mark.parametrize(
    "text", ["docker://", "docker:///app", "docker://host/a b", "docker://h/.."]
)
def test_a_repository_must_have_a_name(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_remote(text)


def test_a_registry_is_no_source_where_nothing_is_asked() -> None:
    with pytest.raises(UsageError, match="must be on this machine"):
        Sources().open("docker://host/app")
