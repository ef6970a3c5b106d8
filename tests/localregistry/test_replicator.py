"""Replication of the local registry: what appears where, what must allow it, what it survives."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from oci_driver import log_in, push_small_image
from registry_driver import (
    INDEX_TYPE,
    MANIFEST_TYPE,
    NAME,
    SMALL_PARTS,
    answers,
    connect,
    descriptor,
    manifest_text,
    push_image,
    put_image,
    sha256,
)

from asyncpush.localregistry import (
    CallInfo,
    Fault,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
)

pytestmark = pytest.mark.anyio

ONE, TWO = "111122223333", "444455556666"
KEYS = {
    ONE: Key("AKIDREPLICATIONONE00", "secret-one", ONE),
    TWO: Key("AKIDREPLICATIONTWO00", "secret-two", TWO),
}
HOME, AWAY = "eu-west-1", "us-east-1"
NEAR = {"registryId": ONE, "region": AWAY}
FAR = {"registryId": TWO, "region": HOME}


def policy(actions: list[str], resource: str = "*", principal: str = ONE) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{principal}:root"},
        "Action": actions,
        "Resource": resource,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


BOTH = policy(["ecr:ReplicateImage", "ecr:CreateRepository"])


@contextlib.asynccontextmanager
async def serving(root: Path, **options: Any) -> AsyncIterator[RunningRegistry]:
    settings: LocalRegistryOptions = replace(SMALL_PARTS, **options)
    async with LocalRegistry(root, list(KEYS.values()), settings).run() as server:
        yield server


@contextlib.asynccontextmanager
async def replicating(
    server: RunningRegistry, *destinations: dict[str, str], prefixes: tuple[str, ...] = ()
) -> AsyncIterator[Any]:
    """A client of the source, which has the repository and a rule."""
    async with connect(server, KEYS[ONE], HOME) as source:
        with contextlib.suppress(source.exceptions.RepositoryAlreadyExistsException):
            await source.create_repository(repositoryName=NAME)
        await rule(source, *destinations, prefixes=prefixes)
        yield source


async def rule(source: Any, *destinations: dict[str, str], prefixes: tuple[str, ...] = ()) -> None:
    one: dict[str, Any] = {"destinations": list(destinations)}
    if prefixes:
        one["repositoryFilters"] = [{"filter": p, "filterType": "PREFIX_MATCH"} for p in prefixes]
    await source.put_replication_configuration(replicationConfiguration={"rules": [one]})


async def statuses(source: Any, **image_id: str) -> list[dict[str, str]]:
    answer = await source.describe_image_replication_status(repositoryName=NAME, imageId=image_id)
    found: list[dict[str, str]] = answer["replicationStatuses"]
    return found


async def ended(source: Any, digest: str) -> list[dict[str, str]]:
    """The image's statuses once none is in progress any more."""
    with anyio.fail_after(30):
        while True:
            found = await statuses(source, imageDigest=digest)
            if all(one["status"] != "IN_PROGRESS" for one in found):
                return found
            await anyio.sleep(0.01)


async def pulled(client: Any, **image_id: str) -> dict[str, Any] | None:
    answer = await client.batch_get_image(repositoryName=NAME, imageIds=[image_id])
    return answer["images"][0] if answer["images"] else None


async def layers(client: Any, *digests: str) -> set[str]:
    answer = await client.batch_check_layer_availability(
        repositoryName=NAME, layerDigests=list(digests)
    )
    return {
        layer["layerDigest"]
        for layer in answer["layers"]
        if layer["layerAvailability"] == "AVAILABLE"
    }


async def test_an_image_appears_with_its_layers_and_tag(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as server,
        replicating(server, NEAR) as source,
        connect(server, KEYS[ONE], AWAY) as near,
    ):
        digest = await push_image(source, "a", "v1")
        assert await ended(source, digest) == [{**NEAR, "status": "COMPLETE"}]
        image = await pulled(near, imageTag="v1")
        assert image is not None
        assert sha256(image["imageManifest"]) == digest
        wanted = {sha256("config of a"), sha256("layer of a")}
        assert await layers(near, *wanted) == wanted
        (repository,) = (await near.describe_repositories())["repositories"]
        assert repository["imageTagMutability"] == "MUTABLE"


