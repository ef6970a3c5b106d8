"""Rows of repositories, and the membership of layers in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from asyncpush.localregistry.errors import ApiError, repository_not_found
from asyncpush.localregistry.identity import Registry


@dataclass(frozen=True, slots=True)
class Encryption:
    """How a repository's content is encrypted; blobs are shared among equals alone.

    ``kms_key`` is the key's ARN, ``None`` for a type that has none.
    """

    type: str = "AES256"
    kms_key: str | None = None


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository of one registry."""

    id: int
    registry: Registry
    name: str
    immutable: bool
    scan_on_push: bool
    created: float
    encryption: Encryption


def find_repository(db: sqlite3.Connection, registry: Registry, name: str) -> Repository | None:
    """The repository of that name, if there is one."""
    row = db.execute(
        "SELECT * FROM repositories WHERE account=? AND region=? AND name=?", (*registry, name)
    ).fetchone()
    return None if row is None else _from_row(row)


def get_repository(db: sqlite3.Connection, registry: Registry, name: str) -> Repository:
    """The repository of that name.

    :raises ApiError: RepositoryNotFoundException.
    """
    repository = find_repository(db, registry, name)
    if repository is None:
        raise repository_not_found(name, registry.account)
    return repository


def list_repositories(
    db: sqlite3.Connection, registry: Registry, after: str, limit: int
) -> list[Repository]:
    """Repositories in the order of their names, from behind a name on."""
    rows = db.execute(
        "SELECT * FROM repositories WHERE account=? AND region=? AND name>? ORDER BY name LIMIT ?",
        (*registry, after, limit),
    )
    return [_from_row(row) for row in rows]


def all_repositories(db: sqlite3.Connection) -> list[Repository]:
    """The repositories of all registries."""
    return [_from_row(row) for row in db.execute("SELECT * FROM repositories")]


def create_repository(
    db: sqlite3.Connection,
    registry: Registry,
    name: str,
    now: float,
    *,
    immutable: bool = False,
    scan_on_push: bool = False,
    encryption: Encryption = Encryption(),
    tags: Mapping[str, str] = {},
) -> Repository:
    """Add a repository.

    :raises ApiError: RepositoryAlreadyExistsException.
    """
    try:
        db.execute(
            "INSERT INTO repositories (account, region, name, immutable, scan_on_push, created, "
            "encryption, kms_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*registry, name, immutable, scan_on_push, now, encryption.type, encryption.kms_key),
        )
    except sqlite3.IntegrityError as exc:
        raise ApiError(
            "RepositoryAlreadyExistsException",
            f"The repository with name '{name}' already exists in the registry with id "
            f"'{registry.account}'",
        ) from exc
    repository = get_repository(db, registry, name)
    db.executemany(
        "INSERT INTO repository_tags VALUES (?, ?, ?)",
        ((repository.id, key, value) for key, value in tags.items()),
    )
    return repository


def repository_tags(db: sqlite3.Connection, repository: Repository) -> dict[str, str]:
    """The resource tags of a repository."""
    rows = db.execute(
        "SELECT key, value FROM repository_tags WHERE repository=? ORDER BY key", (repository.id,)
    )
    return {row["key"]: row["value"] for row in rows}


def set_immutable(db: sqlite3.Connection, repository: Repository, *, immutable: bool) -> None:
    """Change whether tags may move."""
    db.execute("UPDATE repositories SET immutable=? WHERE id=?", (immutable, repository.id))


def delete_repository(db: sqlite3.Connection, repository: Repository) -> list[str]:
    """Remove a repository with all that is in it.

    :return: digests of the blobs that no repository holds any more.
    """
    digests = [
        row["digest"]
        for row in db.execute("SELECT digest FROM layers WHERE repository=?", (repository.id,))
    ]
    db.execute("DELETE FROM repositories WHERE id=?", (repository.id,))
    orphans = [d for d in digests if not _is_held(db, d)]
    db.executemany("DELETE FROM blobs WHERE digest=?", ((d,) for d in orphans))
    return orphans


def layer_sizes(
    db: sqlite3.Connection, repository: Repository, digests: Iterable[str]
) -> dict[str, int]:
    """Size in bytes of those layers that the repository has, by digest."""
    sizes = {}
    for digest in digests:
        row = db.execute(
            "SELECT size FROM layers JOIN blobs USING (digest) WHERE repository=? AND digest=?",
            (repository.id, digest),
        ).fetchone()
        if row is not None:
            sizes[digest] = row["size"]
    return sizes


def add_layer(db: sqlite3.Connection, repository: Repository, digest: str) -> None:
    """Make a blob that is there a layer of a further repository."""
    db.execute("INSERT OR IGNORE INTO layers VALUES (?, ?)", (repository.id, digest))


def _is_held(db: sqlite3.Connection, digest: str) -> bool:
    return db.execute("SELECT 1 FROM layers WHERE digest=?", (digest,)).fetchone() is not None


def _from_row(row: sqlite3.Row) -> Repository:
    return Repository(
        id=row["id"],
        registry=Registry(row["account"], row["region"]),
        name=row["name"],
        immutable=bool(row["immutable"]),
        scan_on_push=bool(row["scan_on_push"]),
        created=row["created"],
        encryption=Encryption(row["encryption"], row["kms_key"]),
    )
