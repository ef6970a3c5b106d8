"""One request to a distribution registry: authorized, redirected, its failures typed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from asyncpush.errors import RegistryError
from asyncpush.registries.distribution.auth import Authorizer
from asyncpush.registries.distribution.errors import lost
from asyncpush.registries.distribution.ratelimit import RateLimit, rate_limit_of
from asyncpush.registries.proxies import Proxies

_MOST_REDIRECTS = 5
# aiohttp's message of a connection that could not be made holds host and port, no secret.
LOST = (aiohttp.ClientError, TimeoutError, OSError)
"""What a connection that broke, or never came to be, raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a registry is reached.

    :param host: what people call it, for errors.
    :param url: scheme, host and port.
    """

    host: str
    url: URL


class Asker:
    """Makes requests to one registry.

    :param session: its connections.
    :param authorizer: gives the headers that it asks for.
    :param proxies: lead to it, and to where it redirects.
    :param source: whether it is a source, for errors.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        authorizer: Authorizer,
        proxies: Proxies,
        *,
        source: bool,
    ) -> None:
        self.session = session
        self.endpoint = endpoint
        self.authorizer = authorizer
        self._proxies = proxies
        self._source = source
        self.rate_limit: RateLimit | None = None
        """What the registry last said of its rate limit; None where it says nothing."""

    @contextlib.asynccontextmanager
    async def ask(
        self,
        method: str,
        url: URL,
        call: str,
        repository: str,
        headers: Mapping[str, str] = {},
        body: Callable[[], Any] | None = None,
        source: str | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a request, authorized, redirected where that is asked; at most two tries of a 401.

        :param call: what is asked, as ``PUT manifest``, for errors.
        :param repository: what it is about; empty for the registry as a whole.
        :param body: makes the body, once for each time that it is sent.
        :param source: a further repository that is read from.
        :raises RegistryError: the connection failed.
        """
        tried = False
        redirects = 0
        while True:
            own = _same_place(url, self.endpoint.url)
            token = await self.authorizer.header(repository, source) if own else None
            sent = {**headers, **({"Authorization": token} if token else {})}
            try:
                async with self.session.request(
                    method,
                    url,
                    headers=sent,
                    data=body() if body else None,
                    allow_redirects=False,
                    **self._proxies.of(url),
                ) as answer:
                    if own:
                        self.rate_limit = rate_limit_of(answer.headers) or self.rate_limit
                    challenges = answer.headers.getall("WWW-Authenticate", [])
                    if answer.status == 401 and own and not tried:
                        tried = True
                        if self.authorizer.challenged(token, challenges):
                            continue
                    if answer.status in (301, 302, 307, 308) and redirects < _MOST_REDIRECTS:
                        redirects += 1
                        # Another host gets no credentials of this one.
                        url = self.location(answer)
                        continue
                    yield answer
                    return
            except (*LOST, ValueError) as exc:  # ValueError: a host whose name is none
                raise lost(exc, call, **self.where(repository)) from exc

    def location(self, answer: aiohttp.ClientResponse) -> URL:
        """Where an answer points: relative or absolute.

        :raises RegistryError: it points nowhere.
        """
        location = answer.headers.get("Location")
        if not location:
            raise RegistryError(
                "the registry's answer lacks its Location", registry=self.endpoint.host
            )
        try:
            return answer.url.join(URL(location))
        except ValueError as exc:
            # It is not quoted: a storage's address has a signature in it.
            raise RegistryError(
                "the registry's answer has a Location that is no address",
                registry=self.endpoint.host,
            ) from exc

    def url(self, repository: str, *parts: str) -> URL:
        """The address of a part of a repository; with an empty one, of the registry."""
        path = "/".join(("v2", *filter(None, (repository,)), *parts))
        return self.endpoint.url.with_path(f"/{path}")

    def where(self, repository: str) -> dict[str, str]:
        """The repository, for errors."""
        if not repository:
            return {"registry": self.endpoint.host}
        place = f"{self.endpoint.host}/{repository}"
        return {"source": f"docker://{place}"} if self._source else {"repository": place}


def _same_place(url: URL, other: URL) -> bool:
    return (url.scheme, url.host, url.port) == (other.scheme, other.host, other.port)
