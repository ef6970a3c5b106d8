"""What a push must remember to be taken up again: open sessions and committed manifests."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from asyncpush.errors import JournalError
from asyncpush.oci.digest import Digest
from asyncpush.plan.items import PushItem
from asyncpush.plan.reference import Repository
from asyncpush.plan.sources import is_remote, split_source
from asyncpush.registries.base import UploadSession

_FORMAT = 2
_SCHEMA = """
CREATE TABLE job (format INTEGER NOT NULL, fingerprint TEXT NOT NULL, title TEXT NOT NULL);
CREATE TABLE uploads (
    repository TEXT NOT NULL, digest TEXT NOT NULL, session TEXT NOT NULL,
    part_size INTEGER NOT NULL, received INTEGER NOT NULL, PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE TABLE manifests (
    repository TEXT NOT NULL, digest TEXT NOT NULL, tag TEXT NOT NULL,
    PRIMARY KEY (repository, digest, tag)
) WITHOUT ROWID;
CREATE UNIQUE INDEX tags ON manifests (repository, tag) WHERE tag <> '';
CREATE TABLE previous (
    repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (repository, tag)
) WITHOUT ROWID;
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """A session that an earlier run left open; ``received`` bytes of it were acknowledged."""

    session: UploadSession
    received: int


def fingerprint(items: Iterable[PushItem], endpoint_url: str | None) -> str:
    """What makes a job the same job: its sources, targets, platforms, referrers, and the API's
    address."""
    parts = []
    for item in items:
        place, entry = split_source(item.source)
        # A registry's reference is the same wherever the command is given.
        place = os.fspath(item.source) if is_remote(place) else os.path.realpath(place)
        more = [] if item.referrers is None else [item.referrers]
        parts.append([place, entry, item.target, item.platform, *more])
    text = json.dumps([endpoint_url or os.environ.get("AWS_ENDPOINT_URL_ECR"), parts])
    return hashlib.sha256(text.encode()).hexdigest()


def default_path(job: str) -> Path:
    """Where a job's journal is kept unless the user says otherwise (XDG Base Directory)."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "asyncpush" / f"{job[:32]}.journal"


class NoJournal:
    """Remembers nothing: a push that is interrupted begins its half-sent layers again."""

    async def open_upload(
        self,
        repository: Repository,  # noqa: ARG002 - what it would look up
        digest: str,  # noqa: ARG002
    ) -> OpenUpload | None:
        """See :class:`Journal`."""
        return None

    async def open_uploads(self) -> set[tuple[str, str]]:
        """See :class:`Journal`."""
        return set()

    async def note_upload(
        self, repository: Repository, digest: str, session: UploadSession, received: int
    ) -> None:
        """See :class:`Journal`."""

    async def end_upload(self, repository: Repository, digest: str) -> None:
        """See :class:`Journal`."""

    async def is_committed(
        self,
        repository: Repository,  # noqa: ARG002 - as above
        digest: str,  # noqa: ARG002
        tag: str | None,  # noqa: ARG002
    ) -> bool:
        """See :class:`Journal`."""
        return False

    async def note_manifest(self, repository: Repository, digest: str, tag: str | None) -> None:
        """See :class:`Journal`."""

    async def note_previous(
        self,
        repository: Repository,  # noqa: ARG002 - as above
        found: Mapping[str, Digest | None],
        roots: Mapping[str, Digest],  # noqa: ARG002
    ) -> dict[str, Digest | None]:
        """See :class:`Journal`."""
        return dict(found)

    async def forget_tag(self, repository: Repository, tag: str) -> None:
        """See :class:`Journal`."""


class Journal(NoJournal):
    """The journal of one job, in an SQLite file that one run at a time may have open.

    It saves work and decides nothing: the registry is asked what it has, and where the two differ
    the registry is right. What is written outlives the process however it ends.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self._path = path
        self._thread = anyio.CapacityLimiter(1)

    async def open_upload(self, repository: Repository, digest: str) -> OpenUpload | None:
        """The session that an earlier run left open for a blob, if there is one."""
        row = await self._run(
            lambda: self._db.execute(
                "SELECT session, part_size, received FROM uploads WHERE repository=? AND digest=?",
                (str(repository), digest),
            ).fetchone()
        )
        return None if row is None else OpenUpload(UploadSession(row[0], row[1]), row[2])

    async def open_uploads(self) -> set[tuple[str, str]]:
        """Repository and digest of every session that an earlier run left with some bytes in it."""
        rows = await self._run(
            lambda: self._db.execute(
                "SELECT repository, digest FROM uploads WHERE received > 0"
            ).fetchall()
        )
        return {(repository, digest) for repository, digest in rows}

    async def note_upload(
        self, repository: Repository, digest: str, session: UploadSession, received: int
    ) -> None:
        """Note a session and how many bytes of the blob it holds."""
        await self._write(
            "INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?, ?)",
            (str(repository), digest, session.id, session.part_size, received),
        )

    async def end_upload(self, repository: Repository, digest: str) -> None:
        """Forget a session: the blob is there, or the session is gone."""
        await self._write(
            "DELETE FROM uploads WHERE repository=? AND digest=?", (str(repository), digest)
        )

    async def is_committed(self, repository: Repository, digest: str, tag: str | None) -> bool:
        """Whether a run of the job committed a manifest, under a tag if one is given.

        A tag may have been moved by others since, and a manifest without a tag removed.
        """
        row = await self._run(
            lambda: self._db.execute(
                "SELECT 1 FROM manifests WHERE repository=? AND digest=? AND tag=?",
                (str(repository), digest, tag or ""),
            ).fetchone()
        )
        return row is not None

    async def note_manifest(self, repository: Repository, digest: str, tag: str | None) -> None:
        """Note a manifest that the registry has committed; a tag points to the last one only."""
        await self._write(
            "INSERT OR REPLACE INTO manifests VALUES (?, ?, ?)",
            (str(repository), digest, tag or ""),
        )

    async def note_previous(
        self,
        repository: Repository,
        found: Mapping[str, Digest | None],
        roots: Mapping[str, Digest],
    ) -> dict[str, Digest | None]:
        """Note what tags point to before the job moves them.

        :param found: digest by tag, None for a tag that does not exist.
        :param roots: the digest that each of them is to point to.
        :return: the same, but for tags that an earlier run of the job has moved: what they pointed
            to before that. A tag that points to anything but its image by now was moved by others,
            and what they did is what counts.
        """
        name = str(repository)

        def note() -> dict[str, Digest | None]:
            rows = self._db.execute("SELECT tag, digest FROM previous WHERE repository=?", (name,))
            noted = dict(rows.fetchall())
            previous = dict(found)
            for tag, digest in found.items():
                if digest == roots[tag] and tag in noted:
                    previous[tag] = Digest(noted[tag]) if noted[tag] else None
            self._db.executemany(
                "INSERT OR REPLACE INTO previous VALUES (?, ?, ?)",
                [(name, tag, digest or "") for tag, digest in previous.items()],
            )
            return previous

        return await self._run(note)

    async def forget_tag(self, repository: Repository, tag: str) -> None:
        """Forget that the job has moved a tag: it has not, or has returned it."""

        def forget() -> None:
            for table in ("manifests", "previous"):
                self._db.execute(
                    f"DELETE FROM {table} WHERE repository=? AND tag=?",  # noqa: S608 - from above
                    (str(repository), tag),
                )

        await self._run(forget)

    async def _write(self, statement: str, values: tuple[object, ...]) -> None:
        def write() -> None:
            self._db.execute(statement, values)

        await self._run(write)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._thread)
        except sqlite3.Error as exc:
            raise _unusable(self._path, exc) from exc


