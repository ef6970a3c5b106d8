"""The operations on account settings, of which BLOB_MOUNTING is there."""

from __future__ import annotations

from typing import Any

from asyncpush.localregistry.call import Call
from asyncpush.localregistry.content.settings import (
    BLOB_MOUNTING,
    DISABLED,
    ENABLED,
    mounts_blobs,
    put_setting,
)
from asyncpush.localregistry.content.store import Database
from asyncpush.localregistry.errors import invalid_parameter
from asyncpush.localregistry.params import Params


async def put(call: Call, params: Params) -> dict[str, Any]:
    """PutAccountSetting."""
    name = _name(params)
    value = params.text("value")
    call.authorize("PutAccountSetting")
    if value not in (ENABLED, DISABLED):
        raise invalid_parameter(f"The value of {name} must be {ENABLED} or {DISABLED}.")

    def work(db: Database) -> None:
        with db.transaction() as connection:
            put_setting(connection, call.registry, name, value)

    await call.services.store.run(work)
    return {"name": name, "value": value}


async def get(call: Call, params: Params) -> dict[str, Any]:
    """GetAccountSetting."""
    name = _name(params)
    call.authorize("GetAccountSetting")
    default = call.services.options.distribution.blob_mounting

    def work(db: Database) -> bool:
        with db.transaction() as connection:
            return mounts_blobs(connection, call.registry, default=default)

    enabled = await call.services.store.run(work)
    return {"name": name, "value": ENABLED if enabled else DISABLED}


def _name(params: Params) -> str:
    name = params.text("name", most=64)
    if name != BLOB_MOUNTING:
        raise invalid_parameter(f"The local registry has no account setting but {BLOB_MOUNTING}.")
    return name
