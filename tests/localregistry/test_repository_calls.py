"""The operations on repositories, GetAuthorizationToken, and who may call what."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from registry_driver import (
    ACCOUNT,
    NAME,
    REGION,
    SMALL_PARTS,
    answers,
    call,
    connect,
    push_image,
    upload,
)

from asyncpush.localregistry import Key, LocalRegistry, RunningRegistry

pytestmark = pytest.mark.anyio

OTHER = "444455556666"
PUSH_ONLY = [
    "ecr:BatchCheckLayerAvailability",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload",
    "ecr:PutImage",
]


def scoped(*resources: str) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": PUSH_ONLY, "Resource": list(resources)},
            {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
        ],
    }


async def test_repository_is_created_described_and_deleted(
    registry: RunningRegistry, ecr: Any
) -> None:
    created = (await ecr.create_repository(repositoryName="a/b", imageTagMutability="IMMUTABLE"))[
        "repository"
    ]
    assert created["repositoryArn"] == f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/a/b"
    assert created["repositoryUri"] == f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/a/b"
    assert created["imageTagMutability"] == "IMMUTABLE"
    assert abs(datetime.now(UTC) - created["createdAt"]) < timedelta(minutes=1)
    described = await ecr.describe_repositories(repositoryNames=["a/b"])
    assert described["repositories"] == [created]
    assert (await ecr.delete_repository(repositoryName="a/b"))["repository"] == created
    with answers(
        "RepositoryNotFoundException",
        f"The repository with name 'a/b' does not exist in the registry with id '{ACCOUNT}'",
    ):
        await ecr.describe_repositories(repositoryNames=["a/b"])


async def test_repository_that_is_there_is_not_created_again(ecr: Any) -> None:
    with answers("RepositoryAlreadyExistsException", f"'{NAME}' already exists"):
        await ecr.create_repository(repositoryName=NAME)


async def test_repositories_are_listed_page_by_page(ecr: Any) -> None:
    names = [f"r{i:02}" for i in range(7)]
    for name in reversed(names):
        await ecr.create_repository(repositoryName=name)
    pages = ecr.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 3})
    found = [[r["repositoryName"] for r in page["repositories"]] async for page in pages]
    assert found == [names[:3], names[3:6], [names[6], NAME]]
    with answers("InvalidParameterException", "nextToken"):
        await ecr.describe_repositories(nextToken="made up")


async def test_repository_with_images_is_deleted_by_force_alone(ecr: Any, tmp_path: Path) -> None:
    await push_image(ecr, "x", "v1")
    blobs = tmp_path / "root" / "blobs" / "sha256"
    assert len(list(blobs.iterdir())) == 2
    await ecr.create_repository(repositoryName="keeps/one")
    await upload(ecr, b"layer of x", name="keeps/one")
    with answers("RepositoryNotEmptyException", "still contains images"):
        await ecr.delete_repository(repositoryName=NAME)
    await ecr.delete_repository(repositoryName=NAME, force=True)
    assert [path.read_bytes() for path in blobs.iterdir()] == [b"layer of x"]
    await ecr.create_repository(repositoryName=NAME)
    assert (await ecr.list_images(repositoryName=NAME))["imageIds"] == []


async def test_mutability_can_be_changed(ecr: Any) -> None:
    answer = await ecr.put_image_tag_mutability(repositoryName=NAME, imageTagMutability="IMMUTABLE")
    assert answer["imageTagMutability"] == "IMMUTABLE"
    described = await ecr.describe_repositories(repositoryNames=[NAME])
    assert described["repositories"][0]["imageTagMutability"] == "IMMUTABLE"


@pytest.mark.parametrize(
    "more",
    [
        {"imageTagMutability": "SOMETIMES"},
        {"imageTagMutability": "IMMUTABLE_WITH_EXCLUSION"},
        {"encryptionConfiguration": {"encryptionType": "ROT13"}},
        {"encryptionConfiguration": {"encryptionType": "AES256", "kmsKey": "alias/mine"}},
        {"encryptionConfiguration": {"kmsKey": "alias/mine"}},
        {"repositoryName": "Upper"},
        {"repositoryName": "a"},
        {"repositoryName": "a" * 257},
        {"repositoryName": "a//b"},
        {"repositoryName": "../etc"},
        {"registryId": "12"},
    ],
)
async def test_repository_that_cannot_be_had_is_refused(ecr: Any, more: dict[str, Any]) -> None:
    with answers("InvalidParameterException"):
        await ecr.create_repository(**{"repositoryName": "ok/name"} | more)


async def test_encryption_and_tags_are_kept(ecr: Any) -> None:
    tags = [{"Key": "team", "Value": "a"}, {"Key": "why", "Value": ""}]
    for name, given, kept in (
        ("plain", None, {"encryptionType": "AES256"}),
        ("aes", {"encryptionType": "AES256"}, {"encryptionType": "AES256"}),
        ("kms", {"encryptionType": "KMS"}, {"encryptionType": "KMS", "kmsKey": "alias/aws/ecr"}),
        (
            "own",
            {"encryptionType": "KMS_DSSE", "kmsKey": "12ab"},
            {"encryptionType": "KMS_DSSE", "kmsKey": "key/12ab"},
        ),
    ):
        more = {} if given is None else {"encryptionConfiguration": given}
        answer = await ecr.create_repository(repositoryName=f"kept/{name}", tags=tags, **more)
        if "kmsKey" in kept:
            kept["kmsKey"] = f"arn:aws:kms:{REGION}:{ACCOUNT}:{kept['kmsKey']}"
        assert answer["repository"]["encryptionConfiguration"] == kept
        found = await ecr.describe_repositories(repositoryNames=[f"kept/{name}"])
        assert found["repositories"][0]["encryptionConfiguration"] == kept
        arn = answer["repository"]["repositoryArn"]
        assert (await ecr.list_tags_for_resource(resourceArn=arn))["tags"] == tags


async def test_tags_that_cannot_be_had_are_refused(ecr: Any) -> None:
    many = [{"Key": str(i), "Value": ""} for i in range(51)]
    for code, tags in (
        ("TooManyTagsException", many),
        ("InvalidTagParameterException", [{"Key": "k" * 129, "Value": ""}]),
        ("InvalidTagParameterException", [{"Key": "k"}]),
    ):
        with answers(code):
            await ecr.create_repository(repositoryName="ok/name", tags=tags)
    with answers("InvalidParameterException"):
        await ecr.list_tags_for_resource(resourceArn="arn:aws:s3:::bucket")


async def test_accounts_and_regions_share_nothing(tmp_path: Path) -> None:
    keys = [Key("AKIDFIRSTFIRSTFIRST0", "1"), Key("AKIDOTHEROTHEROTHER0", "2", account=OTHER)]
    async with LocalRegistry(tmp_path, keys).run() as server:
        async with connect(server, keys[0]) as ecr:
            await ecr.create_repository(repositoryName=NAME)
        async with connect(server, keys[0], "us-east-1") as ecr:
            assert (await ecr.describe_repositories())["repositories"] == []
        async with connect(server, keys[1]) as ecr:
            assert (await ecr.describe_repositories())["repositories"] == []
            with answers("AccessDeniedException", "no resource-based policy allows"):
                await ecr.describe_repositories(registryId=ACCOUNT)


async def test_policy_is_enforced_by_arn_and_worded_like_aws(tmp_path: Path) -> None:
    arn = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{NAME}"
    deny = {"Effect": "Deny", "Action": "ecr:PutImage", "Resource": "*"}
    policy = scoped(arn)
    policy["Statement"].append(deny)
    pusher = Key("AKIDPUSHERPUSHER0000", "s", policy=policy, user="pusher")
    owner = Key("AKIDOWNEROWNEROWNER0", "1")
    async with LocalRegistry(tmp_path, [pusher, owner]).run() as server:
        async with connect(server, owner) as ecr:
            await ecr.create_repository(repositoryName=NAME)
            await ecr.create_repository(repositoryName="other")
        async with connect(server, pusher) as ecr:
            await upload(ecr, b"a layer")
            who = f"User: arn:aws:iam::{ACCOUNT}:user/pusher is not authorized to perform: "
            other = arn.replace(NAME, "other")
            with answers(
                "AccessDeniedException",
                f"{who}ecr:InitiateLayerUpload on resource: {other} because no identity-based "
                "policy allows the ecr:InitiateLayerUpload action",
            ):
                await ecr.initiate_layer_upload(repositoryName="other")
            with answers("AccessDeniedException", "with an explicit deny in an identity-based"):
                await ecr.put_image(repositoryName=NAME, imageManifest="{}")
            with answers("AccessDeniedException", f"{arn.rpartition('/team')[0]}/*"):
                await ecr.describe_repositories()


async def test_token_says_who_pulls_and_where(registry: RunningRegistry, ecr: Any) -> None:
    (data,) = (await ecr.get_authorization_token())["authorizationData"]
    assert base64.b64decode(data["authorizationToken"]).startswith(b"AWS:")
    assert data["proxyEndpoint"] == registry.url
    left = data["expiresAt"] - datetime.now(UTC)
    assert timedelta(hours=11, minutes=59) < left <= timedelta(hours=12)
    several = await ecr.get_authorization_token(registryIds=[ACCOUNT, OTHER])
    assert len(several["authorizationData"]) == 2


@pytest.mark.parametrize(
    ("action", "body", "code"),
    [
        ("DescribeRepositories", b"", "SerializationException"),
        ("DescribeRepositories", b"[]", "SerializationException"),
        ("DescribeRepositories", b"{", "SerializationException"),
        ("DescribeRepositories", b"\xff", "SerializationException"),
        ("DescribeRepositories", b'{"maxResults":"5"}', "SerializationException"),
        ("DescribeRepositories", b'{"maxResults":0}', "InvalidParameterException"),
        ("DescribeRepositories", b'{"maxResults":true}', "SerializationException"),
        ("DescribeRepositories", b'{"maxResults":5,"maxResults":6}', "SerializationException"),
        ("DescribeRepositories", b'{"repositoryNames":"x"}', "SerializationException"),
        ("DescribeRepositories", b'{"repositoryNames":[5]}', "SerializationException"),
        ("DescribeRepositories", b'{"repositoryNames":[]}', "InvalidParameterException"),
        ("DescribeRepositories", b'{"nextToken":"\\ud800"}', "SerializationException"),
        ("CreateRepository", b"{}", "InvalidParameterException"),
        ("CreateRepository", b'{"repositoryName":5}', "SerializationException"),
        ("CreateRepository", b'{"repositoryName":null}', "InvalidParameterException"),
        ("DeleteRepository", b'{"repositoryName":"a/b","force":"yes"}', "SerializationException"),
        ("StartImageScan", b"{}", "UnknownOperationException"),
        ("UnknownOperation", b"{}", "UnknownOperationException"),
        ("", b"{}", "UnknownOperationException"),
        ("DescribeRepositories", b" " * (1 << 20) + b"{}", "RequestEntityTooLargeException"),
    ],
)
async def test_malformed_call_is_refused(
    registry: RunningRegistry, action: str, body: bytes, code: str
) -> None:
    status, document = await call(registry, action, body)
    assert (status // 100, document["__type"]) == (4, code)
    assert document["message"]


async def test_body_that_is_not_what_it_says_is_refused(registry: RunningRegistry) -> None:
    for headers in ({"Content_Type": "text/plain"}, {"Content_Encoding": "gzip"}):
        status, document = await call(registry, "DescribeRepositories", b"{}", **headers)
        assert (status, document["__type"]) == (400, "SerializationException")


async def test_calls_are_logged_in_memory_and_in_a_file(tmp_path: Path) -> None:
    options = replace(SMALL_PARTS, max_call_records=3, call_log=tmp_path / "calls.jsonl")
    async with (
        LocalRegistry(tmp_path / "root", options=options).run() as server,
        connect(server) as ecr,
    ):
        await ecr.create_repository(repositoryName=NAME)
        await upload(ecr, b"0123456789" * 2)
        with answers("LayerAlreadyExistsException"):
            await upload(ecr, b"0123456789" * 2)
        assert len(server.calls) == 3
        assert server.calls.of("CompleteLayerUpload")[-1].error == "LayerAlreadyExistsException"
        counters = server.calls.counters
        assert counters.calls["UploadLayerPart"] == 4
        assert counters.errors["CompleteLayerUpload", "LayerAlreadyExistsException"] == 1
        assert counters.layer_bytes_received == counters.layer_bytes_acknowledged == 40
        assert counters.layer_bytes_duplicate == 20
    lines = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines][:3] == [
        "CreateRepository",
        "InitiateLayerUpload",
        "UploadLayerPart",
    ]
    assert lines[2]["layer_bytes"] == 16
    assert lines[2]["repository"] == NAME
    assert lines[2]["upload_id"] == lines[1]["upload_id"]
    assert (lines[2]["account"], lines[2]["region"]) == (ACCOUNT, REGION)


async def test_root_serves_one_server_and_only_this_machine(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path)
    async with registry.run():
        with pytest.raises(ValueError, match="another local registry"):
            async with LocalRegistry(tmp_path).run():
                pass
    for host in ("0.0.0.0", "192.168.1.1", "example.org", "::"):
        with pytest.raises(ValueError, match="host: "):
            async with registry.run(host=host):
                pass
    async with registry.run(host="::1") as server:
        assert server.url == f"http://[::1]:{server.port}"
