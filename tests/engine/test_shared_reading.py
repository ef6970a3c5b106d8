"""Several uploads of one blob read it together while they keep pace, and never wait for ever."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable

import anyio
import pytest
from origins import Scripted
from test_reading import Cuts, assert_clean, read_all, read_parts, reads_of

from asyncpush.engine.reading import reads as reads_module
from asyncpush.engine.reading import window
from asyncpush.engine.reading.reader import RemoteReader, open_remote
from asyncpush.engine.reading.reads import Reads
from asyncpush.errors import DigestMismatchError, SourceError, TransientError
from asyncpush.oci.remote import RemoteBlob

pytestmark = pytest.mark.anyio

KIB, MIB = 1024, 1024 * 1024
Work = Callable[[RemoteReader], Awaitable[None]]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is a fraction of a second."""
    monkeypatch.setattr(window, "PATIENCE", 0.2)
    monkeypatch.setattr(window, "RENDEZVOUS", 0.6)
    monkeypatch.setattr(reads_module, "_LIFE", 0.2)


async def together(reads: Reads, blob: RemoteBlob, *work: Work) -> None:
    """Let each reader do its work, at the same time."""

    async def one(target: str, do: Work) -> None:
        async with open_remote(reads, blob, target) as reader:
            await do(reader)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number, do in enumerate(work):
                tasks.start_soon(one, f"registry{number}", do)


def expect_data(origin: Scripted, blob: RemoteBlob, found: bytes, offset: int = 0) -> None:
    assert found == origin.blobs[blob.digest][offset:]


@pytest.mark.parametrize("memory", [1 * MIB, 64 * MIB])
async def test_readers_of_different_speed_read_the_source_once(memory: int) -> None:
    origin = Scripted()
    blob = origin.hold(os.urandom(7 * MIB))
    reads = reads_of(memory=memory)

    def stream(pause: float, most: int) -> Work:
        async def work(reader: RemoteReader) -> None:
            found = bytearray()
            while len(found) < blob.size:
                found += await reader.read(len(found), most)
                await anyio.sleep(pause)
            expect_data(origin, blob, bytes(found))

        return work

    async def parts(reader: RemoteReader) -> None:
        expect_data(origin, blob, await read_parts(reader, blob.size, 900 * KIB))

    await together(reads, blob, stream(0, MIB), stream(0.004, 100_000), parts, stream(0.001, MIB))
    assert (origin.given, origin.offsets) == (blob.size, [0])
    assert_clean(reads, origin)


async def test_what_windows_hold_is_bounded() -> None:
    """Eight blobs at once, each with a reader that reads on and one that dawdles."""
    origin = Scripted()
    reads = reads_of(memory=4 * MIB)
    most = held = 0
    windows = reads._windows

    async def fast(reader: RemoteReader) -> None:
        nonlocal most, held
        at = 0
        while at < 3 * MIB:
            at += len(await reader.read(at, MIB))
            most = max(most, reads.pool.used)
            held = max(held, sum(w.end - w.start for some in windows.values() for w in some))

    async def slow(reader: RemoteReader) -> None:
        at = 0
        while at < 3 * MIB:
            at += len(await reader.read(at, 128 * KIB))
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            blob = origin.hold(os.urandom(3 * MIB))
            tasks.start_soon(together, reads, blob, fast, slow)
    assert origin.given == 8 * 3 * MIB
    assert most <= 4 * MIB
    assert held <= 4 * MIB + 8 * (window.FLOOR + 64 * KIB)
    assert_clean(reads, origin)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("seconds", [0.0, 0.05])
