"""A blob that comes from elsewhere, read by one upload: breaks, proof, parts in memory."""

from __future__ import annotations

import os
import random

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from origins import Scripted

from asyncpush.engine.events import CallRetried, Event
from asyncpush.engine.reading.calls import SourceCalls
from asyncpush.engine.reading.reader import RemoteReader, open_remote
from asyncpush.engine.reading.reads import Reads
from asyncpush.errors import (
    AccessDeniedError,
    DigestMismatchError,
    LimitError,
    SourceError,
    ThrottledError,
    TransientError,
)
from asyncpush.oci.remote import RemoteBlob
from asyncpush.registries.content import read_manifest

pytestmark = pytest.mark.anyio

KIB, MIB = 1024, 1024 * 1024


def reads_of(memory: int = 64 * MIB, attempts: int = 4, events: list[Event] | None = None) -> Reads:
    emit = (lambda _: None) if events is None else events.append
    return Reads(SourceCalls(attempts, 0.001, 0.002, emit), memory, anyio.CapacityLimiter(2))


async def read_all(
    reader: RemoteReader, size: int, offset: int = 0, most: int = 100 * MIB
) -> bytes:
    """All bytes from an offset on, as a body asks for them."""
    found = bytearray()
    while offset + len(found) < size:
        found += await reader.read(offset + len(found), most)
    return bytes(found)


async def read_parts(reader: RemoteReader, size: int, length: int, offset: int = 0) -> bytes:
    """The same, a part at a time."""
    found = bytearray()
    while offset < size:
        count = min(length, size - offset)
        async with reader.part(offset, count) as part:
            for _ in range(2):
                buffer = memoryview(bytearray(count))
                part.read_into(buffer, offset)
            found += buffer
        offset += count
    return bytes(found)


def assert_clean(reads: Reads, *origins: Scripted) -> None:
    """No connection is open, and what is held is what is kept for later."""
    assert not any(origin.open for origin in origins)
    assert reads.pool.used == sum(size for size, _ in reads.pool._idle.values())


class Cuts:
    """Breaks connections at random bytes."""

    def __init__(self, seed: int, chance: float) -> None:
        self._rng, self._chance = random.Random(seed), chance
        self.breaks = 0

    async def __call__(self, offset: int) -> None:
        await anyio.lowlevel.checkpoint()
        if self._rng.random() < self._chance:
            self.breaks += 1
            raise TransientError("the connection broke")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("parts", [False, True])
async def test_connections_that_break_anywhere_cost_no_byte(seed: int, parts: bool) -> None:
    cuts = Cuts(seed, 0.2)
    origin = Scripted(before=cuts, rng=random.Random(seed), piece=200 * KIB)
    blob = origin.hold(os.urandom(3 * MIB + seed))
    reads = reads_of(memory=1 * MIB)
    async with open_remote(reads, blob, "a") as reader:
        if parts:
            found = await read_parts(reader, blob.size, 700_001)
        else:
            found = await read_all(reader, blob.size, most=65537)
    assert found == origin.blobs[blob.digest]
    assert cuts.breaks > 0
    assert origin.given == blob.size  # nothing is read twice
    assert_clean(reads, origin)


