"""JSON that asyncpush writes for itself to read again, each document with its form's version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asyncpush.errors import UsageError


def read_versioned(path: Path, name: str, key: str, version: int) -> tuple[bytes, dict[str, Any]]:
    """Read a document's bytes, and the object that they are.

    :param name: what people call such a document, for errors.
    :param key: where it states its version.
    :param version: the only one that can be read.
    :raises UsageError: it cannot be read, is no JSON, or is none of that version.
    """
    try:
        raw = path.read_bytes()
        document = json.loads(raw)
    except (OSError, ValueError, RecursionError) as exc:
        reason = getattr(exc, "strerror", None) or f"this is no JSON: {exc}"
        raise UsageError(f"the {name} cannot be read: {reason}", file=str(path)) from exc
    found = document.get(key) if isinstance(document, dict) else None
    if found != version:
        raise UsageError(
            f"this is no {name} of version {version}: its {key} is {found!r}",
            advice="read it with the version of asyncpush that wrote it",
            file=str(path),
        )
    return raw, document
