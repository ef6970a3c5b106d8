"""What the server signs itself: tokens for ``/v2/``, URLs that give a layer."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from asyncpush.localregistry.identity import Registry

_SECRET_BYTES = 32


Scopes = Mapping[str, Sequence[str]]
"""What may be done by repository: ``pull``, ``push``; the catalog is ``*`` with ``catalog``."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says.

    ``access_key_id`` is empty for nobody in particular; ``scopes`` is ``None`` for a token that is
    good for whatever its key may do.
    """

    access_key_id: str
    registry: Registry
    expires: float
    scopes: Scopes | None = None


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
        return self._issue("password", Token(access_key_id, registry, expires))

    def read_password(self, password: str) -> Token | None:
        """What a password says, ``None`` if it is not one of ours or has expired."""
        return self._read("password", password)

    def issue_bearer(self, token: Token) -> str:
        """A token of the token service, for its scopes."""
        return self._issue("bearer", token)

    def read_bearer(self, text: str) -> Token | None:
        """What a token of the token service says, as :meth:`read_password`."""
        return self._read("bearer", text)

    def issue_refresh(self, token: Token) -> str:
        """A token that gets others from the token service."""
        return self._issue("refresh", token)

    def read_refresh(self, text: str) -> Token | None:
        """What such a token says, as :meth:`read_password`."""
        return self._read("refresh", text)

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

    def _issue(self, purpose: str, token: Token) -> str:
        fields = [token.access_key_id, *token.registry, token.expires, token.scopes]
        payload = _encode(json.dumps(fields).encode())
        return f"{payload}.{self._sign(purpose, payload)}"

    def _read(self, purpose: str, text: str) -> Token | None:
        payload, _, signature = text.partition(".")
        if not self._is_signed(signature, purpose, payload):
            return None
        access_key_id, account, region, expires, scopes = json.loads(_decode(payload))
        if self._clock() >= expires:
            return None
        return Token(access_key_id, Registry(account, region), expires, scopes)

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
