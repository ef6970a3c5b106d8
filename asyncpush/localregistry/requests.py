"""What both APIs do with a request: read its body within bounds, answer, record, drop."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate

from aiohttp import ClientError, web

from asyncpush.localregistry.call import Arrival, Services
from asyncpush.localregistry.calls import CallRecord
from asyncpush.localregistry.errors import ApiError, server_exception
from asyncpush.localregistry.faults import ConnectionDroppedError

logger = logging.getLogger("asyncpush.localregistry")


async def read_pieces(request: web.Request, idle: float, most: int) -> AsyncIterator[bytes]:
    """A request's body, in pieces as they come.

    :param idle: seconds without a byte after which the connection is cut, up to twice as many.
    :param most: bytes that the body may have.
    :raises ApiError: the body is larger.
    :raises ConnectionDroppedError: nothing came for too long, or the client is gone.
    """
    received = 0
    deadline = _IdleTimer(request, idle)
    try:
        while not request.content.at_eof():
            deadline.waiting = True
            try:
                piece, _ = await request.content.readchunk()
            except (ConnectionError, ClientError, web.RequestPayloadError) as exc:
                raise ConnectionDroppedError from exc
            finally:
                deadline.waiting = False
                deadline.reads += 1
            received += len(piece)
            if received > most:
                raise ApiError("RequestEntityTooLargeException", "Request body is too large", 413)
            if piece:
                yield piece
    finally:
        deadline.cancel()


def has_body(request: web.Request) -> bool:
    """Whether a request has a body that is not empty, as far as its headers tell."""
    return request.body_exists


class _IdleTimer:
    """Cuts a connection if the same read waited for it at two looks in a row.

    One timer for a request costs nothing for a piece of its body; a time-out around each read
    costs a tenth of the time that the piece takes in all.
    """

    def __init__(self, request: web.Request, seconds: float) -> None:
        self.waiting = False
        self.reads = 0
        self._seen = -1
        self._request = request
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(seconds, self._look)

    def cancel(self) -> None:
        """Look no more."""
        self._handle.cancel()

    def _look(self) -> None:
        if self.waiting and self.reads == self._seen:
            _drop(self._request)
        self._seen = self.reads
        self._handle = self._loop.call_later(self._seconds, self._look)


async def answer(
    services: Services,
    request: web.Request,
    action: str,
    work: Callable[[Arrival], Awaitable[web.StreamResponse]],
    fail: Callable[[ApiError], web.StreamResponse],
) -> web.StreamResponse:
    """Count, record and answer one request.

    :param action: its name in the call log.
    :param work: acts and makes the answer.
    :param fail: makes the answer from an error.
    """
    options = services.options
    record = CallRecord(time=options.clock(), action=action, request_id=str(uuid.uuid4()))
    arrival = Arrival(record, services.calls.begin(action))
    try:
        try:
            response = await work(arrival)
        except ApiError as exc:
            record.error = exc.code
            response = fail(exc)
        if arrival.fault is not None and arrival.fault.drop == "after":
            raise ConnectionDroppedError
        record.status = response.status
    except ConnectionDroppedError:
        record.error = "ConnectionDropped"
        response = _drop(request)
    except Exception as exc:
        # Whatever it is concerns this call alone; the server goes on.
        logger.exception("%s failed, request id %s", action, record.request_id)
        record.error = type(exc).__name__
        response = fail(server_exception())
        record.status = response.status
    finally:
        services.calls.end(record)
    if options.log_requests:
        logger.info("%s %s %s", record.status, action, record.error or "")
    response.headers["x-amzn-RequestId"] = record.request_id
    response.headers["Date"] = formatdate(options.clock(), usegmt=True)
    return response


def _drop(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)  # nobody is there to read it
