"""Rows of replications: which image goes where, and how that stands; the queue is among them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from asyncpush.localregistry.content.repositories import Repository
from asyncpush.localregistry.identity import Registry

IN_PROGRESS, COMPLETE, FAILED = "IN_PROGRESS", "COMPLETE", "FAILED"


@dataclass(frozen=True, slots=True)
class Replication:
    """An image, and the tag that it was pushed under if any, on its way to one registry.

    ``pushed`` is when, in seconds since 1970. Those to one registry are done in the order of their
    ids, so that a tag that moved twice ends where it was moved last.
    """

    id: int
    source: Registry
    repository: str
    digest: str
    tag: str | None
    destination: Registry
    pushed: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How the replication of an image to one registry stands."""

    destination: Registry
    status: str
    failure_code: str | None


def add_replication(
    db: sqlite3.Connection,
    repository: Repository,
    digest: str,
    tag: str | None,
    destination: Registry,
    now: float,
) -> None:
    """Queue the replication of an image that was just pushed."""
    where = (repository.id, digest, *destination)
    db.execute(
        "DELETE FROM replications WHERE repository=? AND digest=? AND account=? AND region=? "
        "AND status<>?",
        (*where, IN_PROGRESS),
    )
    db.execute(
        "INSERT INTO replications (repository, digest, account, region, tag, pushed, status) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*where, tag, now, IN_PROGRESS),
    )


def waiting_destinations(db: sqlite3.Connection) -> list[Registry]:
    """Registries that something is on its way to."""
    rows = db.execute(
        "SELECT DISTINCT account, region FROM replications WHERE status=?", (IN_PROGRESS,)
    )
    return [Registry(row["account"], row["region"]) for row in rows]


def next_replication(db: sqlite3.Connection, destination: Registry) -> Replication | None:
    """What is next to go to a registry, if anything."""
    row = db.execute(
        "SELECT r.*, s.account AS source_account, s.region AS source_region, s.name "
        "FROM replications r JOIN repositories s ON s.id=r.repository "
        "WHERE r.status=? AND r.account=? AND r.region=? ORDER BY r.id LIMIT 1",
        (IN_PROGRESS, *destination),
    ).fetchone()
    if row is None:
        return None
    return Replication(
        id=row["id"],
        source=Registry(row["source_account"], row["source_region"]),
        repository=row["name"],
        digest=row["digest"],
        tag=row["tag"],
        destination=destination,
        pushed=row["pushed"],
    )


def is_waiting(db: sqlite3.Connection, replication: Replication) -> bool:
    """Whether a replication is still to be done: its image may have been deleted."""
    row = db.execute("SELECT 1 FROM replications WHERE id=?", (replication.id,)).fetchone()
    return row is not None


def end_replication(
    db: sqlite3.Connection, replication: Replication, failure_code: str | None = None
) -> None:
    """Note that a replication is complete or, with a code, that it failed."""
    status = COMPLETE if failure_code is None else FAILED
    db.execute(
        "UPDATE replications SET status=?, failure_code=? WHERE id=?",
        (status, failure_code, replication.id),
    )


def standings(db: sqlite3.Connection, repository: Repository, digest: str) -> list[Standing]:
    """How the replication of an image stands, for each registry that it goes to or went to.

    While anything is on its way to a registry, that is what is told of it.
    """
    rows = db.execute(
        "SELECT account, region, status, failure_code FROM replications "
        "WHERE repository=? AND digest=? ORDER BY status=?, id",
        (repository.id, digest, IN_PROGRESS),
    )
    found = {}
    for row in rows:
        destination = Registry(row["account"], row["region"])
        found[destination] = Standing(destination, row["status"], row["failure_code"])
    return [found[destination] for destination in sorted(found)]
