"""Whose policies a job needs: its repositories by the credentials that it pushes with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from asyncpush.job.load import load_job
from asyncpush.job.principals import JobPrincipals, principals_of
from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

ONE, TWO = "111122223333", "444455556666"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        writer = LayoutWriter(tmp_path / "layouts" / name)
        layer = writer.blob(name.encode(), mediatypes.OCI_LAYER)
        writer.entry(writer.image([layer]), "v1")
        writer.close()
    return tmp_path


def principals(
    folder: Path, *registries: dict[str, Any], only: str = "*", **more: Any
) -> JobPrincipals:
    path = folder / "job.yaml"
    document = {
        "version": 1,
        "registries": registries,
        "sources": [{"layouts": "layouts/*"}],
        "targets": [{"repository": "team/{directory}"}],
        **more,
    }
    path.write_text(yaml.safe_dump(document))
    return principals_of(load_job(path, {}, {}).select([only], []))


def arn(account: str, region: str, name: str) -> str:
    return f"arn:aws:ecr:{region}:{account}:repository/team/{name}"


def test_each_role_and_profile_has_its_own_repositories(folder: Path) -> None:
    found = principals(
        folder,
        {
            "accounts": [ONE, TWO],
            "regions": ["eu-west-1", "us-east-1"],
            "role_arn": "arn:aws:iam::{account}:role/push",
        },
        {"hosts": [f"{ONE}.dkr.ecr.ap-south-1.amazonaws.com"], "profile": "asia"},
        {"hosts": [f"{TWO}.dkr.ecr.ap-south-1.amazonaws.com"]},
    )
    assert {p.name: p.resources for p in found.principals} == {
        f"role arn:aws:iam::{account}:role/push": {
            arn(account, region, name)
            for region in ("eu-west-1", "us-east-1")
            for name in ("one", "two")
        }
        for account in (ONE, TWO)
    } | {
        "profile asia": {arn(ONE, "ap-south-1", name) for name in ("one", "two")},
        "the default credentials": {arn(TWO, "ap-south-1", name) for name in ("one", "two")},
    }
    assert not found.problems


def test_what_is_not_chosen_needs_no_permission(folder: Path) -> None:
    host = f"{ONE}.dkr.ecr.eu-west-1.amazonaws.com"
    (principal,) = principals(folder, {"hosts": [host]}, only="two").principals
    assert principal.resources == {arn(ONE, "eu-west-1", "two")}


def test_registries_that_are_not_ecrs_are_told_apart(folder: Path) -> None:
    found = principals(folder, {"hosts": ["docker://localhost:5000"]})
    assert not found.principals
    assert [str(repository) for repository in found.elsewhere] == [
        "localhost:5000/team/one",
        "localhost:5000/team/two",
    ]


def test_keys_of_new_repositories_are_those_of_each_registry(folder: Path) -> None:
    registry = {"accounts": [ONE], "regions": ["eu-west-1", "us-east-1"]}
    create = {"encryption": "KMS", "kms_key": "k"}
    (principal,) = principals(folder, registry, create_repositories=create).principals
    assert principal.kms_keys == {
        f"arn:aws:kms:{region}:{ONE}:key/k" for region in ("eu-west-1", "us-east-1")
    }
    alias = principals(
        folder, registry, create_repositories={"encryption": "KMS", "kms_key": "alias/x"}
    )
    assert alias.aliases == ["alias/x"]
    assert not alias.principals[0].kms_keys


def test_an_image_that_cannot_say_where_it_goes_is_a_problem(folder: Path) -> None:
    (folder / "layouts" / "two" / "index.json").write_text("{")
    found = principals(folder, {"hosts": [f"{ONE}.dkr.ecr.eu-west-1.amazonaws.com"]})
    ((what, error),) = found.problems
    assert what.endswith("layouts/two")
    assert "index.json" in str(error)
