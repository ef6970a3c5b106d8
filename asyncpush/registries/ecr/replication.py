"""The calls of replication over ECR's own API: rules, and how images stand."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from asyncpush.errors import AccessDeniedError
from asyncpush.plan.reference import Registry
from asyncpush.registries.ecr.errors import translating
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.registries.ecr.session import open_client
from asyncpush.replication.results import ReplicationStatus
from asyncpush.replication.rules import Destination, Rule, Rules, read_rules, write_rules

_STATUSES = {
    "COMPLETE": ReplicationStatus.COMPLETE,
    "FAILED": ReplicationStatus.FAILED,
    "IN_PROGRESS": ReplicationStatus.IN_PROGRESS,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What ECR knows of an image: its digest, and the status and failure code by destination."""

    digest: str | None
    destinations: dict[Destination, tuple[ReplicationStatus, str | None]]


class ReplicationCalls:
    """ECR's replication calls, each tried once; failures are errors of :mod:`asyncpush.errors`.

    :param client: an aiobotocore ECR client without retries.
    :param registry: the registry that replicates.
    """

    def __init__(self, client: Any, registry: Registry) -> None:
        self._client = client
        self._registry = registry

    async def rules(self) -> tuple[Rule, ...]:
        """The registry's rules.

        :raises AccessDeniedError: the credentials are of another account: the call takes no
            registry, and answers for the account that asks.
        """
        with translating("DescribeRegistry", registry=self._registry.host):
            answer = await self._client.describe_registry()
        self._check_account(answer.get("registryId"), "DescribeRegistry")
        return read_rules(answer.get("replicationConfiguration") or {"rules": []})

    async def put_rules(self, rules: Rules) -> None:
        """Let the registry have these rules and no others.

        Whoever calls this has called :meth:`rules` with the same credentials, which tells whose
        registry it is.
        """
        with translating("PutReplicationConfiguration", registry=self._registry.host):
            await self._client.put_replication_configuration(
                replicationConfiguration=write_rules(rules)
            )

    async def status(self, repository: str, image: str) -> Answer:
        """How the replication of an image stands.

        :param image: its digest or a tag.
        :raises RepositoryNotFoundError: the repository does not exist.
        :raises ManifestsNotFoundError: it does not have the image.
        """
        key = "imageDigest" if ":" in image else "imageTag"
        with translating(
            "DescribeImageReplicationStatus", repository=f"{self._registry.host}/{repository}"
        ):
            answer = await self._client.describe_image_replication_status(
                registryId=self._registry.account,
                repositoryName=repository,
                imageId={key: image},
            )
        return Answer(
            answer.get("imageId", {}).get("imageDigest"),
            {
                # A status that is not known yet is none that has ended.
                Destination(one["registryId"], one["region"]): (
                    _STATUSES.get(one["status"], ReplicationStatus.IN_PROGRESS),
                    one.get("failureCode"),
                )
                for one in answer.get("replicationStatuses", ())
            },
        )

    def _check_account(self, account: str | None, call: str) -> None:
        if account != self._registry.account:
            raise AccessDeniedError(
                f"the credentials are of account {account}, and the rules of"
                f" {self._registry.account} are told to that account alone",
                advice=f"use credentials of account {self._registry.account}",
                registry=self._registry.host,
                call=call,
            )


@contextlib.asynccontextmanager
async def open_replication_calls(
    registry: Registry, aws: AwsOptions, *, connections: int, user_agent: str
) -> AsyncIterator[ReplicationCalls]:
    """Open the calls of one registry.

    :param connections: the most connections to keep open to it.
    :param user_agent: text to add to the User-Agent header.
    """
    async with open_client(registry, aws, connections, user_agent) as client:
        yield ReplicationCalls(client, registry)
