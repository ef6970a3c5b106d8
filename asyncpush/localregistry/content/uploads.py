"""Upload sessions: what of a layer is acknowledged, from the first byte to a blob or oblivion."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio.to_thread

from asyncpush.localregistry.content.files import Files
from asyncpush.localregistry.content.repositories import Repository
from asyncpush.localregistry.content.store import Database
from asyncpush.localregistry.errors import ApiError, upload_not_found

if TYPE_CHECKING:
    from hashlib import _Hash

logger = logging.getLogger("asyncpush.localregistry")

_READ_SIZE = 1024 * 1024


@dataclass(slots=True, eq=False)
class Session:
    """An upload session as it was last acknowledged; whoever changes it holds ``lock``."""

    id: str
    repository: Repository
    created: float
    size: int = 0
    parts: int = 0
    last_part: int = 0
    small_part: bool = False
    """Whether a part that is not the last is below the minimum."""
    broken: bool = False
    """Whether the last part broke off, so that the next bytes belong to it."""
    first_chunk: int = 0
    """Bytes of the first chunk that came over ``/v2/``, as far as this run of the server knows."""
    hasher: _Hash | None = field(default_factory=hashlib.sha256)
    """SHA-256 of the acknowledged bytes; ``None`` after a restart until it is needed."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: bool = False


