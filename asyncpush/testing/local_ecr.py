"""A local registry in a thread of its own, so that plain and async code can use it alike."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from anyio.from_thread import BlockingPortal, start_blocking_portal

from asyncpush.localregistry import (
    DEFAULT_KEY,
    CallRecord,
    Fault,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
)
from asyncpush.plan.reference import Registry
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.testing.faults import FaultList


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEcrSettings:
    """What a :class:`LocalEcr` is like.

    :param account: 12 digits: whose registry it is.
    :param region: where it is, as long as a call names no other.
    :param policy: the IAM policy of the access key; None allows everything in the account.
    :param keys: further access keys, such as those of other accounts.
    :param options: how the registry behaves: rates, limits, times.
    """

    account: str = DEFAULT_KEY.account
    region: str = "us-east-1"
    policy: Mapping[str, object] | None = None
    keys: Sequence[Key] = ()
    options: LocalRegistryOptions = field(default_factory=LocalRegistryOptions)


DEFAULT_SETTINGS = LocalEcrSettings()


class LocalEcr:
    """A local registry that runs; made by :meth:`running`."""

    def __init__(
        self,
        settings: LocalEcrSettings,
        key: Key,
        server: RunningRegistry,
        portal: BlockingPortal,
        faults: FaultList,
    ) -> None:
        self.account = settings.account
        self.region = settings.region
        self.key = key
        self.url = server.url
        self._server = server
        self._portal = portal
        self._faults = faults

    @classmethod
    @contextmanager
    def running(
        cls, root: Path, settings: LocalEcrSettings = DEFAULT_SETTINGS
    ) -> Iterator[LocalEcr]:
        """Run a registry until the block is left.

        :param root: the folder that holds everything; made when missing.
        """
        faults = FaultList(settings.options.faults)
        key = replace(DEFAULT_KEY, account=settings.account, policy=settings.policy)
        registry = LocalRegistry(
            root, [key, *settings.keys], replace(settings.options, faults=faults)
        )
        with (
            start_blocking_portal("asyncio") as portal,
            portal.wrap_async_context_manager(registry.run()) as server,
        ):
            yield cls(settings, key, server, portal, faults)

    @property
    def host(self) -> str:
        """The registry's host, for references: ``ACCOUNT.dkr.ecr.REGION.amazonaws.com``."""
        return self._registry(None, None).host

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead AWS clients here, and to no other credentials."""
        return {
            "AWS_ACCESS_KEY_ID": self.key.access_key_id,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_ECR": self.url,
            "AWS_REGION": self.region,
            "AWS_SECRET_ACCESS_KEY": self.key.secret_access_key,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @property
    def aws(self) -> AwsOptions:
        """The same for a :class:`~asyncpush.engine.options.PushOptions`, without variables."""
        return AwsOptions(
            access_key_id=self.key.access_key_id,
            secret_access_key=self.key.secret_access_key,
            endpoint_url=self.url,
        )

    def create(
        self,
        repository: str,
        *,
        immutable: bool = False,
        account: str | None = None,
        region: str | None = None,
    ) -> str:
        """Create a repository, unless it is there.

        :param immutable: whether its tags cannot be moved.
        :param account: another account than the registry's own.
        :param region: another Region than the registry's own.
        :return: the reference to it, without a tag.
        :raises ValueError: ECR would not take the name.
        """
        registry = self._registry(account, region)

        async def work() -> None:
            await self._server.ensure_repository(
                registry.account, registry.region, repository, immutable=immutable
            )

        self._portal.call(work)
        return f"{registry.host}/{repository}"

    def tags(
        self, repository: str, *, account: str | None = None, region: str | None = None
    ) -> dict[str, str]:
        """The digest of each tag of a repository."""
        registry = self._registry(account, region)
        return self._portal.call(self._server.tags, registry.account, registry.region, repository)

    def calls(self, action: str | None = None) -> list[CallRecord]:
        """The calls so far, oldest first.

        :param action: only those of one action, such as ``PutImage``.
        """

        async def work() -> list[CallRecord]:
            # In the registry's own thread, where no call is added meanwhile.
            return [call for call in self._server.calls if action in (None, call.action)]

        return self._portal.call(work)

    def inject(
        self, action: str, fault: Fault, *, times: int = 1, repository: str | None = None
    ) -> None:
        """Let the next calls of an action meet a fault: an error, a delay, a lost connection.

        :param action: such as ``PutImage``.
        :param times: how many calls.
        :param repository: only calls that name this one.
        """

        async def work() -> None:
            self._faults.add(action, repository, fault, times)

        self._portal.call(work)

    def faults_left(self) -> dict[str, int]:
        """How many injected faults no call has met, by action: a test's own proof."""

        async def work() -> dict[str, int]:
            return self._faults.left()

        return self._portal.call(work)

    def clear(self) -> None:
        """Forget calls, and faults that no call has met; content stays."""

        async def work() -> None:
            self._faults.clear()
            self._server.calls.clear()

        self._portal.call(work)

    def _registry(self, account: str | None, region: str | None) -> Registry:
        place = region or self.region
        domain = "amazonaws.com.cn" if place.startswith("cn-") else "amazonaws.com"
        return Registry(account or self.account, place, domain)
