"""Policies of repositories: who of another account may call what, and who of the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from registry_driver import ACCOUNT, NAME, REGION, answers, connect, push_image, put_image, upload

from asyncpush.localregistry import Key, LocalRegistry, RunningRegistry

pytestmark = pytest.mark.anyio

OTHER = "444455556666"
ARN = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{NAME}"
OWNER = Key("AKIDOWNEROWNEROWNER0", "1")


def allow(action: Any, principal: Any = None, effect: str = "Allow") -> dict[str, Any]:
    statement = {"Effect": effect, "Action": action}
    statement |= {"Resource": "*"} if principal is None else {"Principal": principal}
    return {"Version": "2012-10-17", "Statement": [statement]}


def key(account: str, policy: dict[str, Any] | None, user: str = "guest") -> Key:
    return Key("AKIDGUESTGUESTGUEST0", "2", account=account, policy=policy, user=user)


@asynccontextmanager
async def serving(root: Path, *keys: Key) -> AsyncIterator[RunningRegistry]:
    async with LocalRegistry(root, [OWNER, *keys]).run() as server:
        await server.ensure_repository(ACCOUNT, REGION, NAME)
        yield server


async def give(server: RunningRegistry, policy: dict[str, Any]) -> None:
    async with connect(server, OWNER) as ecr:
        await ecr.set_repository_policy(repositoryName=NAME, policyText=json.dumps(policy))


async def test_policy_is_kept_as_given_and_outlives_the_server(tmp_path: Path) -> None:
    text = json.dumps(allow("ecr:*", {"AWS": OTHER}), indent=7)
    async with serving(tmp_path) as server, connect(server, OWNER) as ecr:
        with answers("RepositoryPolicyNotFoundException", f"'{NAME}'"):
            await ecr.get_repository_policy(repositoryName=NAME)
        answer = await ecr.set_repository_policy(repositoryName=NAME, policyText=text)
        assert answer["policyText"] == text
        assert answer["registryId"] == ACCOUNT
    guest = key(OTHER, allow("*"))
    async with serving(tmp_path, guest) as server, connect(server, OWNER) as ecr:
        assert (await ecr.get_repository_policy(repositoryName=NAME))["policyText"] == text
        async with connect(server, guest) as theirs:
            await theirs.initiate_layer_upload(repositoryName=NAME, registryId=ACCOUNT)
            gone = await ecr.delete_repository_policy(repositoryName=NAME)
            assert gone["policyText"] == text
            with answers("AccessDeniedException"):
                await theirs.initiate_layer_upload(repositoryName=NAME, registryId=ACCOUNT)
        with answers("RepositoryPolicyNotFoundException"):
            await ecr.delete_repository_policy(repositoryName=NAME)


@pytest.mark.parametrize("principal", [{"AWS": OTHER}, {"AWS": f"arn:aws:iam::{OTHER}:user/guest"}])
async def test_across_accounts_both_policies_must_allow(tmp_path: Path, principal: Any) -> None:
    guest = key(OTHER, allow("ecr:InitiateLayerUpload"))
    who = f"arn:aws:iam::{OTHER}:user/guest is not authorized to perform: ecr:"
    async with serving(tmp_path, guest) as server, connect(server, guest) as ecr:
        with answers(
            "AccessDeniedException",
            f"{who}InitiateLayerUpload on resource: {ARN} because no resource-based policy",
        ):
            await ecr.initiate_layer_upload(repositoryName=NAME, registryId=ACCOUNT)
        await give(server, allow(["ecr:InitiateLayerUpload", "ecr:PutImage"], principal))
        await ecr.initiate_layer_upload(repositoryName=NAME, registryId=ACCOUNT)
        with answers("AccessDeniedException", "because no identity-based policy"):
            await ecr.put_image(repositoryName=NAME, registryId=ACCOUNT, imageManifest="{}")


async def test_a_key_without_a_policy_still_needs_the_repositorys_across_accounts(
    tmp_path: Path,
) -> None:
    guest = key(OTHER, None)
    async with serving(tmp_path, guest) as server, connect(server, guest) as ecr:
        with answers("AccessDeniedException", "no resource-based policy"):
            await ecr.initiate_layer_upload(repositoryName=NAME, registryId=ACCOUNT)
        await give(server, allow("ecr:InitiateLayerUpload", {"AWS": OTHER}))
        await ecr.initiate_layer_upload(repositoryName=NAME, registryId=ACCOUNT)


async def test_within_an_account_naming_a_user_suffices_and_naming_the_account_does_not(
    tmp_path: Path,
) -> None:
    guest = key(ACCOUNT, allow("ecr:GetAuthorizationToken"))
    async with serving(tmp_path, guest) as server, connect(server, guest) as ecr:
        await give(server, allow("ecr:*", {"AWS": ACCOUNT}))
        with answers("AccessDeniedException", "no identity-based policy"):
            await ecr.initiate_layer_upload(repositoryName=NAME)
        await give(server, allow("ecr:*", {"AWS": guest.arn}))
        await upload(ecr, b"a layer")


async def test_a_deny_in_the_repositorys_policy_beats_the_identitys_allow(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connect(server, OWNER) as ecr:
        await push_image(ecr, "x", "v1")
        await give(server, allow("ecr:PutImage", "*", "Deny"))
        with answers("AccessDeniedException", "with an explicit deny in a resource-based policy"):
            await put_image(ecr, "{}")


async def test_a_policy_goes_with_its_repository(tmp_path: Path) -> None:
    guest = key(OTHER, allow("*"))
    async with serving(tmp_path, guest) as server, connect(server, OWNER) as ecr:
        await give(server, allow("ecr:*", {"AWS": OTHER}))
        await ecr.delete_repository(repositoryName=NAME)
        await ecr.create_repository(repositoryName=NAME)
        async with connect(server, guest) as theirs:
            with answers("AccessDeniedException"):
                await theirs.initiate_layer_upload(repositoryName=NAME, registryId=ACCOUNT)


async def test_a_policy_that_would_shut_its_giver_out_must_be_forced(tmp_path: Path) -> None:
    policy = json.dumps(allow("ecr:Set*", "*", "Deny"))
    async with serving(tmp_path) as server, connect(server, OWNER) as ecr:
        with answers("InvalidParameterException", "forced"):
            await ecr.set_repository_policy(repositoryName=NAME, policyText=policy)
        await ecr.set_repository_policy(repositoryName=NAME, policyText=policy, force=True)
        with answers("AccessDeniedException"):
            await ecr.set_repository_policy(repositoryName=NAME, policyText=policy, force=True)


@pytest.mark.parametrize(
    "text", ["{", "[]", "[" * 5000, json.dumps(allow("ecr:*")), "x" * 10_241, ""]
)
async def test_a_policy_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    async with serving(tmp_path) as server, connect(server, OWNER) as ecr:
        with answers("InvalidParameterException"):
            await ecr.set_repository_policy(repositoryName=NAME, policyText=text)
        with answers("RepositoryPolicyNotFoundException"):
            await ecr.get_repository_policy(repositoryName=NAME)


async def test_policies_are_for_repositories_that_are_there_and_for_those_who_may(
    tmp_path: Path,
) -> None:
    text = json.dumps(allow("ecr:*", "*"))
    pusher = key(ACCOUNT, allow("ecr:PutImage"))
    async with serving(tmp_path, pusher) as server:
        async with connect(server, OWNER) as ecr:
            for call in ("set", "get", "delete"):
                more = {"policyText": text} if call == "set" else {}
                with answers("RepositoryNotFoundException"):
                    await getattr(ecr, f"{call}_repository_policy")(
                        repositoryName="no/such", **more
                    )
        async with connect(server, pusher) as ecr:
            for call in ("set", "get", "delete"):
                more = {"policyText": text} if call == "set" else {}
                with answers("AccessDeniedException", f"ecr:{call.title()}RepositoryPolicy"):
                    await getattr(ecr, f"{call}_repository_policy")(repositoryName=NAME, **more)


async def test_tags_of_a_new_repository_take_a_permission_of_their_own(tmp_path: Path) -> None:
    creator = key(ACCOUNT, allow("ecr:CreateRepository"))
    async with serving(tmp_path, creator) as server, connect(server, creator) as ecr:
        tags = [{"Key": "owner", "Value": "me"}]
        with answers("AccessDeniedException", "ecr:TagResource"):
            await ecr.create_repository(repositoryName="tagged/one", tags=tags)
        await ecr.create_repository(repositoryName="plain/one")
