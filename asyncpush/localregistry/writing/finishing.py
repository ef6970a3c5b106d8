"""The end of an upload session, by either API: its digest is proven and it becomes a layer."""

from __future__ import annotations

from collections.abc import Sequence

from asyncpush.localregistry.call import Call
from asyncpush.localregistry.content.uploads import Session
from asyncpush.localregistry.errors import ApiError


def check_digest(session: Session, found: str, wanted: Sequence[str]) -> None:
    """Check the digest that was computed against those that the caller names.

    :raises ApiError: InvalidLayerException.
    """
    if found not in wanted:
        raise ApiError(
            "InvalidLayerException",
            f"Layer digest '{wanted[0]}' does not match the digest '{found}' that was "
            f"computed for the upload with id '{session.id}'",
        )


def check_not_empty(session: Session) -> None:
    """Check that anything was uploaded.

    :raises ApiError: EmptyUploadException.
    """
    if not session.size:
        raise ApiError(
            "EmptyUploadException",
            f"The upload with id '{session.id}' does not contain any layer parts.",
        )


def check_parts(session: Session, least: int) -> None:
    """Check that no part but the last was too small.

    :param least: bytes of the smallest part, for the message.
    :raises ApiError: LayerPartTooSmallException.
    """
    if session.small_part:
        raise ApiError(
            "LayerPartTooSmallException",
            f"Layer parts must be at least {least} bytes in size, except for the last one.",
        )


async def finish_upload(call: Call, session: Session, digests: Sequence[str]) -> tuple[str, bool]:
    """Make a session's bytes a layer of its repository; the caller holds the session's lock.

    :return: its digest, and whether the layer is new to the repository.
    :raises ApiError: InvalidLayerException.
    """
    services = call.services
    hasher = await services.uploads.hasher_of(session)
    found = f"sha256:{hasher.hexdigest()}"
    check_digest(session, found, digests)
    size = session.size
    added = await services.store.run(lambda db: services.uploads.finish(db, session, found))
    if not added:
        services.calls.counters.layer_bytes_duplicate += size
    return found, added
