"""Which proxy leads to an address: found once, and not anew on a thread for every request.

aiohttp's own ``trust_env`` also sends the passwords of ``~/.netrc`` to every host that is named
there. Registries get the credentials that were given for them, and no others.
"""

from __future__ import annotations

from typing import TypedDict
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL


class ProxyArguments(TypedDict, total=False):
    """What aiohttp takes for a request through a proxy; nothing for one without."""

    proxy: URL


_NONE: ProxyArguments = {}


class Proxies:
    """The proxies that the environment named when this was made.

    These are ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``, in either case, or what the system
    says.
    """

    def __init__(self) -> None:
        self._addresses = getproxies()
        self._found: dict[tuple[str, str | None], ProxyArguments] = {}

    def of(self, url: URL) -> ProxyArguments:
        """The proxy for an address.

        :raises aiohttp.InvalidURL: the proxy's own address is not one.
        """
        if not self._addresses:
            return _NONE
        key = (url.scheme, url.host)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._find(url)
        return found

    def _find(self, url: URL) -> ProxyArguments:
        address = self._addresses.get(url.scheme)
        if address is None or (url.host is not None and proxy_bypass(url.host)):
            return _NONE
        try:
            proxy = URL(address)
        except ValueError:
            # Its address is not quoted: it may have a password in it.
            raise aiohttp.InvalidURL("of the proxy") from None
        if proxy.scheme in ("https", "wss"):
            return _NONE  # As aiohttp has it: TLS to the proxy itself is not supported everywhere.
        return {"proxy": proxy}
