"""``asyncpush iam`` by the command line: what is printed, to where, and what is said beside it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import asyncpush_here, error_lines

from asyncpush.iam.actions import Extra
from asyncpush.iam.identity import push_policies, push_policy
from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

ARN = "arn:aws:ecr:eu-west-1:111122223333:repository/team/app"


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def iam(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return partial(asyncpush_here, monkeypatch, capsys, "iam")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    writer = LayoutWriter(tmp_path / "layouts" / "app")
    writer.entry(writer.image([writer.blob(b"layer", mediatypes.OCI_LAYER)]), "v1")
    writer.close()
    return write(tmp_path)


def write(folder: Path, **more: Any) -> Path:
    document = {
        "version": 1,
        "registries": [
            {
                "accounts": ["111122223333", "444455556666"],
                "regions": ["eu-west-1"],
                "role_arn": "arn:aws:iam::{account}:role/push",
            }
        ],
        "sources": [{"layouts": "layouts/*"}],
        "targets": [{"repository": "team/{directory}"}],
        **more,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_policy_without_arguments_is_json_and_nothing_else(iam: Command) -> None:
    done = iam("policy")
    assert json.loads(done.stdout) == push_policy()
    assert done.stderr == ""


def test_policy_says_what_the_seventh_action_buys(iam: Command) -> None:
    done = iam("policy", "--with", "unchanged")
    assert json.loads(done.stdout) == push_policy({Extra.UNCHANGED})
    assert "ecr:BatchGetImage" in done.stdout
    (note,) = done.stderr.splitlines()
    assert "one call finds out what is unchanged of 100 tags" in note
    assert done.returncode == 0


def test_policy_of_repositories(iam: Command, tmp_path: Path) -> None:
    reference = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/other:v1"
    options = ["--repository", ARN, "--repository", reference, "--with", "verify, rollback"]
    done = iam("policy", *options)
    repositories, _ = json.loads(done.stdout)["Statement"]
    assert repositories["Resource"] == [ARN, ARN.replace("app", "other")]
    assert repositories["Action"][-1] == "ecr:BatchGetImage"


def test_policies_of_a_job_are_one_for_each_role(iam: Command, job: Path, tmp_path: Path) -> None:
    printed = iam("policy", "--job", job)
    written = iam("policy", "--job", job, "--out", tmp_path / "out")
    expected = [
        push_policies([ARN.replace("111122223333", account)])[0]
        for account in ("111122223333", "444455556666")
    ]
    files = sorted((tmp_path / "out").iterdir())
    assert [json.loads(path.read_text()) for path in files] == expected
    assert written.stdout.splitlines()[0].startswith(
        f"{files[0]}: for role arn:aws:iam::111122223333:role/push, "
    )
    decoder, rest, found = json.JSONDecoder(), printed.stdout, []
    while rest.strip():
        document, end = decoder.raw_decode(rest.lstrip())
        found.append(document)
        rest = rest.lstrip()[end:]
    assert found == expected
    assert "policy 2 is for role arn:aws:iam::444455556666:role/push" in printed.stderr


def test_a_job_that_needs_more_than_a_policy_takes_is_told(iam: Command, tmp_path: Path) -> None:
    for i in range(120):
        writer = LayoutWriter(tmp_path / "layouts" / f"app{i:03}")
        writer.entry(writer.image([writer.blob(b"layer", mediatypes.OCI_LAYER)]), "v1")
        writer.close()
    registries = [{"accounts": ["111122223333"], "regions": ["eu-west-1"]}]
    job = write(tmp_path, registries=registries)
    done = iam("policy", "--job", job, "--out", tmp_path / "out")
    assert "at most 6,144 characters, so there are 2 for the default credentials" in done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_policy_of_a_job_that_creates_repositories_with_a_key(iam: Command, job: Path) -> None:
    key = "arn:aws:kms:eu-west-1:111122223333:key/k"
    create = {"encryption": "KMS", "kms_key": key, "tags": {"owner": "me"}}
    hosts = [{"hosts": ["111122223333.dkr.ecr.eu-west-1.amazonaws.com", "docker://localhost:1"]}]
    write(job.parent, create_repositories=create, registries=hosts)
    done = iam("policy", "--job", job, "--with", "create")
    repositories, _, kms = json.loads(done.stdout)["Statement"]
    assert repositories["Action"][-2:] == ["ecr:CreateRepository", "ecr:TagResource"]
    assert kms["Resource"] == key
    assert "1 repository such as localhost:1/team/app are not ECR's" in done.stderr
    without = iam("policy", "--job", job)
    assert len(json.loads(without.stdout)["Statement"]) == 2
    write(job.parent, create_repositories={"encryption": "KMS", "kms_key": "alias/x"})
    alias = iam("policy", "--job", job, "--with", "create")
    assert "note: alias/x is an alias, which no policy can name" in alias.stderr


def test_policies_for_other_accounts(iam: Command) -> None:
    role = "arn:aws:iam::444455556666:role/push"
    done = iam("repository-policy", "--principal", role)
    (statement,) = json.loads(done.stdout)["Statement"]
    assert statement["Principal"] == {"AWS": role}
    host = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
    options = ["--source-account", "444455556666", "--prefix", "team/"]
    done = iam("registry-policy", host, *options)
    (statement,) = json.loads(done.stdout)["Statement"]
    assert statement["Resource"] == ["arn:aws:ecr:eu-west-1:111122223333:repository/team/*"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("policy", "--with", "everything"), "--with knows no 'everything'; there is create"),
        (("policy", "--repository", "docker://localhost/app"), "IAM has no say there"),
        (("policy", "--repository", ARN, "--job", "job.yaml"), "exclude each other"),
        (("policy", "--only", "x"), "go with --job"),
        (("policy", "--job", "no-such.yaml"), "no-such.yaml"),
        (("policy", "--out", "/dev/null/x"), "cannot be written"),
        (("repository-policy", "--principal", "*"), "is no principal"),
        (("repository-policy", "--principal", "444455556666", "--with", "create"), "own creation"),
        (("registry-policy", "docker://x.test", "--source-account", "1"), "not ECR's"),
        (("registry-policy", "nonsense", "--source-account", "1"), "no ECR reference"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    iam: Command, arguments: tuple[str, ...], words: str
) -> None:
    done = iam(*arguments)
    (line,) = error_lines(done)
    assert words in line
    assert done.stdout == ""
    assert done.returncode == (1 if "--out" in arguments else 2)


def test_an_incomplete_policy_is_not_printed(iam: Command, job: Path) -> None:
    (job.parent / "layouts" / "app" / "index.json").write_text("{")
    done = iam("policy", "--job", job)
    assert done.stdout == ""
    assert "no policy is printed" in error_lines(done)[-1]
    assert done.returncode == 2
