"""The policies of repositories: as text in the database, ready to evaluate in memory."""

from __future__ import annotations

import json
import sqlite3

from asyncpush.localregistry.access.policy import ResourcePolicy
from asyncpush.localregistry.content.repositories import Repository
from asyncpush.localregistry.content.store import Database
from asyncpush.localregistry.errors import ApiError, invalid_parameter
from asyncpush.localregistry.identity import Registry


class RepositoryPolicies:
    """All policies of repositories. Methods that take a database run on the store's thread."""

    def __init__(self) -> None:
        self._policies: dict[tuple[Registry, str], ResourcePolicy] = {}

    def load(self, db: sqlite3.Connection, repositories: dict[int, Repository]) -> None:
        """Take up the policies that an earlier run was given."""
        for row in db.execute("SELECT * FROM repository_policies").fetchall():
            repository = repositories[row["repository"]]
            self._policies[_key(repository)] = ResourcePolicy(json.loads(row["text"]))

    def of(self, registry: Registry, name: str) -> ResourcePolicy | None:
        """The policy of a repository, if it has one."""
        return self._policies.get((registry, name))

    def text(self, db: sqlite3.Connection, repository: Repository) -> str:
        """A repository's policy as it was given.

        :raises ApiError: RepositoryPolicyNotFoundException.
        """
        row = db.execute(
            "SELECT text FROM repository_policies WHERE repository=?", (repository.id,)
        ).fetchone()
        if row is None:
            raise ApiError(
                "RepositoryPolicyNotFoundException",
                f"Repository policy does not exist for the repository with name "
                f"'{repository.name}' in the registry with id '{repository.registry.account}'",
            )
        return str(row["text"])

    def put(self, db: Database, repository: Repository, text: str, policy: ResourcePolicy) -> None:
        """Give a repository a policy in the place of the one it had."""
        with db.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO repository_policies VALUES (?, ?)", (repository.id, text)
            )
        self._policies[_key(repository)] = policy

    def remove(self, db: Database, repository: Repository) -> None:
        """Take a repository's policy away."""
        with db.transaction() as connection:
            connection.execute(
                "DELETE FROM repository_policies WHERE repository=?", (repository.id,)
            )
        self.forget(repository)

    def forget(self, repository: Repository) -> None:
        """Forget the policy of a repository that is gone."""
        self._policies.pop(_key(repository), None)


def read_policy(text: str) -> ResourcePolicy:
    """Read the text of a repository's policy.

    :raises ApiError: InvalidParameterException.
    """
    try:
        return ResourcePolicy(json.loads(text))
    except (ValueError, RecursionError) as exc:
        raise invalid_parameter(
            "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository "
            f"policy provided: {exc}'"
        ) from exc


def _key(repository: Repository) -> tuple[Registry, str]:
    return repository.registry, repository.name
