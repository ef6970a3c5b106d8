"""The operations of replication: rules of a registry, and how images stand."""

from __future__ import annotations

from typing import Any

from asyncpush.localregistry.call import Call
from asyncpush.localregistry.content.registries import get_replication, put_replication
from asyncpush.localregistry.content.repositories import get_repository
from asyncpush.localregistry.content.store import Database
from asyncpush.localregistry.ecr.images import find_or_raise, read_id
from asyncpush.localregistry.errors import invalid_parameter
from asyncpush.localregistry.identity import Registry
from asyncpush.localregistry.params import REGISTRY_ID, Params, check_text
from asyncpush.localregistry.replication.replications import standings

# Service model 2015-09-21: ReplicationRuleList, ReplicationDestinationList, RepositoryFilterList,
# Region, RepositoryFilterValue; the user guide's "Private image replication": all destinations.
_MOST_RULES, _MOST_OF_A_RULE, _MOST_FILTERS, _MOST_DESTINATIONS = 25, 100, 100, 25
_REGION = r"[0-9a-z-]{2,25}"
_FILTER = r"(?:[a-z0-9]+(?:[._-][a-z0-9]*)*/)*[a-z0-9]*(?:[._-][a-z0-9]*)*"
_PREFIX_MATCH = ("PREFIX_MATCH",)


async def put_configuration(call: Call, params: Params) -> dict[str, Any]:
    """PutReplicationConfiguration."""
    values = params.structure("replicationConfiguration").required_items(
        "rules", dict, _MOST_RULES, least=0
    )
    rules = [_read_rule(Params(value), call.registry) for value in values]
    every = {(d["registryId"], d["region"]) for rule in rules for d in rule["destinations"]}
    if len(every) > _MOST_DESTINATIONS:
        raise invalid_parameter(
            f"Invalid parameter at 'replicationConfiguration' failed to satisfy constraint: "
            f"'There are more than {_MOST_DESTINATIONS} unique destinations'"
        )
    call.authorize("PutReplicationConfiguration")

    def work(db: Database) -> None:
        with db.transaction() as connection:
            put_replication(connection, call.registry, {"rules": rules})

    await call.services.store.run(work)
    return {"replicationConfiguration": {"rules": rules}}


async def describe_registry(call: Call, params: Params) -> dict[str, Any]:  # noqa: ARG001
    """DescribeRegistry: it has no parameters, and tells of the caller's own registry."""
    call.authorize("DescribeRegistry")

    def work(db: Database) -> dict[str, Any]:
        with db.transaction() as connection:
            return get_replication(connection, call.registry)

    return {
        "registryId": call.registry.account,
        "replicationConfiguration": await call.services.store.run(work),
    }


async def image_status(call: Call, params: Params) -> dict[str, Any]:
    """DescribeImageReplicationStatus, of one image by digest or tag."""
    name = params.repository()
    image_id = read_id(params.structure("imageId").document)
    call.authorize("DescribeImageReplicationStatus", name)

    def work(db: Database) -> dict[str, Any]:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            image = find_or_raise(connection, repository, image_id)
            found = standings(connection, repository, image.digest)
        return {
            "repositoryName": name,
            "imageId": {**image_id, "imageDigest": image.digest},
            "replicationStatuses": [
                {
                    "region": standing.destination.region,
                    "registryId": standing.destination.account,
                    "status": standing.status,
                    **({"failureCode": standing.failure_code} if standing.failure_code else {}),
                }
                for standing in found
            ],
        }

    return await call.services.store.run(work)


def _read_rule(rule: Params, source: Registry) -> dict[str, Any]:
    destinations = [
        _read_destination(Params(value), source)
        for value in rule.required_items("destinations", dict, _MOST_OF_A_RULE, least=0)
    ]
    filters = rule.items("repositoryFilters", dict, _MOST_FILTERS)
    read: dict[str, Any] = {"destinations": destinations}
    if filters is not None:
        read["repositoryFilters"] = [_read_filter(Params(value)) for value in filters]
    return read


def _read_destination(value: Params, source: Registry) -> dict[str, str]:
    region = value.text("region", _REGION)
    account = value.text("registryId", REGISTRY_ID)
    destination = Registry(account, region)
    problem = ""
    if destination == source:
        problem = "Replication destination cannot be the same as the source registry"
    elif destination.partition != source.partition:
        problem = "Replication destination must be in the partition of the source registry"
    if problem:
        raise invalid_parameter(
            f"Invalid parameter at 'replicationConfiguration' failed to satisfy constraint: "
            f"'{problem}'"
        )
    return {"region": region, "registryId": account}


def _read_filter(value: Params) -> dict[str, str]:
    text = value.text("filter", most=256)
    check_text("filter", text if len(text) > 1 else "!", _FILTER)
    if value.choice("filterType", _PREFIX_MATCH) is None:
        value.text("filterType")
    return {"filter": text, "filterType": _PREFIX_MATCH[0]}