@given(st.integers(0, 300_000), st.integers(1, 90_000), st.integers(1, 90_000), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_blob_is_itself_in_whatever_pieces(size: int, piece: int, most: int, parts: bool) -> None:
    async def check() -> None:
        origin = Scripted(piece=piece)
        blob = origin.hold(os.urandom(size))
        reads = reads_of(memory=MIB)
        async with open_remote(reads, blob, "a") as reader:
            read = read_parts(reader, size, most) if parts else read_all(reader, size, most=most)
            assert await read == origin.blobs[blob.digest]
        assert_clean(reads, origin)

    anyio.run(check)


@pytest.mark.parametrize("size", [1, 1000, 3 * MIB])
async def test_the_last_byte_of_wrong_content_is_never_given(size: int) -> None:
    origin = Scripted(piece=300 * KIB)
    blob = origin.hold(os.urandom(size))
    wrong = bytearray(origin.blobs[blob.digest])
    wrong[size // 2] ^= 1
    origin.blobs[blob.digest] = bytes(wrong)
    reads = reads_of()
    found = 0

    async def read() -> None:
        nonlocal found
        async with open_remote(reads, blob, "a") as reader:
            while found < size:
                found += len(await reader.read(found, size))

    with pytest.raises(DigestMismatchError, match="content has the digest") as caught:
        await read()
    assert found <= size - 1
    assert caught.value.where == {"digest": blob.digest, "source": origin.name}
    assert_clean(reads, origin)


@pytest.mark.parametrize(
    ("given", "says", "message"),
    [
        (1000, 1001, "the source gave 1000 bytes, the descriptor says 1001"),
        (0, 7, "the source gave 0 bytes, the descriptor says 7"),
        (200 * KIB, 100 * KIB, "the source gave more than 102400 bytes"),
        (5 * MIB, 5 * MIB - 1, "the source gave more than 5242879 bytes"),
        (5 * MIB, 5 * MIB + 1, "the source gave 5242880 bytes"),
    ],
)
async def test_a_size_that_is_not_the_descriptors_is_said_at_once(
    given: int, says: int, message: str
) -> None:
    origin = Scripted()
    blob = origin.hold(os.urandom(given), size=says)
    reads = reads_of()
    with pytest.raises(DigestMismatchError, match=message) as caught:
        async with open_remote(reads, blob, "a") as reader:
            await read_all(reader, says)
    assert caught.value.where == {"digest": blob.digest, "source": origin.name}
    assert len(origin.offsets) == 1
    assert_clean(reads, origin)


async def test_an_empty_blob_is_proven_without_asking() -> None:
    origin = Scripted()
    async with open_remote(reads_of(), origin.hold(b""), "a"):
        pass
    wrong = RemoteBlob(origin.hold(b"x").digest, 0, origin)
    with pytest.raises(DigestMismatchError):
        async with open_remote(reads_of(), wrong, "a"):
            pass
    assert origin.offsets == []


async def test_a_source_that_never_gives_anything_is_given_up() -> None:
    origin = Scripted(refuse=[TransientError("HTTP 503", registry="source.test")] * 9)
    blob = origin.hold(b"data")
    events: list[Event] = []
    with pytest.raises(SourceError, match="stopped sending at byte 0: HTTP 503") as caught:
        async with open_remote(reads_of(events=events), blob, "a") as reader:
            await reader.read(0, 4)
    assert not isinstance(caught.value, TransientError)
    assert caught.value.where["source"] == origin.name
    assert caught.value.where["digest"] == blob.digest
    assert caught.value.where["attempts"] == "4"
    assert len(origin.refuse) == 5
    assert [type(event) for event in events] == [CallRetried] * 3


async def test_an_origin_that_has_tried_often_enough_is_not_tried_again() -> None:
    tried = [TransientError("HTTP 503").at(attempts="8") for _ in range(3)]
    origin = Scripted(refuse=[*tried])
    blob = origin.hold(b"data")
    with pytest.raises(SourceError) as caught:
        async with open_remote(reads_of(), blob, "a") as reader:
            await reader.read(0, 4)
    assert caught.value.where["attempts"] == "8"
    assert len(origin.refuse) == 2


async def test_connections_that_break_without_progress_are_given_up() -> None:
    given = 0

    async def one_byte(offset: int) -> None:
        nonlocal given
        given += 1
        if given % 2 == 0:
            raise TransientError("the connection broke")

    origin = Scripted(piece=1, before=one_byte)
    blob = origin.hold(bytes(1000))
    with pytest.raises(SourceError, match="stopped sending at byte 4: the connection broke"):
        async with open_remote(reads_of(attempts=4), blob, "a") as reader:
            await read_all(reader, 1000)
    assert origin.given == 4


async def test_a_throttled_source_is_waited_for_as_long_as_it_asks() -> None:
    throttled = ThrottledError("HTTP 429")
    throttled.retry_after = 0.3
    origin = Scripted(refuse=[throttled])
    blob = origin.hold(b"data")
    begin = anyio.current_time()
    async with open_remote(reads_of(attempts=1), blob, "a") as reader:
        assert await reader.read(0, 9) == b"data"
    assert anyio.current_time() - begin >= 0.3


async def test_an_error_of_the_source_is_named_and_not_tried_again() -> None:
    origin = Scripted(refuse=[AccessDeniedError("denied", call="GET blob")] * 2)
    blob = origin.hold(b"data")
    with pytest.raises(AccessDeniedError) as caught:
        async with open_remote(reads_of(), blob, "a") as reader:
            await reader.read(0, 4)
    assert caught.value.where["source"] == origin.name
    assert len(origin.refuse) == 1


async def test_taken_up_in_the_middle_only_the_rest_is_read() -> None:
    origin = Scripted()
    blob = origin.hold(os.urandom(MIB))
    reads = reads_of()
    async with open_remote(reads, blob, "a") as reader:
        assert await read_all(reader, MIB, 700_000) == origin.blobs[blob.digest][700_000:]
    assert (origin.offsets, origin.given) == ([700_000], MIB - 700_000)
    assert_clean(reads, origin)


async def test_a_target_that_wants_bytes_again_gets_them_from_its_byte_on() -> None:
    """And content that is wrong behind that is still found."""
    for wrong in (False, True):
        origin = Scripted()
        blob = origin.hold(os.urandom(9 * MIB))
        if wrong:
            good = origin.blobs[blob.digest]
            origin.blobs[blob.digest] = good[:-1] + bytes([good[-1] ^ 1])
        reads = reads_of(memory=1 * MIB)
        async with open_remote(reads, blob, "a") as reader:
            found = 0
            while found < 6 * MIB:
                found += len(await reader.read(found, MIB))
            if wrong:
                with pytest.raises(DigestMismatchError):
                    await read_all(reader, blob.size, 5 * MIB)
            else:
                rest = await read_all(reader, blob.size, 5 * MIB)
                assert rest == origin.blobs[blob.digest][5 * MIB :]
        assert origin.offsets == [0, 5 * MIB]
        assert_clean(reads, origin)


async def test_a_target_that_has_more_than_was_read_gets_what_follows() -> None:
    origin = Scripted()
    blob = origin.hold(os.urandom(2 * MIB))
    async with open_remote(reads_of(), blob, "a") as reader:
        await reader.read(0, 1000)
        assert await read_all(reader, blob.size, MIB) == origin.blobs[blob.digest][MIB:]
    assert origin.offsets == [0, MIB]


async def test_a_part_that_is_sent_again_is_not_read_again() -> None:
    origin = Scripted()
    blob = origin.hold(os.urandom(20 * MIB))
    reads = reads_of(memory=8 * MIB)
    async with open_remote(reads, blob, "a") as reader:
        assert await read_parts(reader, blob.size, 6 * MIB) == origin.blobs[blob.digest]
    assert origin.given == blob.size
    assert_clean(reads, origin)


async def test_parts_in_memory_are_as_many_as_the_memory_takes() -> None:
    reads = reads_of(memory=10 * MIB)
    origin = Scripted()
    most = 0

    async def upload(blob: RemoteBlob) -> None:
        nonlocal most
        async with open_remote(reads, blob, "a") as reader:
            for offset in (0, 4 * MIB):
                async with reader.part(offset, 4 * MIB):
                    most = max(most, reads.pool.used)
                    await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        for _ in range(9):
            tasks.start_soon(upload, origin.hold(os.urandom(8 * MIB)))
    assert most == 8 * MIB
    assert origin.given == 9 * 8 * MIB
    assert_clean(reads, origin)


@pytest.mark.parametrize("parts", [False, True])
async def test_cancelled_at_any_moment_nothing_stays_behind(parts: bool) -> None:
    """Each step of the loop is a moment at which the upload may be cancelled."""
    origin = Scripted(piece=200 * KIB)
    data = os.urandom(2 * MIB)
    ended = step = 0
    while not ended:
        step += 1
        reads = reads_of(memory=4 * MIB)
        blob = origin.hold(data)
        with anyio.CancelScope() as scope:

            async def cancel(after: int, scope: anyio.CancelScope) -> None:
                for _ in range(after):
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                scope.cancel()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel, step, scope)
                async with open_remote(reads, blob, "a") as reader:
                    if parts:
                        await read_parts(reader, blob.size, MIB)
                    else:
                        await read_all(reader, blob.size)
                    ended = 1
        assert_clean(reads, origin)
        assert not reads.pool._waiting
    assert step > 20


async def test_a_manifest_is_read_whole_and_proven() -> None:
    origin = Scripted(piece=3)
    blob = origin.hold(b'{"schemaVersion": 2}')
    assert await read_manifest(blob, blob.digest) == b'{"schemaVersion": 2}'
    assert await reads_of().manifest(blob, blob.digest) == b'{"schemaVersion": 2}'
    for size in (19, 21):
        with pytest.raises(DigestMismatchError):
            await read_manifest(RemoteBlob(blob.digest, size, origin), blob.digest)
    other = origin.hold(b"{}")
    origin.blobs[other.digest] = b"[]"
    with pytest.raises(DigestMismatchError):
        await read_manifest(other, other.digest)
    given = origin.given
    with pytest.raises(LimitError):
        await read_manifest(RemoteBlob(blob.digest, 5 * MIB, origin), blob.digest)
    assert origin.given == given
    assert origin.open == 0


async def test_a_manifest_is_asked_for_again() -> None:
    origin = Scripted(refuse=[TransientError("HTTP 503")])
    blob = origin.hold(b"{}")
    assert await reads_of().manifest(blob, blob.digest) == b"{}"
    origin.refuse = [TransientError("HTTP 503")] * 9
    with pytest.raises(SourceError, match="HTTP 503"):
        await reads_of().manifest(blob, blob.digest)
