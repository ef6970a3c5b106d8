"""A registry that is not ECR's: is it reached, does it take the credentials; more is not known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from asyncpush.check.findings import RegistryState, RepositoryState, Severity, Subject
from asyncpush.check.surroundings import USER_AGENT, Surroundings
from asyncpush.check.target import Target
from asyncpush.engine.questions import BATCH
from asyncpush.engine.work import for_each
from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    CredentialsError,
    RepositoryNotFoundError,
    TransientError,
)
from asyncpush.oci.digest import Digest, compute
from asyncpush.plan.reference import DistributionRegistry
from asyncpush.registries.distribution.transport import DistributionTransport, open_transport

_NOTHING = compute(b"a blob that nobody has pushed: asyncpush asks whether it may look")
# What the engine calls it where the pace is concerned (engine/pace.py).
_CHECK = "BatchCheckLayerAvailability"


class DistributionCheck:
    """The check of one registry that speaks OCI distribution."""

    def __init__(
        self, registry: DistributionRegistry, targets: Sequence[Target], around: Surroundings
    ) -> None:
        self._registry = registry
        self._targets = targets
        self._around = around
        self.state = RegistryState(registry)
        self.repositories = {t.repository: RepositoryState(t.repository) for t in targets}
        self.available: dict[Target, dict[Digest, bool] | AsyncpushError] = {}

    async def run(self) -> None:
        """Find out all that can be found out; what fails becomes a finding."""
        options = self._around.options
        plain = self._registry.loopback or self._around.settings.plain_http
        self.state.endpoint = f"{'http' if plain else 'https'}://{self._registry.host}"
        async with open_transport(
            self._registry.host,
            connections=options.connections,
            user_agent=USER_AGENT,
            plain_http=plain,
        ) as transport:
            try:
                await self._around.call(
                    "GetAuthorizationToken", self._registry.host, transport.authorize
                )
            except AsyncpushError as exc:
                self.state.reached = False
                self._around.add(Severity.PROBLEM, Subject.ENDPOINT, exc)
                return
            self.state.reached = True
            look = partial(self._look, transport)
            await for_each(self._targets, min(len(self._targets), options.images), look)

    async def _look(self, transport: DistributionTransport, target: Target) -> None:
        state = self.repositories[target.repository]
        where = str(target.repository)
        blobs = list(target.blobs) or [_NOTHING]
        found: set[Digest] = set()
        try:
            for i in range(0, len(blobs), BATCH):
                ask = partial(transport.available, target.repository.name, blobs[i : i + BATCH])
                found |= await self._around.call(_CHECK, where, ask)
        except AsyncpushError as exc:
            self.available[target] = exc
            self._judge(where, exc)
            return
        self.state.accepted = True
        state.exists = True if found else None
        self.available[target] = {digest: digest in found for digest in target.blobs}

    def _judge(self, where: str, error: AsyncpushError) -> None:
        match error:
            case CredentialsError():
                self._around.add(Severity.PROBLEM, Subject.CREDENTIALS, error, where=where)
            case AccessDeniedError():
                self._around.add(Severity.PROBLEM, Subject.ACTION, error, where=where)
            case RepositoryNotFoundError():
                # Most registries make a repository when it is pushed to.
                self.state.accepted = True
            case TransientError():
                self._around.add(Severity.PROBLEM, Subject.ENDPOINT, error, where=where)
            case _:
                self._around.add(Severity.UNKNOWN, Subject.REPOSITORY, error, where=where)