class Uploads:
    """All upload sessions. Methods that take a database run on the store's thread.

    :param lifetime: seconds that a session lives.
    :param min_part: bytes of the smallest part that need not be the last.
    """

    def __init__(
        self, files: Files, clock: Callable[[], float], lifetime: float, min_part: int
    ) -> None:
        self._files = files
        self._clock = clock
        self._lifetime = lifetime
        self._min_part = min_part
        self._sessions: dict[str, Session] = {}

    def load(self, db: sqlite3.Connection, repositories: dict[int, Repository]) -> None:
        """Take up the sessions that an earlier run left open."""
        for row in db.execute("SELECT * FROM uploads ORDER BY created").fetchall():
            path = self._files.upload(row["id"])
            size = path.stat().st_size if path.exists() else 0
            if size < row["size"]:
                # Only a crash of the machine does this. The upload has to start anew.
                logger.warning("upload %s has lost acknowledged bytes, it ends", row["id"])
                db.execute("DELETE FROM uploads WHERE id=?", (row["id"],))
                continue
            self._sessions[row["id"]] = Session(
                id=row["id"],
                repository=repositories[row["repository"]],
                created=row["created"],
                size=row["size"],
                parts=row["parts"],
                last_part=row["last_part"],
                small_part=bool(row["small_part"]),
                broken=bool(row["broken"]),
                hasher=None if row["size"] else hashlib.sha256(),
            )

    def begin(self, db: Database, repository: Repository) -> Session:
        """Open a session; sessions that are too old end at this occasion."""
        now = self._clock()
        expired = [s for s in list(self._sessions.values()) if self._is_over(s)]
        session = Session(id=str(uuid.uuid4()), repository=repository, created=now)
        with db.transaction() as connection:
            connection.executemany("DELETE FROM uploads WHERE id=?", ((s.id,) for s in expired))
            connection.execute(
                "INSERT INTO uploads VALUES (?, ?, 0, 0, 0, 0, 0, ?)",
                (session.id, repository.id, now),
            )
        for old in expired:
            self._forget(old)
        self._sessions[session.id] = session
        return session

    def get(self, upload_id: str, repository: Repository) -> Session:
        """The open session of that id in that repository.

        :raises ApiError: UploadNotFoundException.
        """
        session = self._sessions.get(upload_id.lower())
        if session is None or session.repository.id != repository.id or self._is_over(session):
            raise upload_not_found(upload_id, repository.name, repository.registry.account)
        return session

    def check_open(self, session: Session) -> None:
        """To be asked again once the session's lock is held: it may have ended meanwhile.

        :raises ApiError: UploadNotFoundException.
        """
        self.get(session.id, session.repository)

    def open_file(self, session: Session) -> int:
        """A descriptor to write the session's bytes through; the caller closes it."""
        path = self._files.upload(session.id)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    async def hasher_of(self, session: Session) -> _Hash:
        """The SHA-256 of the acknowledged bytes; after a restart it is read from the file."""
        if session.hasher is None:
            session.hasher = await anyio.to_thread.run_sync(self._hash_file, session)
        return session.hasher

    def acknowledge(
        self, db: Database, session: Session, length: int, hasher: _Hash, *, broken: bool = False
    ) -> None:
        """Count bytes that lie in the file as received; memory follows the database.

        :param broken: whether the part broke off behind these bytes.
        :raises ApiError: UploadNotFoundException, the session ended while the part came in.
        """
        size, parts, last_part = session.size + length, session.parts, session.last_part + length
        small = session.small_part
        if not session.broken:
            small = small or 0 < session.last_part < self._min_part
            parts, last_part = parts + 1, length
        with db.transaction() as connection:
            changed = connection.execute(
                "UPDATE uploads SET size=?, parts=?, last_part=?, small_part=?, broken=? "
                "WHERE id=?",
                (size, parts, last_part, small, broken, session.id),
            ).rowcount
            if not changed:
                raise _not_found(session)
        session.size, session.parts, session.last_part = size, parts, last_part
        session.small_part, session.broken = small, broken
        session.hasher = hasher

    def finish(self, db: Database, session: Session, digest: str) -> bool:
        """Make the session's bytes a layer of its repository, and end the session.

        The blob gets a second name before the commit and loses the first behind it. Killed in
        between, the server finds a blob without a row, which it removes, and the session whole.

        :return: ``False`` if the repository had the layer already.
        """
        link = None
        try:
            with db.transaction() as connection:
                ended = connection.execute("DELETE FROM uploads WHERE id=?", (session.id,))
                if not ended.rowcount:
                    raise _not_found(session)
                held = connection.execute("SELECT 1 FROM blobs WHERE digest=?", (digest,))
                if held.fetchone() is None:
                    connection.execute("INSERT INTO blobs VALUES (?, ?)", (digest, session.size))
                    # Behind the acknowledged bytes may lie those of a part that failed. Of an
                    # empty layer there is no file yet.
                    if not session.size:
                        os.close(self.open_file(session))
                    os.truncate(self._files.upload(session.id), session.size)
                    path = self._files.blob(digest)
                    path.hardlink_to(self._files.upload(session.id))
                    link = path
                added = connection.execute(
                    "INSERT OR IGNORE INTO layers VALUES (?, ?)", (session.repository.id, digest)
                ).rowcount
        except BaseException:
            if link is not None:
                link.unlink()
            raise
        self._forget(session)
        return bool(added)

    def cancel(self, db: Database, session: Session) -> None:
        """End a session and forget its bytes.

        :raises ApiError: UploadNotFoundException, it has ended already.
        """
        with db.transaction() as connection:
            ended = connection.execute("DELETE FROM uploads WHERE id=?", (session.id,))
            if not ended.rowcount:
                raise _not_found(session)
        self._forget(session)

    def end_all(self, repository: Repository) -> None:
        """Forget the sessions of a repository whose rows are gone."""
        for session in [s for s in self._sessions.values() if s.repository.id == repository.id]:
            self._forget(session)

    def _hash_file(self, session: Session) -> _Hash:
        hasher = hashlib.sha256()
        left = session.size
        with self._files.upload(session.id).open("rb") as file:
            while left:
                data = file.read(min(left, _READ_SIZE))
                if not data:
                    raise OSError(f"upload {session.id} has lost {left} acknowledged bytes")
                hasher.update(data)
                left -= len(data)
        return hasher

    def _forget(self, session: Session) -> None:
        session.ended = True
        self._sessions.pop(session.id, None)
        with contextlib.suppress(FileNotFoundError):  # no part may have come
            self._files.upload(session.id).unlink()

    def _is_over(self, session: Session) -> bool:
        return session.ended or self._clock() >= session.created + self._lifetime


def _not_found(session: Session) -> ApiError:
    repository = session.repository
    return upload_not_found(session.id, repository.name, repository.registry.account)
