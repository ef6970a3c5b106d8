"""The operations on a registry's policy: what other accounts may replicate into it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from asyncpush.localregistry.access.policy import RegistryPolicy
from asyncpush.localregistry.call import Call
from asyncpush.localregistry.content.registries import get_policy, put_policy
from asyncpush.localregistry.content.store import Database
from asyncpush.localregistry.errors import ApiError, invalid_parameter
from asyncpush.localregistry.params import Params

# Service model 2015-09-21: RegistryPolicyText.
_MOST_CHARACTERS = 10240
# User guide, "Private registry permissions": any other action is an error.
_ACTIONS = {
    "ecr:*",
    "ecr:createrepository",
    "ecr:replicateimage",
    "ecr:batchimportupstreamimage",
}


async def put(call: Call, params: Params) -> dict[str, Any]:
    """PutRegistryPolicy, in the place of the policy that is there."""
    text = params.text("policyText", most=_MOST_CHARACTERS)
    try:
        document = json.loads(text)
        RegistryPolicy(document)
        _check_actions(document)
    except (ValueError, RecursionError) as exc:
        raise invalid_parameter(
            "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid registry "
            f"policy provided': {exc}"
        ) from exc
    call.authorize("PutRegistryPolicy")

    def work(db: Database) -> None:
        with db.transaction() as connection:
            put_policy(connection, call.registry, text)

    await call.services.store.run(work)
    return {"registryId": call.registry.account, "policyText": text}


async def get(call: Call, params: Params) -> dict[str, Any]:  # noqa: ARG001 - it has none
    """GetRegistryPolicy."""
    call.authorize("GetRegistryPolicy")

    def work(db: Database) -> str:
        with db.transaction() as connection:
            return _found(call, get_policy(connection, call.registry))

    return {
        "registryId": call.registry.account,
        "policyText": await call.services.store.run(work),
    }


async def delete(call: Call, params: Params) -> dict[str, Any]:  # noqa: ARG001 - it has none
    """DeleteRegistryPolicy."""
    call.authorize("DeleteRegistryPolicy")

    def work(db: Database) -> str:
        with db.transaction() as connection:
            text = _found(call, get_policy(connection, call.registry))
            put_policy(connection, call.registry, None)
        return text

    return {
        "registryId": call.registry.account,
        "policyText": await call.services.store.run(work),
    }


def _found(call: Call, text: str | None) -> str:
    if text is None:
        raise ApiError(
            "RegistryPolicyNotFoundException",
            f"Registry policy does not exist in the registry with id '{call.registry.account}'",
        )
    return text


def _check_actions(document: Mapping[str, Any]) -> None:
    """Refuse actions that a registry policy has no say in.

    :raises ValueError: there is one.
    """
    statements = document["Statement"]
    for statement in [statements] if isinstance(statements, Mapping) else statements:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            if action.lower() not in _ACTIONS:
                raise ValueError(f"{action} is no action of registry policies")
