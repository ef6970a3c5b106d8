"""UploadLayerPart: a part goes from the socket into its session's file, and counts once proven."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import IO, Any

from asyncpush.localregistry.call import Call, addressed_registry, find_session
from asyncpush.localregistry.content.uploads import Session
from asyncpush.localregistry.ecr.partbody import PartBody
from asyncpush.localregistry.errors import ApiError, constraint, invalid_parameter
from asyncpush.localregistry.params import UPLOAD_ID, Params
from asyncpush.localregistry.writing.session_writer import SessionWriter, open_writer

_NEEDED = ("repositoryName", "uploadId", "partFirstByte")
_COPY_SIZE = 1024 * 1024


async def upload_layer_part(
    call: Call, pieces: AsyncIterator[bytes], prove: Callable[[str], None], *, proven: bool
) -> dict[str, Any]:
    """Receive one part.

    The members that come before the blob say where its bytes go; where they do not suffice the
    bytes wait in a temporary file. Bytes in the session's file count only once they are
    acknowledged, so whatever fails on the way leaves nothing behind.

    :param pieces: the body, in pieces.
    :param prove: proves the request's signature for the SHA-256 of its body.
    :param proven: whether the signature was proven for a claimed hash already. If not, errors
        wait until it is: what a repository holds is not for strangers.
    """
    body = PartBody(call.services.options.max_part_size)
    # All of a piece's work is done here rather than on a thread: handing it over was measured to
    # cost a tenth more processor time for no more throughput on two cores.
    payload = hashlib.sha256()
    refusal: ApiError | None = None
    async with AsyncExitStack() as stack:
        sink = _Sink(call, stack)
        async for piece in pieces:
            payload.update(piece)
            if refusal is not None:
                continue
            try:
                decoded = body.feed(piece)
                if body.blob_started and not sink.is_open:
                    await sink.open(body.members_so_far())
            except ApiError as exc:
                if proven:
                    raise
                refusal = exc
                continue
            call.record.layer_bytes = body.decoded
            sink.write(decoded)
        prove(payload.hexdigest())
        if refusal is not None:
            raise refusal
        params = Params(body.finish())
        target = await sink.settle(params)
        return await _acknowledge(call, params, target, body.decoded)


class _Sink:
    """Takes the bytes of a part before it is sure, or even known, where they belong."""

    def __init__(self, call: Call, stack: AsyncExitStack) -> None:
        self.is_open = False
        self._call = call
        self._stack = stack
        self._target: SessionWriter | None = None
        self._spool: IO[bytes] | None = None

    async def open(self, members: Mapping[str, Any]) -> None:
        """Choose by the members that came before the blob."""
        self.is_open = True
        if all(members.get(name) is not None for name in _NEEDED):
            self._target = await _open_target(self._call, Params(members), self._stack)
        else:
            # The file has no name, so nothing of it outlives the server.
            folder = self._call.services.files.temporary
            spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the stack closes it
            self._spool = self._stack.enter_context(spool)

    def write(self, decoded: list[bytes]) -> None:
        """Take bytes of the layer."""
        for data in decoded:
            if self._target is not None:
                self._target.write(data)
            elif self._spool is not None:
                self._spool.write(data)

    async def settle(self, params: Params) -> SessionWriter:
        """Bring all bytes to where the call's parameters, now complete, want them.

        :raises ApiError: they cannot go there.
        """
        if self._target is None:
            self._target = await _open_target(self._call, params, self._stack)
            assert self._spool is not None
            self._spool.seek(0)
            while data := self._spool.read(_COPY_SIZE):
                self._target.write(data)
        elif self._call.registry != addressed_registry(self._call, params):
            raise invalid_parameter("registryId must come before layerPartBlob.")
        return self._target


async def _open_target(call: Call, params: Params, stack: AsyncExitStack) -> SessionWriter:
    name = params.repository()
    upload_id = params.text("uploadId", UPLOAD_ID)
    first = params.number("partFirstByte")
    call.record.upload_id = upload_id
    call.address(addressed_registry(call, params), name)
    await call.admit(params.document)
    call.authorize("UploadLayerPart", name)
    services = call.services
    session = await find_session(call, name, upload_id)
    # Parts of one layer are consecutive, so a second call at the same time waits for the first.
    await stack.enter_async_context(session.lock)
    services.uploads.check_open(session)
    if first != session.size:
        raise _not_consecutive(session)
    return await stack.enter_async_context(open_writer(call, session))


async def _acknowledge(
    call: Call, params: Params, target: SessionWriter, length: int
) -> dict[str, Any]:
    session = target.session
    first, last = params.number("partFirstByte"), params.number("partLastByte")
    if last < first:
        raise constraint("partLastByte", f"must have value greater than or equal to {first}")
    if last - first + 1 != length:
        raise _invalid_part(
            session,
            f"The layer part has {length} bytes, which is not the range from {first} to {last}.",
        )
    await target.acknowledge(call)
    return {
        "registryId": session.repository.registry.account,
        "repositoryName": session.repository.name,
        "uploadId": session.id,
        "lastByteReceived": last,
    }


def _not_consecutive(session: Session) -> ApiError:
    return _invalid_part(
        session,
        "The layer part is not consecutive: the last byte that was received is "
        f"{session.size - 1}.",
    )


def _invalid_part(session: Session, message: str) -> ApiError:
    return ApiError(
        "InvalidLayerPartException",
        message,
        registryId=session.repository.registry.account,
        repositoryName=session.repository.name,
        uploadId=session.id,
        lastValidByteReceived=session.size - 1,
    )