@asynccontextmanager
async def open_journal(path: Path, job: str, title: str) -> AsyncIterator[Journal]:
    """Open a job's journal, or begin one.

    :param path: the file; its folder is made if it is missing.
    :param job: the job's fingerprint.
    :param title: what people call the job, for the error that another job's journal gives.
    :raises JournalError: another run has it open, it belongs to another job or version, it is
        damaged, or it cannot be written.
    """
    connection = await anyio.to_thread.run_sync(_open, path, job, title)
    try:
        yield Journal(connection, path)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(connection.close)


def remove_journal(path: Path) -> None:
    """Remove the journal of a job that is done: there is nothing left to take up."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _open(path: Path, job: str, title: str) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # For nobody else to read: an upload session's address may let whoever has it write there.
        # SQLite gives its other files the mode of this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as exc:
        raise _unusable(path, exc) from exc
    try:
        # Exclusive from the first access on, so that a second run is refused and not delayed.
        # Without a sync for each commit: it must outlive the process, not the machine.
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN EXCLUSIVE")
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO job VALUES (?, ?, ?)", (_FORMAT, job, title))
        connection.execute("COMMIT")
        _check(connection, path, job)
    except sqlite3.Error as exc:
        connection.close()
        raise _unusable(path, exc) from exc
    except JournalError:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path, job: str) -> None:
    found, theirs, title = connection.execute("SELECT * FROM job").fetchone()
    if found != _FORMAT:
        raise JournalError(
            f"the journal has format {found}, this version reads {_FORMAT}",
            advice="end the job with the version that began it, or remove the journal",
            file=str(path),
        )
    if theirs != job:
        raise JournalError(
            f"the journal belongs to another job: {title}",
            advice="choose another --journal, or remove it if that job is done with",
            file=str(path),
        )


def _unusable(path: Path, exc: Exception) -> JournalError:
    name = getattr(exc, "sqlite_errorname", "")
    if name.startswith("SQLITE_BUSY"):
        return JournalError(
            "another run has the journal open",
            advice="wait for it to end, or end it",
            file=str(path),
        )
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return JournalError(
            "this is no journal, or a damaged one",
            advice="choose another --journal, or remove it if it is this job's:"
            " the push then asks the registry what is there",
            file=str(path),
        )
    return JournalError(
        f"the journal cannot be used: {getattr(exc, 'strerror', None) or exc}",
        advice="check the disk's space and permissions, choose another --journal,"
        " or do without with --no-journal",
        file=str(path),
    )
