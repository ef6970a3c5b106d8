"""The operations on the policies of repositories."""

from __future__ import annotations

from typing import Any

from asyncpush.localregistry.access.policy import Decision
from asyncpush.localregistry.call import Call
from asyncpush.localregistry.content.repositories import get_repository
from asyncpush.localregistry.content.repository_policies import read_policy
from asyncpush.localregistry.content.store import Database
from asyncpush.localregistry.errors import invalid_parameter
from asyncpush.localregistry.params import Params

# Service model: RepositoryPolicyText.
_MAX_TEXT = 10_240


async def put(call: Call, params: Params) -> dict[str, Any]:
    """SetRepositoryPolicy."""
    name = params.repository()
    text = params.text("policyText", most=_MAX_TEXT)
    force = params.flag("force")
    call.authorize("SetRepositoryPolicy", name)
    policy = read_policy(text)
    if not force and policy.decide("ecr:SetRepositoryPolicy", call.key.arn) is Decision.DENIED:
        raise invalid_parameter(
            "The policy would keep you from setting another one; it needs to be forced."
        )
    policies = call.services.policies

    def work(db: Database) -> None:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
        policies.put(db, repository, text, policy)

    await call.services.store.run(work)
    return _document(call, name, text)


async def get(call: Call, params: Params) -> dict[str, Any]:
    """GetRepositoryPolicy."""
    name = params.repository()
    call.authorize("GetRepositoryPolicy", name)
    policies = call.services.policies

    def work(db: Database) -> str:
        with db.transaction() as connection:
            return policies.text(connection, get_repository(connection, call.registry, name))

    return _document(call, name, await call.services.store.run(work))


async def delete(call: Call, params: Params) -> dict[str, Any]:
    """DeleteRepositoryPolicy."""
    name = params.repository()
    call.authorize("DeleteRepositoryPolicy", name)
    policies = call.services.policies

    def work(db: Database) -> str:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            text = policies.text(connection, repository)
        policies.remove(db, repository)
        return text

    return _document(call, name, await call.services.store.run(work))


def _document(call: Call, name: str, text: str) -> dict[str, Any]:
    return {"registryId": call.registry.account, "repositoryName": name, "policyText": text}
