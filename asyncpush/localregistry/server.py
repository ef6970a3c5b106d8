"""The server itself: opens what lies under its root, listens, and ends without losing anything."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import anyio
from aiohttp import web

from asyncpush.localregistry.access.keys import DEFAULT_KEY, Key, Keyring
from asyncpush.localregistry.access.tokens import TokenSigner, load_secret
from asyncpush.localregistry.call import Services
from asyncpush.localregistry.calls import CallLog
from asyncpush.localregistry.content.files import Files
from asyncpush.localregistry.content.images import get_tag, list_tags
from asyncpush.localregistry.content.repositories import (
    all_repositories,
    create_repository,
    find_repository,
    get_repository,
)
from asyncpush.localregistry.content.repository_policies import RepositoryPolicies
from asyncpush.localregistry.content.store import Database, Store
from asyncpush.localregistry.content.uploads import Uploads
from asyncpush.localregistry.distribution.routes import DistributionApi
from asyncpush.localregistry.distribution.token_service import TokenService
from asyncpush.localregistry.ecr.api import JsonApi
from asyncpush.localregistry.errors import ApiError
from asyncpush.localregistry.identity import Registry
from asyncpush.localregistry.options import LocalRegistryOptions
from asyncpush.localregistry.params import check_repository
from asyncpush.localregistry.rates import RateLimits
from asyncpush.localregistry.replication.replicator import Replicator

_READ_SIZE = 128 * 1024


@dataclass(frozen=True, slots=True)
class RunningRegistry:
    """A server that listens.

    ``calls`` holds what was called since it started.
    """

    host: str
    port: int
    calls: CallLog
    _services: Services

    @property
    def url(self) -> str:
        """Where both APIs are: ``http://127.0.0.1:PORT``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def ensure_repository(
        self, account: str, region: str, name: str, *, immutable: bool = False
    ) -> None:
        """Create a repository unless it is there, past keys and policies.

        :raises ValueError: ECR takes no repository of that name.
        """
        now = self._services.options.clock()

        def work(database: Database) -> None:
            with database.transaction() as db:
                if find_repository(db, Registry(account, region), name) is None:
                    create_repository(db, Registry(account, region), name, now, immutable=immutable)

        try:
            check_repository(name)
        except ApiError as exc:
            raise ValueError(f"repository: {exc.message}") from exc
        await self._services.store.run(work)

    async def tags(self, account: str, region: str, name: str) -> dict[str, str]:
        """The digest of each tag of a repository, past keys and policies."""

        def work(database: Database) -> dict[str, str]:
            with database.transaction() as db:
                repository = get_repository(db, Registry(account, region), name)
                tags = list_tags(db, repository)
                return {tag: get_tag(db, repository, tag) or "" for tag in tags}

        return await self._services.store.run(work)


class LocalRegistry:
    """A strict, persistent stand-in for Amazon ECR.

    It speaks ECR's JSON API with Signature Version 4 and IAM policies, and OCI distribution. What
    it acknowledged outlives the process however that ends; a crash of the machine itself may cost
    what the operating system had not yet written.

    :param root: directory that holds everything; made when missing, one server at a time.
    :param keys: the access keys that may call.
    :param options: see :class:`LocalRegistryOptions`.
    :raises ValueError: an access key is given twice, or none at all.
    """

    def __init__(
        self,
        root: Path,
        keys: Sequence[Key] = (DEFAULT_KEY,),
        options: LocalRegistryOptions | None = None,
    ) -> None:
        self._root = root
        self._keyring = Keyring(keys)
        self._options = options or LocalRegistryOptions()

    @asynccontextmanager
    async def run(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[RunningRegistry]:
        """Serve until the block is left; calls in flight then have ``shutdown_timeout`` to end.

        :param host: a loopback address.
        :param port: 0 takes a free one.
        :raises ValueError: the host is no loopback address, or another server uses the root.
        :raises OSError: the port cannot be had.
        """
        address = _loopback(host)
        running: list[RunningRegistry] = []
        with ExitStack() as stack:
            services = self._open(stack, lambda: running[0].url)
            app = web.Application()
            app.router.add_post("/", JsonApi(services).handle)
            app.add_routes(TokenService(services).routes())
            app.add_routes(DistributionApi(services).routes())
            runner = web.AppRunner(
                app,
                access_log=None,
                auto_decompress=False,
                read_bufsize=_READ_SIZE,
                shutdown_timeout=self._options.shutdown_timeout,
            )
            await runner.setup()
            try:
                site = web.TCPSite(runner, address, port)
                await site.start()
                bound = runner.addresses[0][1]
                running.append(RunningRegistry(address, bound, services.calls, services))
                async with _beside(services.replicator.run):
                    yield running[0]
            finally:
                await runner.cleanup()

    def _open(self, stack: ExitStack, url: Callable[[], str]) -> Services:
        options = self._options
        files = Files(self._root)
        stack.callback(files.close)
        store = Store(files.database)
        stack.callback(store.close)
        uploads = Uploads(files, options.clock, options.upload_lifetime, options.min_part_size)
        policies = RepositoryPolicies()
        _recover(store.database, files, uploads, policies)
        log: TextIO | None = None
        if options.call_log is not None:
            log = stack.enter_context(options.call_log.open("a", encoding="utf-8"))
        calls = CallLog(options.max_call_records, log)
        return Services(
            options=options,
            keyring=self._keyring,
            files=files,
            store=store,
            uploads=uploads,
            policies=policies,
            tokens=TokenSigner(load_secret(files.secret), options.clock),
            calls=calls,
            rates=RateLimits(options.rates, options.clock),
            replicator=Replicator(store, calls, options),
            url=url,
        )


@asynccontextmanager
async def _beside(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Let work go on while the context lasts, and end it with it.

    A task that is waited for, and no task group: those must be left in the reverse order in which
    they were entered, which fixtures that enter and leave a server by hand do not keep to.
    """
    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def _recover(
    database: Database, files: Files, uploads: Uploads, policies: RepositoryPolicies
) -> None:
    with database.transaction() as connection:
        repositories = {r.id: r for r in all_repositories(connection)}
        uploads.load(connection, repositories)
        policies.load(connection, repositories)
        files.clean(connection)


def _loopback(host: str) -> str:
    # Whoever reaches the server can try its keys, some of which are known to everybody.
    address = "127.0.0.1" if host == "localhost" else host
    try:
        if ipaddress.ip_address(address).is_loopback:
            return address
    except ValueError as exc:
        raise ValueError(f"host: {host!r} is no IP address") from exc
    raise ValueError(f"host: {host} is no loopback address; the local registry is for this machine")
