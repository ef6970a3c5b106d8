"""Faults on demand: what a test can make any call meet, and how a call meets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import anyio

from asyncpush.localregistry.errors import ApiError


@dataclass(frozen=True, slots=True)
class CallInfo:
    """A call that is about to act.

    ``params`` has what is known of its parameters: for UploadLayerPart the members that came
    before the blob. ``number`` counts the calls of this action from 1.
    """

    action: str
    account: str
    region: str
    repository: str | None
    params: Mapping[str, Any]
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a call is to meet; the members combine, ``delay`` comes first.

    ``delay`` is in seconds. ``code`` answers an error instead of acting. ``drop`` cuts the
    connection before the call acts, in the middle of a chunk that comes over ``/v2/``, or after
    the call has acted, so that its answer is lost.
    """

    delay: float = 0
    code: str | None = None
    message: str = "Injected fault"
    status: int = 400
    drop: Literal["before", "during", "after"] | None = None

    async def meet(self) -> None:
        """Wait, fail or cut the connection, as the fault says; to be called before acting.

        :raises ApiError: the error to answer.
        :raises ConnectionDroppedError: the connection is to be cut.
        """
        if self.delay > 0:
            await anyio.sleep(self.delay)
        if self.drop == "before":
            raise ConnectionDroppedError
        if self.code is not None:
            raise ApiError(self.code, self.message, self.status)


class ConnectionDroppedError(Exception):
    """The connection is to be cut without an answer."""
