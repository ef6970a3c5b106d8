"""The HTTP session of AWS clients: aiobotocore's, with answers that end."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession

from asyncpush.errors import UnexpectedAnswerError
from asyncpush.plan.limits import MIB

MOST_ANSWER_BYTES = 32 * MIB
"""Bytes of one answer. The largest that ECR gives are manifests, a hundred in a call; a call fails
whose manifests are larger than this in all."""


class _BoundedResponse(aiohttp.ClientResponse):
    """An answer that is read up to a bound; aiohttp's own reads an endless one for ever."""

    async def read(self) -> bytes:
        """The whole body.

        :raises UnexpectedAnswerError: it is larger than the bound.
        """
        if self._body is None:
            try:
                self._body = await self._bounded()
            except BaseException:
                # As aiohttp's own: a connection that broke, or was left, is none to keep.
                self.close()
                raise
        return await super().read()

    async def _bounded(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async for piece in self.content.iter_any():
            pieces.append(piece)
            size += len(piece)
            if size > MOST_ANSWER_BYTES:
                raise UnexpectedAnswerError(
                    f"the answer is larger than {MOST_ANSWER_BYTES // MIB} MiB",
                    advice="check that the endpoint is ECR's",
                )
        return b"".join(pieces)


class BoundedSession(AIOHTTPSession):  # type: ignore[misc]
    """aiobotocore's session over aiohttp, with a bound on what one answer may hold in memory."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)
        # aiobotocore has no public way to choose the class.
        session._response_class = _BoundedResponse  # noqa: SLF001
        return session
