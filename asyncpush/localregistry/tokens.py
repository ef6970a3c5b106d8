"""What the server signs itself: authorization tokens for ``/v2/``, URLs that give a layer."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from asyncpush.localregistry.identity import Registry

_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Token:
    """What an authorization token says."""

    access_key_id: str
    registry: Registry
    expires: float


class TokenSigner:
    """Issues and checks tokens; a token needs no memory of it, so it outlives a restart.

    :param secret: the server's own key for HMAC-SHA-256.
    :param clock: gives the time in seconds since 1970.
    """

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        self._secret = secret
        self._clock = clock

    def issue_password(self, access_key_id: str, registry: Registry, expires: float) -> str:
        """The password that stands for a key in one registry until a time."""
        payload = _encode(json.dumps([access_key_id, *registry, expires]).encode())
        return f"{payload}.{self._sign('password', payload)}"

    def read_password(self, password: str) -> Token | None:
        """What a password says, ``None`` if it is not one of ours or has expired."""
        payload, _, signature = password.partition(".")
        if not self._is_signed(signature, "password", payload):
            return None
        access_key_id, account, region, expires = json.loads(_decode(payload))
        if self._clock() >= expires:
            return None
        return Token(access_key_id, Registry(account, region), expires)

    def read_basic(self, header: str) -> Token | None:
        """What an Authorization header of the Basic scheme says, as :meth:`read_password`."""
        scheme, _, credentials = header.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
        except ValueError:  # no base64, or no text in it
            return None
        return self.read_password(password) if user == "AWS" else None

    def layer_path(self, registry: Registry, repository: str, digest: str, expires: int) -> str:
        """Path and query from which a layer can be downloaded until a time."""
        signature = self._sign("layer", *registry, repository, digest, str(expires))
        path = quote(f"/layers/{registry.account}/{registry.region}/{digest}/{repository}")
        return f"{path}?{urlencode({'expires': expires, 'signature': signature})}"

    def allows_layer(
        self, registry: Registry, repository: str, digest: str, expires: str, signature: str
    ) -> bool:
        """Whether the query of a download URL is ours, for this layer, and has not expired."""
        parts = (*registry, repository, digest, expires)
        return self._is_signed(signature, "layer", *parts) and self._clock() < int(expires)

    def _sign(self, purpose: str, *parts: str) -> str:
        text = "\n".join((purpose, *parts))
        return _encode(hmac.digest(self._secret, _raw(text), "sha256"))

    def _is_signed(self, signature: str, purpose: str, *parts: str) -> bool:
        return hmac.compare_digest(_raw(self._sign(purpose, *parts)), _raw(signature))


def load_secret(path: Path) -> bytes:
    """The server's secret, made when there is none yet; readable by its owner alone."""
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        secret = b""
    if len(secret) == _SECRET_BYTES:
        return secret
    # Renamed into place: a server that is killed here must not leave half a secret.
    secret = secrets.token_bytes(_SECRET_BYTES)
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_bytes(secret)
    temporary.replace(path)
    return secret


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _raw(text: str) -> bytes:
    # What was no UTF-8 on the wire stands in the text as surrogates.
    return text.encode("utf-8", "surrogateescape")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
