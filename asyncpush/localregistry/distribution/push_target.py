"""Where a push over ``/v2/`` goes: its repository, made if that is wanted, and its addresses."""

from __future__ import annotations

import sqlite3
from urllib.parse import quote

from aiohttp import web

from asyncpush.localregistry.call import Call
from asyncpush.localregistry.content.repositories import (
    Repository,
    create_repository,
    find_repository,
    get_repository,
)
from asyncpush.localregistry.identity import Registry
from asyncpush.localregistry.writing.manifests import FindRepository


def find_target(call: Call) -> FindRepository:
    """Gives the repository of a push, which ``create_on_push`` makes where it is missing."""
    if not call.services.options.distribution.create_on_push:
        return get_repository
    now = call.services.options.clock()

    def find(db: sqlite3.Connection, registry: Registry, name: str) -> Repository:
        repository = find_repository(db, registry, name)
        if repository is None:
            call.authorize("CreateRepository", name)
            repository = create_repository(db, registry, name, now)
        return repository

    return find


def location(request: web.Request, call: Call, *parts: str) -> str:
    """The address of something in a request's repository, for the Location header."""
    path = quote("/".join(("/v2", request.match_info["name"], *parts)), safe="/:")
    if call.services.options.distribution.absolute_locations:
        # The host that the caller knows: there may be a proxy between.
        return f"{request.scheme}://{request.host}{path}"
    return path