async def test_a_reader_that_stalls_loses_its_place_and_reads_for_itself(seconds: float) -> None:
    origin = Scripted()
    blob = origin.hold(os.urandom(9 * MIB))
    reads = reads_of(memory=2 * MIB)
    ended = anyio.Event()

    async def fast(reader: RemoteReader) -> None:
        begin = anyio.current_time()
        expect_data(origin, blob, await read_all(reader, blob.size))
        assert anyio.current_time() - begin < 5
        ended.set()

    async def stalling(reader: RemoteReader) -> None:
        found = bytes(await reader.read(0, 100_000))
        if seconds:
            while not ended.is_set():
                # A few bytes now and then are no progress.
                found += await reader.read(len(found), 1000)
                await anyio.sleep(seconds)
        await ended.wait()
        first = len(found)
        expect_data(origin, blob, found + await read_all(reader, blob.size, first))

    await together(reads, blob, fast, stalling)
    assert len(origin.offsets) == 2
    assert 0 < origin.offsets[1] < MIB
    assert origin.given == 2 * blob.size - origin.offsets[1]
    assert_clean(reads, origin)


@pytest.mark.usefixtures("impatient")
async def test_a_source_that_stalls_costs_no_reader_its_place() -> None:
    async def stall(offset: int) -> None:
        await anyio.sleep(0.5 if offset == MIB else 0)

    origin = Scripted(before=stall)
    blob = origin.hold(os.urandom(9 * MIB))

    def stream(pause: float) -> Work:
        async def work(reader: RemoteReader) -> None:
            at = 0
            while at < blob.size:
                at += len(await reader.read(at, MIB))
                await anyio.sleep(pause)

        return work

    await together(reads_of(memory=MIB), blob, stream(0), stream(0.002), stream(0.02))
    assert origin.offsets == [0]


@pytest.mark.usefixtures("impatient")
async def test_a_part_that_is_stuck_in_a_target_keeps_its_bytes_and_holds_up_no_other() -> None:
    origin = Scripted()
    blob = origin.hold(os.urandom(9 * MIB))
    reads = reads_of(memory=8 * MIB)
    ended = anyio.Event()

    async def fast(reader: RemoteReader) -> None:
        expect_data(origin, blob, await read_all(reader, blob.size))
        ended.set()

    async def stuck(reader: RemoteReader) -> None:
        async with reader.part(0, 2 * MIB) as part:
            await ended.wait()
            buffer = memoryview(bytearray(2 * MIB))
            part.read_into(buffer, 0)
            assert buffer == origin.blobs[blob.digest][: 2 * MIB]
            assert reads.pool.used >= 2 * MIB
        found = await read_parts(reader, blob.size, 2 * MIB, 2 * MIB)
        expect_data(origin, blob, found, 2 * MIB)

    await together(reads, blob, fast, stuck)
    assert origin.offsets == [0, 2 * MIB]
    assert_clean(reads, origin)


@pytest.mark.usefixtures("impatient")
async def test_readers_that_wait_for_each_other_in_two_windows_part() -> None:
    """Each reads far into one blob while its place in the other one holds that one up."""
    origin = Scripted()
    one, two = (origin.hold(os.urandom(9 * MIB)) for _ in range(2))
    reads = reads_of(memory=1 * MIB)

    async def target(name: str, first: RemoteBlob, second: RemoteBlob) -> None:
        async with open_remote(reads, first, name) as a, open_remote(reads, second, name) as b:
            at = len(await b.read(0, MIB))
            await anyio.sleep(0.05)
            expect_data(origin, first, await read_all(a, first.size))
            expect_data(origin, second, await read_all(b, second.size, at), at)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(target, "a", one, two)
            tasks.start_soon(target, "b", two, one)
    assert_clean(reads, origin)


async def test_a_reader_that_comes_late_reads_for_itself_or_finds_a_small_blob_kept() -> None:
    origin = Scripted()
    small, large = origin.hold(os.urandom(MIB)), origin.hold(os.urandom(20 * MIB))
    reads = reads_of(memory=16 * MIB)
    for blob in (small, large, small, large):
        async with open_remote(reads, blob, "a") as reader:
            expect_data(origin, blob, await read_all(reader, blob.size))
    assert origin.given == small.size + 2 * large.size
    # What is kept makes room when others need it.
    async with open_remote(reads, large, "a") as reader, reader.part(0, 16 * MIB):
        assert not reads.pool._idle
    assert_clean(reads, origin)
    assert reads.pool.used == 0


