"""The calls to one bucket: small objects, sizes, one listing, and the bytes of large objects."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from asyncpush.errors import (
    AccessDeniedError,
    BlobMissingError,
    ContentError,
    LimitError,
    TransientError,
)
from asyncpush.sources.patience import patiently
from asyncpush.sources.s3.errors import translating_s3

PIECE = 256 * 1024
"""The most bytes of an object that are given at a time."""
MOST_LISTED = 10_000
"""The most keys that one listing takes: ten calls, and 3 MB of memory. What is behind them is asked
for one by one, when it is needed."""

_PAGE = 1000  # S3, ListObjectsV2: MaxKeys
_TOTAL = re.compile(r"bytes ([0-9]+)-[0-9]+/([0-9]+)")


@dataclass(frozen=True, slots=True)
class Found:
    """An object that is there: its size in bytes, and what S3 tells its versions apart by."""

    size: int
    etag: str | None


class Bucket:
    """One bucket, through a client without retries of its own.

    Only :meth:`stream` is one try; all else is tried again.

    :param client: an aiobotocore S3 client.
    """

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self._client = client
        self._partition = str(client.meta.partition)

    def address(self, key: str) -> str:
        """What people call an object."""
        return f"s3://{self.name}/{key}"

    async def whole(self, key: str, most: int) -> bytes:
        """All bytes of a small object.

        :raises LimitError: it has more than ``most``.
        :raises BlobMissingError: it is not there.
        """

        async def once() -> bytes:
            async with self._body("GetObject", key) as (answer, pieces):
                if answer["ContentLength"] > most:
                    raise LimitError(
                        f"the object has {answer['ContentLength']:,} bytes, at most {most:,}"
                        " are read",
                        file=self.address(key),
                    )
                return b"".join([piece async for piece in pieces])

        return await patiently(once)

    async def span(
        self, key: str, offset: int, size: int, etag: str | None = None
    ) -> tuple[bytes, Found]:
        """Bytes of an object, and how large it is as a whole; fewer bytes only at its end.

        :param etag: what it was before; None for whatever it is.
        :raises ContentError: it changed, or ``offset`` is behind its end.
        """

        async def once() -> tuple[bytes, Found]:
            match = {} if etag is None else {"IfMatch": etag}
            reach = f"bytes={offset}-{offset + size - 1}"
            async with self._body("GetObject", key, Range=reach, **match) as (answer, pieces):
                total = self._check_range(answer, key, offset)
                data = b"".join([piece async for piece in pieces])
                return data, Found(total, answer.get("ETag"))

        return await patiently(once)

    async def find(self, key: str) -> Found | None:
        """An object's size; None if it is not there."""

        async def once() -> Found | None:
            with self._translating("HeadObject", key):
                answer = await self._client.head_object(Bucket=self.name, Key=key)
            return Found(int(answer["ContentLength"]), answer.get("ETag"))

        try:
            return await patiently(once)
        except BlobMissingError:
            return None

    async def listing(self, prefix: str) -> tuple[dict[str, Found], bool]:
        """The first objects below a prefix, by their keys behind it.

        :return: at most :data:`MOST_LISTED` objects, and whether these are all. A principal that
            may not list gets none of them, and the answer that there may be more.
        """
        found: dict[str, Found] = {}
        token: str | None = None

        async def once() -> Any:
            more = {} if token is None else {"ContinuationToken": token}
            with self._translating("ListObjectsV2", prefix):
                return await self._client.list_objects_v2(
                    Bucket=self.name, Prefix=prefix, MaxKeys=_PAGE, **more
                )

        # A service whose pages never end is left after as many as that, too.
        for _ in range(MOST_LISTED // _PAGE):
            try:
                page = await patiently(once)
            except AccessDeniedError:
                # Reading takes s3:GetObject alone, and sizes can be had with it.
                return found, False
            for item in page.get("Contents", ()):
                key = str(item["Key"]).removeprefix(prefix)
                found[key] = Found(int(item["Size"]), item.get("ETag"))
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or token is None:
                return found, True
        return found, False

    @contextlib.asynccontextmanager
    async def stream(
        self, key: str, offset: int, size: int, etag: str | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """``size`` bytes of an object from an offset on, in pieces; one try.

        :raises TransientError: the connection broke, timed out or was throttled.
        :raises ContentError: the object is not what it was, is archived, or is not there.
        """
        if size == 0:
            yield _Nothing()  # S3 refuses a range without bytes.
            return
        match = {} if etag is None else {"IfMatch": etag}
        reach = f"bytes={offset}-{offset + size - 1}"
        async with self._body("GetObject", key, Range=reach, **match) as (answer, pieces):
            self._check_range(answer, key, offset)
            if answer["ContentLength"] != size:
                raise ContentError(
                    f"S3 gives {answer['ContentLength']:,} bytes from byte {offset:,} on,"
                    f" not {size:,}",
                    advice="push again when nothing writes to it",
                    file=self.address(key),
                )
            yield pieces

    @contextlib.asynccontextmanager
    async def _body(
        self, call: str, key: str, **how: str
    ) -> AsyncIterator[tuple[Any, AsyncIterator[bytes]]]:
        with self._translating(call, key):
            answer = await self._client.get_object(Bucket=self.name, Key=key, **how)
        body = answer["Body"]
        try:
            yield answer, _Pieces(self, body, key, int(answer["ContentLength"]))
        finally:
            # Keeps the connection where all has been read.
            body.close()

    def _check_range(self, answer: Any, key: str, offset: int) -> int:
        """The object's whole size, out of an answer that begins at the byte that was asked for."""
        found = _TOTAL.match(answer.get("ContentRange") or "")
        if found is None or int(found[1]) != offset:
            raise ContentError(
                f"the endpoint does not give the range from byte {offset:,} on",
                advice="check AWS_ENDPOINT_URL_S3: S3 and its like read by ranges",
                file=self.address(key),
            )
        return int(found[2])

    def _translating(self, call: str, key: str) -> contextlib.AbstractContextManager[None]:
        return translating_s3(call, self.name, key, self._partition)

    async def piece(self, body: Any, key: str, left: int) -> bytes:
        """The next bytes of an answer.

        :param left: how many are to come.
        :raises TransientError: it ends too soon.
        """
        with self._translating("GetObject", key):
            data: bytes = await body.read(min(PIECE, left))
        if not data:
            raise TransientError(
                f"the connection broke with {left:,} bytes to come",
                advice="push again",
                call="GetObject",
                file=self.address(key),
            )
        return data


class _Pieces:
    """An answer's bytes. No generator: one that is left before its end would need closing."""

    def __init__(self, bucket: Bucket, body: Any, key: str, size: int) -> None:
        self._bucket = bucket
        self._body = body
        self._key = key
        self._left = size

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._left <= 0:
            raise StopAsyncIteration
        data = await self._bucket.piece(self._body, self._key, self._left)
        self._left -= len(data)
        return data


class _Nothing:
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration
