"""Rows of registries: the replication configuration and the policy of an account in a Region."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from asyncpush.localregistry.identity import Registry

Configuration = dict[str, Any]


def get_replication(db: sqlite3.Connection, registry: Registry) -> Configuration:
    """The replication configuration, as it was put."""
    text = _get(db, registry, "replication")
    configuration: Configuration = {"rules": []} if text is None else json.loads(text)
    return configuration


def put_replication(
    db: sqlite3.Connection, registry: Registry, configuration: Configuration
) -> None:
    """Replace the replication configuration."""
    _put(db, registry, "replication", json.dumps(configuration))


def get_policy(db: sqlite3.Connection, registry: Registry) -> str | None:
    """The registry policy, as the text that was put."""
    return _get(db, registry, "policy")


def put_policy(db: sqlite3.Connection, registry: Registry, text: str | None) -> None:
    """Replace the registry policy, or with ``None`` remove it."""
    _put(db, registry, "policy", text)


def replicates_to(configuration: Configuration, repository: str) -> list[Registry]:
    """Where the images of a repository go by a replication configuration, each registry once."""
    return list(
        dict.fromkeys(
            Registry(destination["registryId"], destination["region"])
            for rule in configuration["rules"]
            if _covers(rule, repository)
            for destination in rule["destinations"]
        )
    )


def _covers(rule: dict[str, Any], repository: str) -> bool:
    filters = rule.get("repositoryFilters")
    return not filters or any(repository.startswith(f["filter"]) for f in filters)


def _get(db: sqlite3.Connection, registry: Registry, column: str) -> str | None:
    row = db.execute(
        f"SELECT {column} FROM registries WHERE account=? AND region=?",  # noqa: S608 - a constant
        registry,
    ).fetchone()
    return None if row is None else row[column]


def _put(db: sqlite3.Connection, registry: Registry, column: str, value: str | None) -> None:
    db.execute("INSERT OR IGNORE INTO registries VALUES (?, ?, NULL, NULL)", registry)
    db.execute(
        f"UPDATE registries SET {column}=? WHERE account=? AND region=?",  # noqa: S608 - a constant
        (value, *registry),
    )