async def test_an_index_brings_its_members_even_those_pushed_before_the_rule(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path) as server,
        connect(server, KEYS[ONE], HOME) as source,
        connect(server, KEYS[ONE], AWAY) as near,
    ):
        await source.create_repository(repositoryName=NAME)
        member = await push_image(source, "member")
        await rule(source, NEAR)
        assert await statuses(source, imageDigest=member) == []
        index = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": INDEX_TYPE,
                "manifests": [descriptor(member, MANIFEST_TYPE)],
            }
        )
        digest = await put_image(source, index, "v1")
        await ended(source, digest)
        assert await pulled(near, imageDigest=digest)
        assert await pulled(near, imageDigest=member)
        assert await layers(near, sha256("layer of member")) == {sha256("layer of member")}


async def test_only_what_a_rule_covers_goes(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as server,
        replicating(server, NEAR, prefixes=("other/",)) as source,
        connect(server, KEYS[ONE], AWAY) as near,
    ):
        digest = await push_image(source, "a", "v1")
        assert await statuses(source, imageDigest=digest) == []
        with answers("RepositoryNotFoundException"):
            await pulled(near, imageDigest=digest)


async def test_what_was_there_before_the_rule_stays_where_it_is(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, replicating(server) as source:
        digest = await push_image(source, "a", "v1")
        await rule(source, NEAR)
        with answers("ImageAlreadyExistsException"):
            await push_image_again(source, "a", "v1")
        assert await statuses(source, imageDigest=digest) == []
        await push_image_again(source, "a", "v2")
        assert await ended(source, digest) == [{**NEAR, "status": "COMPLETE"}]


async def push_image_again(client: Any, seed: str, tag: str) -> str:
    config, layer = sha256(f"config of {seed}"), sha256(f"layer of {seed}")
    return await put_image(client, manifest_text(config, [descriptor(layer)]), tag)


async def test_what_was_replicated_is_not_replicated_on(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as server,
        replicating(server, NEAR) as source,
        connect(server, KEYS[ONE], AWAY) as near,
        connect(server, KEYS[ONE], "eu-north-1") as third,
    ):
        await rule(near, {"registryId": ONE, "region": "eu-north-1"})
        digest = await push_image(source, "a", "v1")
        await ended(source, digest)
        assert await statuses(near, imageDigest=digest) == []
        with answers("RepositoryNotFoundException"):
            await pulled(third, imageDigest=digest)


async def test_a_tag_follows_every_push_in_order(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as server,
        replicating(server, NEAR) as source,
        connect(server, KEYS[ONE], AWAY) as near,
    ):
        digests = [await push_image(source, seed, "latest") for seed in ("a", "b", "c")]
        for digest in digests:
            await ended(source, digest)
        image = await pulled(near, imageTag="latest")
        assert image is not None
        assert image["imageId"]["imageDigest"] == digests[-1]


async def test_an_immutable_tag_that_points_elsewhere_stays_and_the_image_comes(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path) as server,
        replicating(server, NEAR) as source,
        connect(server, KEYS[ONE], AWAY) as near,
    ):
        await near.create_repository(repositoryName=NAME, imageTagMutability="IMMUTABLE")
        first = await push_image(source, "a", "v1")
        second = await push_image(source, "b", "v1")
        assert await ended(source, second) == [{**NEAR, "status": "COMPLETE"}]
        image = await pulled(near, imageTag="v1")
        assert image is not None
        assert image["imageId"]["imageDigest"] == first
        assert await pulled(near, imageDigest=second)


@pytest.mark.parametrize(
    ("text", "prepared", "status"),
    [
        (None, False, "FAILED"),
        (policy(["ecr:ReplicateImage"]), False, "FAILED"),
        (policy(["ecr:ReplicateImage"]), True, "COMPLETE"),
        (policy(["ecr:CreateRepository"]), True, "FAILED"),
        (policy(["ecr:*"], principal=TWO), True, "FAILED"),
        (policy(["ecr:*"], f"arn:aws:ecr:{HOME}:{TWO}:repository/other/*"), True, "FAILED"),
        (policy(["ecr:*"], f"arn:aws:ecr:{HOME}:{TWO}:repository/team/*"), False, "COMPLETE"),
        (BOTH, False, "COMPLETE"),
    ],
)
async def test_another_account_takes_what_its_registry_policy_allows(
    tmp_path: Path, text: str | None, prepared: bool, status: str
) -> None:
    async with (
        serving(tmp_path) as server,
        replicating(server, FAR) as source,
        connect(server, KEYS[TWO], HOME) as far,
    ):
        if text is not None:
            await far.put_registry_policy(policyText=text)
        if prepared:
            await far.create_repository(repositoryName=NAME)
        digest = await push_image(source, "a", "v1")
        (found,) = await ended(source, digest)
        assert found["status"] == status
        assert found.get("failureCode") == ("AccessDeniedException" if status == "FAILED" else None)
        if status == "COMPLETE":
            assert await pulled(far, imageTag="v1")
        elif prepared:
            assert await pulled(far, imageDigest=digest) is None