async def test_blobs_kept_go_in_the_order_of_their_last_use() -> None:
    origin = Scripted()
    blobs = [origin.hold(os.urandom(MIB)) for _ in range(4)]
    reads = reads_of(memory=8 * MIB)
    for blob in [*blobs, blobs[0]]:
        async with open_remote(reads, blob, "a") as reader:
            await read_all(reader, MIB)
    assert len(origin.offsets) == 4
    large = origin.hold(os.urandom(7 * MIB))
    async with open_remote(reads, large, "a") as reader, reader.part(0, 7 * MIB):
        pass
    async with open_remote(reads, blobs[0], "a") as reader:
        await read_all(reader, MIB)
    assert len(origin.offsets) == 5


@pytest.mark.parametrize("size", [3 * MIB, 12 * MIB])
async def test_the_first_reader_waits_for_those_that_are_expected(size: int) -> None:
    origin = Scripted()
    blob = origin.hold(os.urandom(size))
    reads = reads_of(memory=32 * MIB)
    for target in ("registry0", "registry1", "registry2"):
        reads.expect(blob, target)

    async def now(reader: RemoteReader) -> None:
        expect_data(origin, blob, await read_all(reader, size))

    async def later(reader: RemoteReader) -> None:
        await anyio.sleep(0.3)
        await now(reader)

    async def never(reader: RemoteReader) -> None:
        await anyio.sleep(0.2)
        reads.forgo(blob, "registry2")

    begin = anyio.current_time()
    await together(reads, blob, now, later, never)
    assert anyio.current_time() - begin < 2
    assert origin.given == size
    assert_clean(reads, origin)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("alive", [False, True])
async def test_an_expected_reader_that_never_comes_is_waited_for_a_while(alive: bool) -> None:
    origin = Scripted()
    blob = origin.hold(os.urandom(12 * MIB))
    reads = reads_of(memory=32 * MIB)
    reads.expect(blob, "registry0")
    reads.expect(blob, "gone")
    begin = anyio.current_time()

    async def now(reader: RemoteReader) -> None:
        expect_data(origin, blob, await read_all(reader, blob.size))

    async def live(reader: RemoteReader) -> None:
        while alive and anyio.current_time() - begin < 2:
            reads.alive("gone")
            await anyio.sleep(0.05)

    seconds = 0.0

    async def measured(reader: RemoteReader) -> None:
        nonlocal seconds
        await now(reader)
        seconds = anyio.current_time() - begin

    await together(reads, blob, measured, live)
    assert (0.5 if alive else 0.15) < seconds < 1.5
    assert_clean(reads, origin)


@pytest.mark.parametrize("parts", [False, True])
async def test_wrong_content_is_an_error_of_every_reader(parts: bool) -> None:
    origin = Scripted()
    blob = origin.hold(os.urandom(2 * MIB))
    origin.blobs[blob.digest] = bytes(2 * MIB)
    reads = reads_of()
    errors: list[DigestMismatchError] = []

    async def work(reader: RemoteReader) -> None:
        with pytest.raises(DigestMismatchError) as caught:
            await (read_parts(reader, blob.size, MIB) if parts else read_all(reader, blob.size))
        errors.append(caught.value)

    await together(reads, blob, work, work, work)
    assert origin.given == blob.size
    assert len({id(error.where) for error in errors}) == 3  # each upload adds its own place
    assert_clean(reads, origin)


async def test_a_source_that_is_gone_is_an_error_of_every_reader_and_can_be_tried_again() -> None:
    origin = Scripted(refuse=[TransientError("HTTP 503")] * 4)
    blob = origin.hold(os.urandom(MIB))
    reads = reads_of(attempts=4)

    async def work(reader: RemoteReader) -> None:
        with pytest.raises(SourceError, match="HTTP 503"):
            await reader.read(0, 1)

    await together(reads, blob, work, work)
    async with open_remote(reads, blob, "a") as reader:
        expect_data(origin, blob, await read_all(reader, MIB))
    assert_clean(reads, origin)


