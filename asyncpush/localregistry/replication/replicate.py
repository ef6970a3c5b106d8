"""Replicating one image: what the destination must allow, and what appears there."""

from __future__ import annotations

import json
import sqlite3

from asyncpush.localregistry.access.policy import Decision, RegistryPolicy
from asyncpush.localregistry.content.images import (
    blobs_of,
    children_of,
    get_image,
    get_tag,
    put_image,
)
from asyncpush.localregistry.content.registries import get_policy
from asyncpush.localregistry.content.repositories import (
    Repository,
    add_layer,
    create_repository,
    find_repository,
    get_repository,
)
from asyncpush.localregistry.errors import ApiError, access_denied
from asyncpush.localregistry.replication.replications import Replication


def replicate(db: sqlite3.Connection, replication: Replication, now: float) -> None:
    """Let an image appear in the destination, with what it needs there, and its tag.

    A tag that is immutable there and points elsewhere stays ("Private image replication",
    considerations: the image is replicated without it). What appears is not replicated on.

    :raises ApiError: the destination does not allow it.
    """
    source = get_repository(db, replication.source, replication.repository)
    target = _target(db, replication, now)
    for digest in _order(db, source, replication.digest):
        _copy(db, source, target, digest, now)
    tag = replication.tag
    if tag is None:
        return
    current = get_tag(db, target, tag)
    if current == replication.digest or (current is not None and target.immutable):
        return
    image = get_image(db, target, replication.digest)
    assert image is not None, "it has just been copied"
    put_image(db, target, image, tag)


def _target(db: sqlite3.Connection, replication: Replication, now: float) -> Repository:
    """The destination's repository, created as ECR does: with settings of no other."""
    found = find_repository(db, replication.destination, replication.repository)
    _allow(db, replication, "ReplicateImage")
    if found is None:
        _allow(db, replication, "CreateRepository")
        found = create_repository(db, replication.destination, replication.repository, now)
    return found


def _allow(db: sqlite3.Connection, replication: Replication, action: str) -> None:
    """Ask the destination's registry policy; within an account nothing is asked.

    :raises ApiError: AccessDeniedException.
    """
    source, destination = replication.source, replication.destination
    if source.account == destination.account:
        return
    text = get_policy(db, destination)
    resource = destination.repository_arn(replication.repository)
    if text is not None:
        policy = RegistryPolicy(json.loads(text))
        if policy.decide(f"ecr:{action}", resource, source.account) is Decision.ALLOWED:
            return
    raise access_denied(f"The registry policy does not allow ecr:{action} on {resource}")


def _order(db: sqlite3.Connection, source: Repository, root: str) -> list[str]:
    """The manifests of an image, children before their index."""
    order: dict[str, None] = {}
    stack = [root]
    while stack:
        missing = [c for c in children_of(db, source, stack[-1]) if c not in order]
        if missing:
            stack += missing
        else:
            order[stack.pop()] = None
    return list(order)


def _copy(
    db: sqlite3.Connection, source: Repository, target: Repository, digest: str, now: float
) -> None:
    if get_image(db, target, digest) is not None:
        return
    image = get_image(db, source, digest)
    if image is None:
        raise ApiError("ImageNotFoundException", f"{digest} is no longer in {source.name}")
    blobs = blobs_of(db, source, digest)
    for blob in blobs:
        # Bytes have one place for all registries; belonging to a repository is what is copied.
        add_layer(db, target, blob)
    children = children_of(db, source, digest)
    put_image(db, target, image.arrived(now, children, blobs), None)