async def test_a_fault_is_one_destinations_alone(tmp_path: Path) -> None:
    met: list[CallInfo] = []

    def faults(info: CallInfo) -> Fault | None:
        if info.action != "ReplicateImage":
            return None
        met.append(info)
        return Fault(code="LimitExceededException") if info.region == AWAY else None

    async with (
        serving(tmp_path, faults=faults) as server,
        replicating(server, NEAR, FAR) as source,
        connect(server, KEYS[TWO], HOME) as far,
    ):
        await far.put_registry_policy(policyText=BOTH)
        digest = await push_image(source, "a", "v1")
        found = await ended(source, digest)
        assert found == [
            {**NEAR, "status": "FAILED", "failureCode": "LimitExceededException"},
            {**FAR, "status": "COMPLETE"},
        ]
        assert {(i.account, i.region, i.params["imageTag"]) for i in met} == {
            (ONE, AWAY, "v1"),
            (TWO, HOME, "v1"),
        }
        records = server.calls.of("ReplicateImage")
        assert {(r.account, r.error) for r in records} == {
            (ONE, "LimitExceededException"),
            (TWO, None),
        }
        # A further tag is a further push, which takes the failure's place.
        await push_image_again(source, "a", "v2")
        assert {one["status"] for one in await ended(source, digest)} == {"FAILED", "COMPLETE"}


async def test_what_is_pending_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path, replication_delay=3600) as server, replicating(server, NEAR) as c:
        digest = await push_image(c, "a", "v1")
        assert await statuses(c, imageTag="v1") == [{**NEAR, "status": "IN_PROGRESS"}]
    async with (
        serving(tmp_path) as server,
        connect(server, KEYS[ONE], HOME) as source,
        connect(server, KEYS[ONE], AWAY) as near,
    ):
        assert await ended(source, digest) == [{**NEAR, "status": "COMPLETE"}]
        assert await pulled(near, imageTag="v1")


async def test_an_image_that_was_deleted_goes_nowhere(tmp_path: Path) -> None:
    async with serving(tmp_path, replication_delay=3600) as server, replicating(server, NEAR) as c:
        gone = await push_image(c, "gone", "v1")
        await c.batch_delete_image(repositoryName=NAME, imageIds=[{"imageDigest": gone}])
        with answers("ImageNotFoundException"):
            await statuses(c, imageDigest=gone)
        stays = await push_image(c, "stays", "v2")
    async with (
        serving(tmp_path) as server,
        connect(server, KEYS[ONE], HOME) as source,
        connect(server, KEYS[ONE], AWAY) as near,
    ):
        await ended(source, stays)
        assert await pulled(near, imageDigest=gone) is None


async def test_a_deleted_source_takes_nothing_away_from_the_destination(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as server,
        replicating(server, NEAR) as source,
        connect(server, KEYS[ONE], AWAY) as near,
    ):
        digest = await push_image(source, "a", "v1")
        await ended(source, digest)
        await source.delete_repository(repositoryName=NAME, force=True)
        assert await pulled(near, imageDigest=digest)
        url = (
            await near.get_download_url_for_layer(
                repositoryName=NAME, layerDigest=sha256("layer of a")
            )
        )["downloadUrl"]
        assert url.startswith(server.url)


