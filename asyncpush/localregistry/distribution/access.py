"""Who calls ``/v2/``: Basic with an authorization token, Bearer with one of the token service."""

from __future__ import annotations

import base64
from typing import Literal

from aiohttp import web

from asyncpush.localregistry.access.keys import Key
from asyncpush.localregistry.access.tokens import Token
from asyncpush.localregistry.call import Arrival, Call, Services
from asyncpush.localregistry.distribution.answers import DistributionError, is_name
from asyncpush.localregistry.identity import Registry, registry_of_host

Access = Literal["pull", "push", "catalog"]
"""What a call does, in the words of a token's scope."""

TOKEN_PATH = "/token"  # noqa: S105 - a path
REALM = "asyncpush local registry"
CATALOG = "*"


class Gate:
    """Tells who calls, and turns away who may not come in."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._options = services.options.distribution

    def open(self, request: web.Request, arrival: Arrival, access: Access | None) -> Call:
        """The call that a request is, once its caller is known.

        :param access: what it does; ``None`` for nothing but to be let in.
        :raises ApiError: UNAUTHORIZED.
        """
        name = CATALOG if access == "catalog" else request.match_info.get("name")
        header = request.headers.get("Authorization")
        if self._options.authentication == "bearer":
            token = self._bearer(header)
            if token is None:
                raise self._challenge(request, name, access)
            granted = token.scopes or {}
            if name is not None and access is not None and access not in granted.get(name, ()):
                raise self._challenge(request, name, access, error="insufficient_scope")
        elif header is None and self._admits_anybody(access):
            token = Token("", registry_of(self._services, request), 0)
        else:
            token = self._basic(header)
        call = None if token is None else self._call(arrival, token)
        if call is None:
            raise self._challenge(request, name, access)
        return call

    def _admits_anybody(self, access: Access | None) -> bool:
        options = self._options
        return options.anonymous_push or (options.anonymous_pull and access != "push")

    def _basic(self, header: str | None) -> Token | None:
        user, password = read_basic(header)
        return self._services.tokens.read_password(password) if user == "AWS" else None

    def _bearer(self, header: str | None) -> Token | None:
        scheme, _, text = (header or "").partition(" ")
        return self._services.tokens.read_bearer(text) if scheme.lower() == "bearer" else None

    def _call(self, arrival: Arrival, token: Token) -> Call | None:
        registry = token.registry
        if not token.access_key_id:
            nobody = Key("ANONYMOUS_CALLER", "none", account=registry.account)
            call = Call(self._services, arrival, nobody, None, registry, token.scopes)
        else:
            known = self._services.keyring.get(token.access_key_id)
            if known is None:
                return None
            arrival.record.access_key_id = token.access_key_id
            call = Call(self._services, arrival, *known, registry, token.scopes)
        call.address(registry, None)
        return call

    def _challenge(
        self, request: web.Request, name: str | None, access: Access | None, error: str = ""
    ) -> DistributionError:
        if self._options.authentication == "basic":
            value = f'Basic realm="{REALM}"'
        else:
            # The host that the caller knows: there may be a proxy between.
            fields = {
                "realm": f"{request.scheme}://{request.host}{TOKEN_PATH}",
                "service": request.host,
            }
            # A name that nothing could have has no place in a header either.
            if access == "catalog" or (access is not None and is_name(name or "")):
                fields["scope"] = scope_of(name or "", access)
            if error:
                fields["error"] = error
            value = "Bearer " + ",".join(f'{key}="{text}"' for key, text in fields.items())
        return DistributionError(
            "UNAUTHORIZED", "authentication required", 401, {"WWW-Authenticate": value}
        )


def scope_of(name: str, access: Access) -> str:
    """The scope that a call needs, as clients ask for it."""
    if access == "catalog":
        return "registry:catalog:*"
    return f"repository:{name}:{'pull,push' if access == 'push' else 'pull'}"


def read_basic(header: str | None) -> tuple[str, str]:
    """User and password of an Authorization header, empty if it has none."""
    scheme, _, credentials = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except ValueError:  # no base64, or no text in it
        return "", ""
    return user, password


def registry_of(services: Services, request: web.Request, account: str | None = None) -> Registry:
    """The registry that a request means whose credentials do not tell it.

    :param account: the account of its credentials, if there are any.
    """
    found = registry_of_host(request.host) or services.options.default_registry
    return found if account is None else Registry(account, found.region)
