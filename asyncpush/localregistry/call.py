"""One call on its way through the server: who asks, of which registry, and what it may do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncpush.localregistry.access.keys import Key, Keyring
from asyncpush.localregistry.access.policy import Decision, Policy, ResourcePolicy
from asyncpush.localregistry.access.tokens import Scopes, TokenSigner
from asyncpush.localregistry.calls import CallLog, CallRecord
from asyncpush.localregistry.content.files import Files
from asyncpush.localregistry.content.repositories import get_repository
from asyncpush.localregistry.content.repository_policies import RepositoryPolicies
from asyncpush.localregistry.content.store import Database, Store
from asyncpush.localregistry.content.uploads import Session, Uploads
from asyncpush.localregistry.errors import access_denied
from asyncpush.localregistry.faults import CallInfo, Fault
from asyncpush.localregistry.identity import ACCOUNT, Registry
from asyncpush.localregistry.options import LocalRegistryOptions
from asyncpush.localregistry.params import Params
from asyncpush.localregistry.rates import RateLimits
from asyncpush.localregistry.replication.replicator import Replicator


@dataclass(frozen=True, slots=True)
class Services:
    """What the calls of one running server share."""

    options: LocalRegistryOptions
    keyring: Keyring
    files: Files
    store: Store
    uploads: Uploads
    policies: RepositoryPolicies
    tokens: TokenSigner
    calls: CallLog
    rates: RateLimits
    replicator: Replicator
    url: Callable[[], str]


@dataclass(slots=True)
class Arrival:
    """One call from its first byte on: its record, its number, the fault that it meets."""

    record: CallRecord
    number: int
    fault: Fault | None = None


@dataclass(slots=True)
class Call:
    """One call after its caller is known."""

    services: Services
    arrival: Arrival
    key: Key
    policy: Policy | None
    registry: Registry
    scopes: Scopes | None = None
    """What a token of the token service is good for, ``None`` for a caller without one."""

    @property
    def record(self) -> CallRecord:
        """What the call log will keep."""
        return self.arrival.record

    def address(self, registry: Registry, repository: str | None) -> None:
        """Note which registry and repository the call means."""
        self.registry = registry
        self.record.account, self.record.region = registry
        self.record.repository = repository

    def authorize(self, action: str, repository: str | None = None) -> None:
        """Check the caller's policy, and the repository's.

        :param repository: name of the repository, ``*`` for all, ``None`` for actions that have
            no resource.
        :raises ApiError: AccessDeniedException.
        """
        reason = self._refusal(action, repository)
        if reason is not None:
            raise access_denied(reason)

    def allows(self, action: str, repository: str) -> bool:
        """Whether the caller may read from a further repository in this way."""
        scopes = self.scopes
        if scopes is not None and "pull" not in scopes.get(repository, ()):
            return False
        return self._refusal(action, repository) is None

    def _refusal(self, action: str, repository: str | None) -> str | None:
        resource, of_resource = "*", None
        if repository is not None:
            resource = self.registry.repository_arn(repository)
            of_resource = self.services.policies.of(self.registry, repository)
        action = f"ecr:{action}"
        return refusal(self.key, self.policy, of_resource, self.registry, action, resource)

    async def admit(self, params: Mapping[str, Any], rates: Sequence[str] | None = None) -> None:
        """Count the call against its rate, and let it meet the fault that it is to meet.

        :param rates: the actions whose rates it counts against, if not its own.
        :raises ApiError: ThrottlingException, or the injected error.
        :raises ConnectionDroppedError: the connection is to be cut.
        """
        for action in (self.record.action,) if rates is None else rates:
            self.services.rates.take(self.registry, action)
        faults = self.services.options.faults
        if faults is None:
            return
        record = self.record
        info = CallInfo(
            action=record.action,
            account=self.registry.account,
            region=self.registry.region,
            repository=record.repository,
            params=params,
            number=self.arrival.number,
        )
        self.arrival.fault = faults(info)
        if self.arrival.fault is not None:
            await self.arrival.fault.meet()


def addressed_registry(call: Call, params: Params) -> Registry:
    """The registry that a call's parameters mean: the caller's own, unless ``registryId`` is given.

    :raises ApiError: InvalidParameterException.
    """
    account = params.optional_text("registryId", ACCOUNT.pattern)
    return Registry(account or call.key.account, call.registry.region)


async def find_session(call: Call, repository: str, upload_id: str) -> Session:
    """The upload session that a call means.

    :raises ApiError: RepositoryNotFoundException, UploadNotFoundException.
    """
    uploads = call.services.uploads

    def find(db: Database) -> Session:
        with db.transaction() as connection:
            found = get_repository(connection, call.registry, repository)
        return uploads.get(upload_id, found)

    return await call.services.store.run(find)


def refusal(
    key: Key,
    policy: Policy | None,
    resource_policy: ResourcePolicy | None,
    registry: Registry,
    action: str,
    resource: str,
) -> str | None:
    """Why a key may not do something, worded as AWS words it; ``None`` if it may.

    Within an account one of both policies must allow it, across accounts both (IAM user guide,
    "Policy evaluation logic"). An allowance for an account as a whole leaves it to the identity's
    policy either way.
    """
    own = Decision.ALLOWED if policy is None else policy.decide(action, resource)
    theirs = Decision.UNMENTIONED
    if resource_policy is not None:
        theirs = resource_policy.decide(action, key.arn)
    text = f"User: {key.arn} is not authorized to perform: {action} on resource: {resource}"
    for decision, kind in ((own, "an identity"), (theirs, "a resource")):
        if decision is Decision.DENIED:
            return f"{text} with an explicit deny in {kind}-based policy"
    lacking = None
    if registry.account == key.account:
        if Decision.ALLOWED not in (own, theirs):
            lacking = "identity"
    elif theirs is Decision.UNMENTIONED:
        lacking = "resource"
    elif own is not Decision.ALLOWED:
        lacking = "identity"
    if lacking is None:
        return None
    return f"{text} because no {lacking}-based policy allows the {action} action"
