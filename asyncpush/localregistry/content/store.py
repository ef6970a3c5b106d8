"""The database: one SQLite file, one thread that uses it, one transaction per piece of work."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import anyio

T = TypeVar("T")

_VERSION = 3
# What makes a root of an older format one of this format, by the format that it has.
_UPGRADES = {2: "ALTER TABLE manifests ADD COLUMN pulled REAL"}
_SCHEMA = """
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
    immutable INTEGER NOT NULL, scan_on_push INTEGER NOT NULL, created REAL NOT NULL,
    encryption TEXT NOT NULL, kms_key TEXT,
    UNIQUE (account, region, name)
);
CREATE TABLE repository_tags (
    repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE,
    key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (repository, key)
) WITHOUT ROWID;
CREATE TABLE repository_policies (
    repository INTEGER PRIMARY KEY REFERENCES repositories ON DELETE CASCADE, text TEXT NOT NULL
);
CREATE TABLE account_settings (
    account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (account, region, name)
) WITHOUT ROWID;
CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE layers (
    repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE,
    digest TEXT NOT NULL REFERENCES blobs,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX layers_by_digest ON layers (digest);
CREATE TABLE manifests (
    repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE,
    digest TEXT NOT NULL, media_type TEXT NOT NULL, body BLOB NOT NULL,
    artifact_type TEXT, subject TEXT, annotations TEXT, image_size INTEGER NOT NULL,
    pushed REAL NOT NULL, pulled REAL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX manifests_by_subject ON manifests (repository, subject);
CREATE TABLE children (
    repository INTEGER NOT NULL, parent TEXT NOT NULL, child TEXT NOT NULL,
    PRIMARY KEY (repository, child, parent),
    FOREIGN KEY (repository, parent) REFERENCES manifests (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE manifest_blobs (
    repository INTEGER NOT NULL, manifest TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (repository, digest, manifest),
    FOREIGN KEY (repository, manifest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX manifest_blobs_by_manifest ON manifest_blobs (repository, manifest);
CREATE TABLE tags (
    repository INTEGER NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (repository, tag),
    FOREIGN KEY (repository, digest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX tags_by_digest ON tags (repository, digest);
CREATE INDEX children_by_parent ON children (repository, parent);
CREATE TABLE registries (
    account TEXT NOT NULL, region TEXT NOT NULL, replication TEXT, policy TEXT,
    PRIMARY KEY (account, region)
) WITHOUT ROWID;
CREATE TABLE replications (
    id INTEGER PRIMARY KEY,
    repository INTEGER NOT NULL, digest TEXT NOT NULL, tag TEXT,
    account TEXT NOT NULL, region TEXT NOT NULL, pushed REAL NOT NULL,
    status TEXT NOT NULL, failure_code TEXT,
    FOREIGN KEY (repository, digest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
);
CREATE INDEX replications_by_image ON replications (repository, digest);
CREATE INDEX replications_by_destination ON replications (status, account, region, id);
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE,
    size INTEGER NOT NULL, parts INTEGER NOT NULL, last_part INTEGER NOT NULL,
    small_part INTEGER NOT NULL, broken INTEGER NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
"""


class Database:
    """The connection; used on the thread of its :class:`Store` alone."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.row_factory = sqlite3.Row
        # WAL with NORMAL: a commit outlives the process at once, the machine at the next
        # checkpoint. Layer bytes are no safer than that, so more would promise nothing.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            self.connection.execute(f"PRAGMA {pragma}")
        self._create(path)

    def _create(self, path: Path) -> None:
        version = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            # executescript would commit what is open, so the transaction is part of the script.
            self.connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;"
            )
        elif version in _UPGRADES:
            self.connection.executescript(
                f"BEGIN IMMEDIATE; {_UPGRADES[version]}; PRAGMA user_version={_VERSION}; COMMIT;"
            )
        elif version != _VERSION:
            self.connection.close()
            raise ValueError(
                f"{path}: its format is {version}, this version reads {_VERSION}; "
                "choose another root, or remove this one"
            )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is executed inside."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            self.connection.rollback()
            raise
        self.connection.commit()


class Store:
    """Runs work on the database, one piece after the other, off the event loop."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="localregistry-store")
        self.database = Database(path)

    async def run(self, work: Callable[[Database], T]) -> T:
        """Run a piece of work on the database's thread.

        Once begun it is waited for even when the caller is cancelled, so that no caller lets go
        of a lock or file which the work still uses.
        """
        future = asyncio.get_running_loop().run_in_executor(self._thread, work, self.database)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([future])
            raise

    def close(self) -> None:
        """Wait for work in progress and close the database; nothing may run afterwards."""
        self._thread.shutdown()
        self.database.connection.close()
