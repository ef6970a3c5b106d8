"""The logins of one registry: found once, and used until they are refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Protocol

import anyio.to_thread

from asyncpush.registries.distribution.dockerconfig import (
    ConfigFile,
    Login,
    Place,
    look,
    places_of,
    read_files,
)
from asyncpush.registries.flights import Flights


class Logins(Protocol):
    """Finds the credentials for the repositories of one registry."""

    async def find(self, repository: str) -> Login | None:
        """The credentials for a repository, or None to go without.

        :raises CredentialsError: what should have them does not give them.
        """
        ...

    def forget(self, login: Login | None) -> None:
        """Find credentials anew the next time, since these were refused.

        :param login: what :meth:`find` gave; others that were found since then are kept.
        """
        ...


class DockerLogins:
    """Credentials as docker, podman and skopeo keep them.

    Files are read once, and a helper is asked once for each key, however many repositories need it
    at the same moment.

    :param host: the registry, with its port.
    :param environ: names the files, and is that of the helpers.
    """

    def __init__(self, host: str, environ: Mapping[str, str] | None = None) -> None:
        self._host = host
        self._environ = dict(os.environ if environ is None else environ)
        self._files: list[ConfigFile] | None = None
        self._found: dict[Place, Login | None] = {}
        self._reading: Flights[None, list[ConfigFile]] = Flights()
        self._looking: Flights[Place, Login | None] = Flights()

    async def find(self, repository: str) -> Login | None:
        """See :class:`Logins`."""
        files = self._files
        if files is None:
            files = await self._reading.do(None, self._read)
        for place in places_of(files, self._host, repository):
            if place in self._found:
                login = self._found[place]
            else:
                login = await self._looking.do(place, partial(self._look, place, files))
            if login is not None:
                return login
        return None

    def forget(self, login: Login | None) -> None:
        """See :class:`Logins`."""
        refused = [place for place, found in self._found.items() if found is login]
        for place in refused:
            del self._found[place]
        if refused or login is None:
            # They may have been written since.
            self._files = None

    async def _read(self) -> list[ConfigFile]:
        self._files = await anyio.to_thread.run_sync(read_files, self._environ)
        return self._files

    async def _look(self, place: Place, files: list[ConfigFile]) -> Login | None:
        found = await anyio.to_thread.run_sync(look, place, files, self._environ)
        self._found[place] = found
        return found
