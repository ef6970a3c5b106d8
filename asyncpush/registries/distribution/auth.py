"""Authorization headers: Basic, and Bearer tokens by scope, renewed in time."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import aiohttp
import anyio
from yarl import URL

from asyncpush.errors import CredentialsError, ThrottledError, TransientError
from asyncpush.registries.distribution.challenge import Challenge, parse_challenges
from asyncpush.registries.distribution.dockerconfig import Login
from asyncpush.registries.distribution.errors import retry_after
from asyncpush.registries.distribution.logins import Logins
from asyncpush.registries.distribution.tokens import check_realm, read_token
from asyncpush.registries.flights import Flights
from asyncpush.registries.proxies import Proxies

# Some token services throttle clients that ask for many tokens at once.
_TOKENS_AT_ONCE = 8
# Renewed before it ends, so that no call finds it ended on its way.
_MARGIN_SECONDS = 10.0

Actions = Literal["pull", "pull,push"]
"""What tokens are asked for: a source is only read."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A header, and the login that it gives away as it is, which ends with it."""

    header: str
    until: float
    login: Login | None = None


class Authorizer:
    """The Authorization headers of one registry.

    Those who need the same header at the same moment share the work for it; different ones are got
    side by side.

    :param session: makes the calls to token services.
    :param host: the registry, for errors.
    :param url: its address: scheme, host and port.
    :param logins: finds credentials.
    :param proxies: lead to token services.
    :param actions: what is done with the registry's repositories.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        host: str,
        url: URL,
        logins: Logins,
        proxies: Proxies,
        actions: Actions = "pull,push",
    ) -> None:
        self._proxies = proxies
        self._session = session
        self._host = host
        self._url = url
        self._logins = logins
        self._actions = actions
        self._challenges: list[Challenge] = []
        self._held: dict[str, _Held] = {}
        # The logins for which a token service has given tokens.
        self._accepted: set[Login | None] = set()
        self._getting: Flights[str, _Held] = Flights()
        self._limit = anyio.CapacityLimiter(_TOKENS_AT_ONCE)

    async def header(self, repository: str, extra: str | None = None) -> str | None:
        """The header for a repository; None until a challenge says what is wanted.

        :param repository: its name; empty for the registry's catalog.
        :param extra: a further repository to read from.
        """
        # A password is good for all that its user may do.
        scope = _scope(repository, extra if self._wants_token() else None, self._actions)
        held = self._held.get(scope)
        if held is not None and held.until > time.monotonic():
            return held.header
        if not self._challenges:
            return None
        return (await self._getting.do(scope, partial(self._get, repository, scope))).header

    def challenged(self, refused: str | None, headers: list[str]) -> bool:
        """Note a 401.

        :param refused: the header that was not accepted, None for none.
        :return: whether it is worth another try.
        """
        challenges = parse_challenges(headers)
        if not challenges:
            return False
        self._challenges = challenges
        for scope, held in list(self._held.items()):
            if held.header == refused:
                del self._held[scope]
                if held.login is not None:
                    self._logins.forget(held.login)
        return True

    def _wants_token(self) -> bool:
        return any(challenge.scheme == "bearer" for challenge in self._challenges)

    async def _get(self, repository: str, scope: str) -> _Held:
        login = await self._logins.find(repository)
        try:
            held = await self._get_with(login, scope)
        except CredentialsError:
            self._logins.forget(login)
            if login not in self._accepted:
                raise
            # It was good once: a helper may have another one by now.
            login = await self._logins.find(repository)
            held = await self._get_with(login, scope)
        self._accepted.add(login)
        self._held[scope] = held
        return held

    async def _get_with(self, login: Login | None, scope: str) -> _Held:
        for challenge in self._challenges:
            if challenge.scheme == "bearer" and "realm" in challenge.params:
                async with self._limit:
                    return await self._fetch(challenge.params, scope, login)
            if challenge.scheme == "basic" and login is not None:
                return _Held(_basic(login), login.until, login)
        if login is None:
            raise CredentialsError(
                "the registry wants credentials, and there are none",
                advice=f"sign in with docker login {self._host}",
                registry=self._host,
            )
        wanted = ", ".join(challenge.scheme for challenge in self._challenges)
        raise CredentialsError(f"the registry wants {wanted}, not known", registry=self._host)

    async def _fetch(self, params: Mapping[str, str], scope: str, login: Login | None) -> _Held:
        """Get a token (distribution, "Token Authentication Specification")."""
        service = params.get("service", "")
        realm = check_realm(params["realm"], self._url, self._host)
        scopes = scope.split(" ")
        try:
            through = self._proxies.of(realm)
            if login is not None and login.identity_token is not None:
                form = {
                    "grant_type": "refresh_token",
                    "service": service,
                    "scope": scope,
                    "refresh_token": login.identity_token,
                    "client_id": "asyncpush",
                }
                answer = self._session.post(realm, data=form, allow_redirects=False, **through)
            else:
                query = [("service", service), *(("scope", s) for s in scopes)]
                headers = {} if login is None else {"Authorization": _basic(login)}
                answer = self._session.get(
                    realm,
                    params=[pair for pair in query if pair[1]],
                    headers=headers,
                    allow_redirects=False,
                    **through,
                )
            async with answer as response:
                return await self._read(response)
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            # ValueError: a host that is no name.
            raise TransientError(
                f"the token service cannot be reached: {type(exc).__name__}",
                advice="check the network and the registry's configuration",
                registry=self._host,
                call="token",
            ) from exc

    async def _read(self, response: aiohttp.ClientResponse) -> _Held:
        where = {"registry": self._host, "call": "token", "status": str(response.status)}
        if response.status == 429 or response.status >= 500:
            throttles = response.status == 429
            kind = ThrottledError if throttles else TransientError
            error = kind(f"the token service {'throttles' if throttles else 'failed'}", **where)
            error.retry_after = retry_after(response.headers.get("Retry-After", ""))
            raise error
        if response.status != 200:
            raise CredentialsError(
                "the token service does not accept the credentials",
                advice=f"sign in again with docker login {self._host}",
                **where,
            )
        token, seconds = await read_token(response, **where)
        margin = min(_MARGIN_SECONDS, seconds / 4)
        return _Held(f"Bearer {token}", time.monotonic() + seconds - margin)


def _scope(repository: str, extra: str | None, actions: Actions) -> str:
    if not repository:
        return "registry:catalog:*"
    scope = f"repository:{repository}:{actions}"
    return f"{scope} repository:{extra}:pull" if extra else scope


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