async def test_the_reader_that_pulls_hands_over_when_it_is_cancelled() -> None:
    """At every step of the loop in turn; the other one gets every byte."""
    data = os.urandom(2 * MIB)
    ended = step = 0
    most = 0
    while not ended:
        step += 1
        origin = Scripted(piece=300 * KIB)
        blob = origin.hold(data)
        reads = reads_of(memory=4 * MIB)

        async def cancelled(reader: RemoteReader, step: int = step) -> None:
            nonlocal ended
            with anyio.CancelScope() as scope:

                async def cancel() -> None:
                    for _ in range(step):
                        await anyio.lowlevel.cancel_shielded_checkpoint()
                    scope.cancel()

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(cancel)
                    await read_all(reader, 2 * MIB)
                    ended = 1

        async def other(reader: RemoteReader, origin: Scripted = origin) -> None:
            await anyio.lowlevel.checkpoint()
            assert await read_all(reader, 2 * MIB) == data

        await together(reads, blob, cancelled, other)
        most = max(most, origin.given)
        assert_clean(reads, origin)
    assert step > 20
    assert most < 2 * len(data)


@pytest.mark.parametrize("first", range(0, 20, 5))
@pytest.mark.usefixtures("impatient")
async def test_any_mixture_ends_with_the_right_bytes(first: int) -> None:
    """Readers of all kinds, speeds and moods over a few blobs, with little memory and cuts."""

    async def try_with(seed: int) -> None:
        try:
            await mix(seed)
        except BaseException as exc:
            exc.add_note(f"with seed {seed}")
            raise

    # Most of the time they wait, and together they wait once.
    async with anyio.create_task_group() as tasks:
        for seed in range(first, first + 5):
            tasks.start_soon(try_with, seed)


async def mix(seed: int) -> None:
    rng = random.Random(seed)
    origin = Scripted(before=Cuts(seed, 0.03), rng=rng, piece=200 * KIB)
    blobs = [origin.hold(os.urandom(rng.randint(1, 3 * MIB))) for _ in range(6)]
    reads = reads_of(memory=rng.choice([256 * KIB, MIB, 3 * MIB, 32 * MIB]), attempts=9)
    for blob in blobs:
        for target in range(4):
            if rng.random() < 0.8:
                reads.expect(blob, str(target))
    slots = [anyio.Semaphore(2) for _ in range(4)]
    finished = 0

    async def upload(target: int, blob: RemoteBlob, own: random.Random) -> None:
        nonlocal finished
        await anyio.sleep(own.uniform(0, 0.3))
        data = origin.blobs[blob.digest]
        with anyio.move_on_after(0.3 if own.random() < 0.1 else 60):
            async with slots[target], open_remote(reads, blob, str(target)) as reader:
                at = own.choice([0, 0, 0, own.randint(0, blob.size)])
                while at < blob.size:
                    length = min(own.randint(1, MIB), blob.size - at)
                    if own.random() < 0.5:
                        async with reader.part(at, length) as part:
                            buffer = memoryview(bytearray(length))
                            part.read_into(buffer, at)
                            await anyio.sleep(own.choice([0, 0, 0.001, 0.05]))
                        got = bytes(buffer)
                    else:
                        got = bytes(await reader.read(at, length))
                    assert got == data[at : at + len(got)]
                    at += len(got)
                    if own.random() < 0.05:
                        at -= own.randint(0, at)
                    if own.random() < 0.02:
                        await anyio.sleep(own.uniform(0, 0.5))
                finished += 1

    with anyio.fail_after(40):
        async with anyio.create_task_group() as tasks:
            for target in range(4):
                for blob in rng.sample(blobs, len(blobs)):
                    tasks.start_soon(upload, target, blob, random.Random(rng.random()))
    assert finished > 15
    assert_clean(reads, origin)
    assert not reads.pool._waiting
