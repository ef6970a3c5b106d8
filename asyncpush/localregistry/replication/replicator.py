"""What replicates while the server runs: a worker for each destination, a queue in the database."""

from __future__ import annotations

import logging
import uuid
from functools import partial

import anyio

from asyncpush.localregistry.calls import CallLog, CallRecord
from asyncpush.localregistry.content.store import Database, Store
from asyncpush.localregistry.errors import ApiError, server_exception
from asyncpush.localregistry.faults import CallInfo, ConnectionDroppedError
from asyncpush.localregistry.identity import Registry
from asyncpush.localregistry.options import LocalRegistryOptions
from asyncpush.localregistry.replication.replicate import replicate
from asyncpush.localregistry.replication.replications import (
    Replication,
    end_replication,
    is_waiting,
    next_replication,
    waiting_destinations,
)

logger = logging.getLogger("asyncpush.localregistry")

ACTION = "ReplicateImage"
"""The action that a replication is in the call log, and to the faults that it meets."""


class Replicator:
    """Replicates what was pushed, in the order of the pushes for each destination.

    What is to be done is in the database alone: it goes on after a restart, and takes no memory.
    There are as many workers as registries that something is on its way to.
    """

    def __init__(self, store: Store, calls: CallLog, options: LocalRegistryOptions) -> None:
        self._store = store
        self._calls = calls
        self._options = options
        self._wanted = anyio.Event()
        self._busy: set[Registry] = set()

    def wake(self) -> None:
        """Look for what is to be done: something was queued."""
        self._wanted.set()

    async def run(self) -> None:
        """Replicate until cancelled."""
        try:
            async with anyio.create_task_group() as workers:
                while True:
                    self._wanted = anyio.Event()
                    for destination in await self._store.run(_destinations):
                        if destination not in self._busy:
                            self._busy.add(destination)
                            workers.start_soon(self._serve, destination)
                    await self._wanted.wait()
        except Exception:
            # Told now: whoever stops the server, and has it raised there, may do so much later.
            logger.exception("replication has ended, and goes on when the server is started again")
            raise

    async def _serve(self, destination: Registry) -> None:
        """Do all that is to go to one registry."""
        try:
            while replication := await self._store.run(partial(_next, destination)):
                await self._replicate(replication)
        finally:
            self._busy.discard(destination)
            # What came between the last look and now has found this worker busy.
            self.wake()

    async def _replicate(self, replication: Replication) -> None:
        options = self._options
        due = replication.pushed + options.replication_delay
        await anyio.sleep(max(0.0, min(due - options.clock(), options.replication_delay)))
        record = CallRecord(
            time=options.clock(),
            action=ACTION,
            request_id=str(uuid.uuid4()),
            account=replication.destination.account,
            region=replication.destination.region,
            repository=replication.repository,
        )
        number = self._calls.begin(ACTION)
        try:
            await self._meet_fault(replication, number)
            await self._store.run(partial(_act, replication, options.clock()))
            record.status = 200
        except ApiError as exc:
            record.status, record.error = exc.status, exc.code
        except ConnectionDroppedError:
            record.error = "ConnectionDropped"
        except Exception as exc:
            # Whatever it is concerns this replication alone; the server goes on.
            logger.exception("%s failed, request id %s", ACTION, record.request_id)
            record.error = type(exc).__name__
        finally:
            self._calls.end(record)
        if record.error is not None:
            code = record.error if record.status else server_exception().code
            await self._store.run(partial(_fail, replication, code))

    async def _meet_fault(self, replication: Replication, number: int) -> None:
        if self._options.faults is None:
            return
        info = CallInfo(
            action=ACTION,
            account=replication.destination.account,
            region=replication.destination.region,
            repository=replication.repository,
            params={
                "registryId": replication.source.account,
                "region": replication.source.region,
                "imageDigest": replication.digest,
                "imageTag": replication.tag,
            },
            number=number,
        )
        fault = self._options.faults(info)
        if fault is not None:
            await fault.meet()


def _destinations(db: Database) -> list[Registry]:
    with db.transaction() as connection:
        return waiting_destinations(connection)


def _next(destination: Registry, db: Database) -> Replication | None:
    with db.transaction() as connection:
        return next_replication(connection, destination)


def _act(replication: Replication, now: float, db: Database) -> None:
    with db.transaction() as connection:
        if is_waiting(connection, replication):
            replicate(connection, replication, now)
            end_replication(connection, replication)


def _fail(replication: Replication, code: str, db: Database) -> None:
    with db.transaction() as connection:
        end_replication(connection, replication, code)
