"""Where things lie under the server's root, and what a start removes there."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path


class Files:
    """The server's directory: ``blobs/sha256/HEX``, ``uploads/ID``, ``tmp/``, the database.

    :raises ValueError: another server uses the directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.uploads = root / "uploads"
        self.temporary = root / "tmp"
        self.database = root / "registry.sqlite3"
        self.secret = root / "secret"
        for folder in (self.blobs, self.uploads, self.temporary):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._lock)
            raise ValueError(f"{root}: another local registry is running on it") from exc

    def close(self) -> None:
        """Let another server use the directory."""
        os.close(self._lock)

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        return self.blobs / digest.removeprefix("sha256:")

    def upload(self, upload_id: str) -> Path:
        """The file that an upload session fills."""
        return self.uploads / upload_id

    def clean(self, db: sqlite3.Connection) -> None:
        """Remove what a killed server left behind: temporary files, files without a row.

        A blob without a row must go before any call is served: it may be a second name of an
        upload that goes on being written.
        """
        for path in self.temporary.iterdir():
            path.unlink()
        blobs = {row["digest"] for row in db.execute("SELECT digest FROM blobs")}
        uploads = {row["id"] for row in db.execute("SELECT id FROM uploads")}
        for path in self.blobs.iterdir():
            if f"sha256:{path.name}" not in blobs:
                path.unlink()
        for path in self.uploads.iterdir():
            if path.name not in uploads:
                path.unlink()
