"""Mounting: whether a blob of one repository may become a layer of another without an upload."""

from __future__ import annotations

import sqlite3

from asyncpush.localregistry.call import Call
from asyncpush.localregistry.content.images import is_referenced
from asyncpush.localregistry.content.repositories import (
    Repository,
    add_layer,
    find_repository,
    layer_sizes,
)
from asyncpush.localregistry.content.settings import mounts_blobs

MOUNTED = "mounted"


def mount(
    db: sqlite3.Connection, call: Call, target: Repository, digest: str, source: str | None
) -> str:
    """Make a blob of another repository of the same registry a layer of the target.

    :param source: name of the other repository.
    :return: ``mounted``, or why it was refused; a refusal is no error, the caller uploads then.
    """
    reason = _switched_off(db, call)
    if reason is None:
        reason = _refused(db, call, target, digest, source)
    if reason is None:
        add_layer(db, target, digest)
    return reason or MOUNTED


def _switched_off(db: sqlite3.Connection, call: Call) -> str | None:
    options = call.services.options.distribution
    if options.mounting == "off":
        return "off"
    default = options.blob_mounting
    if options.mounting == "ecr" and not mounts_blobs(db, call.registry, default=default):
        return "off for the account"
    return None


def _refused(
    db: sqlite3.Connection, call: Call, target: Repository, digest: str, source: str | None
) -> str | None:
    if source is None:
        return "no source"
    if not call.allows("GetDownloadUrlForLayer", source):
        return "no permission"
    repository = find_repository(db, call.registry, source)
    if repository is None or not layer_sizes(db, repository, [digest]):
        return "no such blob"
    if call.services.options.distribution.mounting == "ecr":
        if repository.encryption != target.encryption:
            return "other encryption"
        if not is_referenced(db, repository, digest):
            # aws/containers-roadmap 2860: a blob that is merely there is refused.
            return "not referenced"
    return None
