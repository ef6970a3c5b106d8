"""Access keys: who may call, in which account, with which policy; and the file that lists them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from asyncpush.localregistry.access.policy import Policy
from asyncpush.localregistry.identity import ACCOUNT

_KEY_ID = re.compile(r"[A-Za-z0-9_]{16,128}")
_USER = re.compile(r"[A-Za-z0-9+=,.@_/-]{1,128}")
_TEXT_FIELDS = {"access_key_id", "secret_access_key", "account", "session_token", "user", "expires"}


@dataclass(frozen=True, slots=True)
class Key:
    """An access key that the local registry accepts.

    ``policy`` is the decoded identity-based policy of its user, ``None`` to allow every call in
    the key's own account. With ``session_token`` the key is temporary: calls must carry the token.
    From ``expires`` on calls are answered with ExpiredTokenException.

    :raises ValueError: a field is not what AWS gives out, or the policy cannot be enforced.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    account: str = "000000000000"
    policy: Mapping[str, Any] | None = None
    session_token: str | None = field(default=None, repr=False)
    user: str = "local"
    expires: datetime | None = None

    def __post_init__(self) -> None:
        if not _KEY_ID.fullmatch(self.access_key_id):
            raise ValueError("access_key_id: not 16 to 128 letters, digits and underscores")
        if not self.secret_access_key:
            raise ValueError("secret_access_key: empty")
        if not ACCOUNT.fullmatch(self.account):
            raise ValueError(f"account: {self.account!r} has not 12 digits")
        if not _USER.fullmatch(self.user):
            raise ValueError(f"user: {self.user!r} is no name of an IAM user")
        if self.expires is not None and self.expires.tzinfo is None:
            raise ValueError("expires: has no time zone")
        if self.policy is not None:
            Policy(self.policy)

    @property
    def arn(self) -> str:
        """The ARN of the user whom the key belongs to."""
        return f"arn:aws:iam::{self.account}:user/{self.user}"


DEFAULT_KEY = Key("AKIDLOCALREGISTRY000", "local-registry-secret-that-opens-nothing-else")
"""The key of demonstrations: allowed everything in account 000000000000, known to everybody."""


class Keyring:
    """The keys of a server by their id, each with its policy ready to evaluate."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys: dict[str, tuple[Key, Policy | None]] = {}
        for key in keys:
            if key.access_key_id in self._keys:
                raise ValueError(f"access_key_id: {key.access_key_id} stands in the keys twice")
            self._keys[key.access_key_id] = (
                key,
                None if key.policy is None else Policy(key.policy),
            )
        if not self._keys:
            raise ValueError("keys: none given, so nobody could call")

    def get(self, access_key_id: str) -> tuple[Key, Policy | None] | None:
        """The key of that id and its policy, if the server knows it."""
        return self._keys.get(access_key_id)


def load_keys(path: Path) -> list[Key]:
    """Read a keys file: ``{"keys": [{"access_key_id": ..., "secret_access_key": ...}, ...]}``.

    A key has the fields of :class:`Key`; instead of ``policy`` it may have ``policy_file``, a path
    relative to the keys file. ``expires`` is a time such as ``2030-01-01T00:00:00+00:00``.

    :raises ValueError: file and field that are wrong, and why, in one line.
    """
    document = _load_json(path)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: keys: missing, or no list of keys")
    keys = []
    for i, entry in enumerate(entries):
        try:
            keys.append(_read_key(entry, path))
        except ValueError as exc:
            raise ValueError(f"{path}: keys[{i}].{exc}") from exc
    try:
        Keyring(keys)
    except ValueError as exc:
        raise ValueError(f"{path}: {exc}") from exc
    return keys


def _read_key(entry: Any, path: Path) -> Key:
    if not isinstance(entry, dict):
        raise ValueError("access_key_id: the entry is no object")
    values: dict[str, Any] = {}
    for name, value in entry.items():
        if name in _TEXT_FIELDS:
            if not isinstance(value, str):
                raise ValueError(f"{name}: no text")
            values[name] = value
        elif name not in ("policy", "policy_file"):
            raise ValueError(f"{name}: unknown field")
    for name in ("access_key_id", "secret_access_key"):
        if name not in values:
            raise ValueError(f"{name}: missing")
    if "expires" in values:
        try:
            values["expires"] = datetime.fromisoformat(values["expires"])
        except ValueError as exc:
            raise ValueError(f"expires: {exc}") from exc
    return Key(**values, policy=_read_policy(entry, path))


def _read_policy(entry: dict[str, Any], path: Path) -> Mapping[str, Any] | None:
    if "policy" in entry and "policy_file" in entry:
        raise ValueError("policy_file: there is a policy already")
    if "policy_file" in entry:
        if not isinstance(entry["policy_file"], str):
            raise ValueError("policy_file: no text")
        try:
            document = _load_json(path.parent / entry["policy_file"])
        except ValueError as exc:
            raise ValueError(f"policy_file: {exc}") from exc
    elif "policy" in entry:
        document = entry["policy"]
    else:
        return None
    if not isinstance(document, dict):
        raise ValueError("policy: not an object")
    return document


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise ValueError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ValueError(f"{path}: no UTF-8 at byte {exc.start}") from exc
    except json.JSONDecodeError as exc:
        raise ValueError(f"{path}: no JSON: {exc.msg} at line {exc.lineno}") from exc
