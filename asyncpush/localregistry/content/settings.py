"""Rows of account settings: what an account has switched on in a Region."""

from __future__ import annotations

import sqlite3

from asyncpush.localregistry.identity import Registry

BLOB_MOUNTING = "BLOB_MOUNTING"
ENABLED, DISABLED = "ENABLED", "DISABLED"


def get_setting(db: sqlite3.Connection, registry: Registry, name: str) -> str | None:
    """The value that was put, if any."""
    row = db.execute(
        "SELECT value FROM account_settings WHERE account=? AND region=? AND name=?",
        (*registry, name),
    ).fetchone()
    return None if row is None else str(row["value"])


def put_setting(db: sqlite3.Connection, registry: Registry, name: str, value: str) -> None:
    """Put a value."""
    db.execute(
        "INSERT OR REPLACE INTO account_settings VALUES (?, ?, ?, ?)", (*registry, name, value)
    )


def mounts_blobs(db: sqlite3.Connection, registry: Registry, *, default: bool) -> bool:
    """Whether blobs may be mounted in a registry.

    :param default: what counts where nothing was put.
    """
    value = get_setting(db, registry, BLOB_MOUNTING)
    return default if value is None else value == ENABLED
