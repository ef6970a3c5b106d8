"""The token service of ``/v2/``: short tokens for scopes, as distribution's token specification.

It takes what ``/v2/`` takes as Basic credentials, an access key's id and secret, or, as OAuth 2
(``POST``), a password or a refresh token.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from asyncpush.localregistry.access.tokens import Scopes, Token
from asyncpush.localregistry.call import Arrival, Services, refusal
from asyncpush.localregistry.distribution.access import (
    CATALOG,
    REALM,
    TOKEN_PATH,
    read_basic,
    registry_of,
)
from asyncpush.localregistry.distribution.answers import DistributionError, fail, respond
from asyncpush.localregistry.errors import ApiError, access_denied
from asyncpush.localregistry.requests import answer, read_pieces

_MAX_FORM = 64 * 1024
_ACTIONS = {"repository": {"pull", "push"}, "registry": {"*"}}


class TokenService:
    """Answers ``/token``."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._options = services.options.distribution

    def routes(self) -> list[web.RouteDef]:
        """The routes, which are there only where tokens are asked for."""
        if self._options.authentication != "bearer":
            return []
        return [web.get(TOKEN_PATH, self._handle), web.post(TOKEN_PATH, self._handle)]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        async def work(arrival: Arrival) -> web.StreamResponse:
            if request.method == "POST":
                return await self._grant(request, arrival)
            return self._get(request, arrival)

        return await answer(self._services, request, "v2.GetToken", work, fail)

    def _get(self, request: web.Request, arrival: Arrival) -> web.StreamResponse:
        header = request.headers.get("Authorization")
        if header is None:
            caller = self._anybody(request)
        else:
            caller = self._check_password(request, *read_basic(header))
        scopes = " ".join(request.query.getall("scope", []))
        offline = request.query.get("offline_token") == "true"
        return self._issue(arrival, caller, scopes, refresh=offline)

    async def _grant(self, request: web.Request, arrival: Arrival) -> web.StreamResponse:
        pieces = read_pieces(request, self._services.options.body_timeout, _MAX_FORM)
        body = b"".join([piece async for piece in pieces])
        form = dict(parse_qsl(body.decode(errors="replace")))
        kind = form.get("grant_type")
        offline = form.get("access_type") == "offline"
        if kind == "refresh_token":
            caller = self._services.tokens.read_refresh(form.get("refresh_token", ""))
        elif kind == "password":
            user, password = form.get("username", ""), form.get("password", "")
            caller = self._check_password(request, user, password)
        else:
            raise ApiError("UNSUPPORTED", "grant_type is neither password nor refresh_token", 400)
        return self._issue(arrival, caller, form.get("scope", ""), refresh=offline)

    def _anybody(self, request: web.Request) -> Token | None:
        if self._options.anonymous_pull or self._options.anonymous_push:
            return Token("", registry_of(self._services, request), 0)
        return None

    def _check_password(self, request: web.Request, user: str, password: str) -> Token | None:
        if user == "AWS":
            return self._services.tokens.read_password(password)
        known = self._services.keyring.get(user)
        if known is None:
            return None
        key, policy = known
        if not hmac.compare_digest(
            key.secret_access_key.encode(), password.encode("utf-8", "surrogateescape")
        ):
            return None
        now = datetime.fromtimestamp(self._services.options.clock(), UTC)
        # A temporary key is proven by its session token, which has no place here.
        if key.session_token is not None or (key.expires is not None and now >= key.expires):
            return None
        registry = registry_of(self._services, request, key.account)
        reason = refusal(key, policy, None, registry, "ecr:GetAuthorizationToken", "*")
        if reason is not None:
            raise access_denied(reason)
        return Token(user, registry, 0)

    def _issue(
        self, arrival: Arrival, caller: Token | None, scopes: str, *, refresh: bool
    ) -> web.StreamResponse:
        if caller is None or (
            caller.access_key_id and self._services.keyring.get(caller.access_key_id) is None
        ):
            raise DistributionError(
                "UNAUTHORIZED",
                "the credentials are not accepted",
                401,
                {"WWW-Authenticate": f'Basic realm="{REALM}"'},
            )
        record = arrival.record
        record.account, record.region = caller.registry
        record.access_key_id = caller.access_key_id or None
        now = self._services.options.clock()
        seconds = self._options.bearer_lifetime
        granted = _read_scopes(scopes.split())
        if not caller.access_key_id and not self._options.anonymous_push:
            granted = {name: [a for a in do if a != "push"] for name, do in granted.items()}
        token = Token(caller.access_key_id, caller.registry, now + seconds, granted)
        text = self._services.tokens.issue_bearer(token)
        document: dict[str, Any] = {
            "token": text,
            "access_token": text,
            "expires_in": seconds,
            "issued_at": datetime.fromtimestamp(now, UTC).isoformat(),
        }
        if refresh and caller.access_key_id:
            lasting = Token(
                caller.access_key_id,
                caller.registry,
                now + self._services.options.token_lifetime,
            )
            document["refresh_token"] = self._services.tokens.issue_refresh(lasting)
        return respond(document)


def _read_scopes(texts: Iterable[str]) -> Scopes:
    """What a caller asks for; whether its policy allows that is for each call to say."""
    granted: dict[str, list[str]] = {}
    for text in texts:
        kind, _, rest = text.partition(":")
        name, _, actions = rest.rpartition(":")
        wanted = set(actions.split(",")) & _ACTIONS.get(kind, set())
        if kind == "registry" and name == "catalog" and wanted:
            granted[CATALOG] = ["catalog"]
        elif kind == "repository" and name:
            granted[name] = sorted({*granted.get(name, []), *wanted})
        else:
            raise ApiError("UNSUPPORTED", f"scope {text!r} is not known", 400)
    return granted
