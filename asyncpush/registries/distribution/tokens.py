"""What a token service may be sent, and what of its answers is believed."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from typing import Any

import aiohttp
from yarl import URL

from asyncpush.errors import CredentialsError, TransientError

MOST_BYTES = 1024 * 1024
"""Bytes of a token service's answer that are read; the largest known tokens have some KiB."""

_DEFAULT_SECONDS = 60.0
"""How long a token lives where the answer does not say (distribution, "Token Authentication
Specification")."""
_MOST_SECONDS = 24 * 3600.0
# RFC 6750, 2.1, b64token; registries also use other visible characters.
_TOKEN = re.compile(r"[\x21-\x7e]+")


def check_realm(realm: str, registry: URL, host: str) -> URL:
    """The address of a token service, if credentials may go there.

    They go over TLS, or stay on this machine, or go in clear to a registry that the user has
    chosen to speak to in clear. They never go to a link-local address, where cloud machines keep
    credentials of their own.

    :param realm: the address that the registry names.
    :param registry: the registry's own.
    :param host: what people call the registry, for errors.
    :raises CredentialsError: they may not.
    """
    try:
        url = URL(realm)
        name = url.host
    except ValueError:
        name = None
    if name is None or url.scheme not in ("http", "https"):
        raise CredentialsError(
            "the token service that the registry names has no address that can be asked",
            advice="check the registry's configuration",
            registry=host,
        )
    own = (name, url.scheme) == (registry.host, registry.scheme)
    if not own and not _is_safe(name, url.scheme):
        raise CredentialsError(
            f"the registry names a token service at {url.scheme}://{name}, where credentials"
            " do not go",
            advice="a token service is asked over https; check the registry's configuration",
            registry=host,
        )
    return url


def _is_safe(name: str, scheme: str) -> bool:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return scheme == "https" or name == "localhost"
    return address.is_loopback or (scheme == "https" and not address.is_link_local)


async def read_token(response: aiohttp.ClientResponse, **where: str) -> tuple[str, float]:
    """The token of an answer, and the seconds that it is good for.

    :raises TransientError: the answer is too large, or cannot be read.
    :raises CredentialsError: it holds no token.
    """
    raw = b""
    async for piece in response.content.iter_any():
        raw += piece
        if len(raw) > MOST_BYTES:
            raise TransientError("the token service's answer has no end", **where)
    try:
        document: Any = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise TransientError(
            "the token service's answer is not JSON",
            advice="check that no proxy answers in its place",
            **where,
        ) from exc
    token = None
    if isinstance(document, dict):
        token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise CredentialsError("the token service's answer holds no token", **where)
    return token, _seconds(document.get("expires_in"))


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _DEFAULT_SECONDS
    try:
        seconds = float(value)
    except OverflowError:
        return _MOST_SECONDS
    if not math.isfinite(seconds) or seconds <= 0:
        return _DEFAULT_SECONDS
    return min(seconds, _MOST_SECONDS)