async def test_rules_are_kept_as_they_were_put(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, replicating(server, NEAR, prefixes=("team/",)) as c:
        found = await c.describe_registry()
        assert found["registryId"] == ONE
        assert found["replicationConfiguration"] == {
            "rules": [
                {
                    "destinations": [NEAR],
                    "repositoryFilters": [{"filter": "team/", "filterType": "PREFIX_MATCH"}],
                }
            ]
        }
    async with serving(tmp_path) as server, connect(server, KEYS[ONE], HOME) as source:
        assert (await source.describe_registry())["replicationConfiguration"]["rules"]
        await source.put_replication_configuration(replicationConfiguration={"rules": []})
        assert (await source.describe_registry())["replicationConfiguration"] == {"rules": []}
    async with serving(tmp_path) as server, connect(server, KEYS[ONE], AWAY) as elsewhere:
        assert (await elsewhere.describe_registry())["replicationConfiguration"] == {"rules": []}


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({}, "rules"),
        ({"rules": [{}]}, "destinations"),
        ({"rules": [{"destinations": [NEAR]}] * 26}, "between 0 and 25"),
        ({"rules": [{"destinations": [{**NEAR, "region": HOME}]}]}, "same as the source"),
        ({"rules": [{"destinations": [{**NEAR, "region": "cn-north-1"}]}]}, "partition"),
        ({"rules": [{"destinations": [{**NEAR, "registryId": "1"}]}]}, "registryId"),
        (
            {"rules": [{"destinations": [NEAR], "repositoryFilters": []}]},
            "between 1 and 100",
        ),
        (
            {
                "rules": [
                    {
                        "destinations": [NEAR],
                        "repositoryFilters": [{"filter": "x*", "filterType": "PREFIX_MATCH"}],
                    }
                ]
            },
            "filter",
        ),
        (
            {"rules": [{"destinations": [{**NEAR, "registryId": f"{i:012}"} for i in range(26)]}]},
            "25 unique destinations",
        ),
    ],
)
async def test_rules_that_ecr_does_not_take_are_refused(
    tmp_path: Path, configuration: dict[str, Any], message: str
) -> None:
    async with serving(tmp_path) as server, connect(server, KEYS[ONE], HOME) as source:
        with answers("InvalidParameterException", message):
            await source.put_replication_configuration(replicationConfiguration=configuration)
        assert (await source.describe_registry())["replicationConfiguration"] == {"rules": []}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        policy(["ecr:PutImage"]),
        json.dumps({"Version": "2012-10-17", "Statement": []}),
        BOTH.replace("Principal", "NotPrincipal"),
    ],
)
async def test_a_registry_policy_that_cannot_be_meant_is_refused(tmp_path: Path, text: str) -> None:
    async with serving(tmp_path) as server, connect(server, KEYS[TWO], HOME) as far:
        with answers("InvalidParameterException", "Invalid registry policy"):
            await far.put_registry_policy(policyText=text)
        with answers("RegistryPolicyNotFoundException"):
            await far.get_registry_policy()


async def test_a_registry_policy_is_kept_and_removed(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connect(server, KEYS[TWO], HOME) as far:
        await far.put_registry_policy(policyText=BOTH)
        assert (await far.get_registry_policy())["policyText"] == BOTH
        assert (await far.delete_registry_policy())["policyText"] == BOTH
        with answers("RegistryPolicyNotFoundException"):
            await far.delete_registry_policy()


async def test_each_operation_takes_its_action(tmp_path: Path) -> None:
    allowed = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "ecr:CreateRepository", "Resource": "*"}],
    }
    key = Key("AKIDREPLICATIONNONE0", "secret-none", ONE, policy=allowed)
    async with (
        LocalRegistry(tmp_path, [key], SMALL_PARTS).run() as server,
        connect(server, key, HOME) as client,
    ):
        await client.create_repository(repositoryName=NAME)
        for action, call in {
            "DescribeRegistry": client.describe_registry(),
            "PutReplicationConfiguration": client.put_replication_configuration(
                replicationConfiguration={"rules": []}
            ),
            "DescribeImageReplicationStatus": client.describe_image_replication_status(
                repositoryName=NAME, imageId={"imageTag": "v1"}
            ),
            "PutRegistryPolicy": client.put_registry_policy(policyText=BOTH),
            "GetRegistryPolicy": client.get_registry_policy(),
            "DeleteRegistryPolicy": client.delete_registry_policy(),
        }.items():
            with answers("AccessDeniedException", f"ecr:{action}"):
                await call


async def test_what_is_pushed_over_v2_is_replicated_too(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as server,
        replicating(server, NEAR) as source,
        connect(server, KEYS[ONE], AWAY) as near,
        await log_in(source, server.url) as oci,
    ):
        layer, digest = await push_small_image(oci, NAME, "a", "v1")
        assert await ended(source, digest) == [{**NEAR, "status": "COMPLETE"}]
        assert await pulled(near, imageTag="v1")
        assert await layers(near, layer) == {layer}
