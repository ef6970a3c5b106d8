"""Availability: full batches, each blob asked once, failures where they belong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import pytest

from asyncpush.engine.availability import Availability
from asyncpush.engine.questions import BATCH
from asyncpush.errors import AccessDeniedError, AsyncpushError, TransientError
from asyncpush.oci.digest import Digest, compute

pytestmark = pytest.mark.anyio
DIGESTS = [compute(str(i).encode()) for i in range(250)]


class Registry:
    """Answers for the blobs that it has; ``fail`` may raise instead."""

    def __init__(self, *has: Digest, fail: Callable[[int], Exception | None] = lambda n: None):
        self.has, self.fail = set(has), fail
        self.calls: list[list[Digest]] = []

    async def ask(self, digests: Sequence[Digest]) -> set[Digest]:
        self.calls.append(list(digests))
        number = len(self.calls)
        await anyio.sleep(0.001)
        if error := self.fail(number):
            raise error
        return self.has & set(digests)


async def gather(availability: Availability, *questions: list[Digest]) -> list[object]:
    """All questions at once; each answer, or the error in its place."""
    answers: dict[int, object] = {}

    async def ask(number: int) -> None:
        try:
            answers[number] = await availability.has(questions[number])
        except AsyncpushError as exc:
            answers[number] = exc

    async with anyio.create_task_group() as tasks:
        for number in range(len(questions)):
            tasks.start_soon(ask, number)
    return [answers[number] for number in range(len(questions))]


async def test_many_digests_go_in_full_batches_and_the_unlisted_are_missing() -> None:
    registry = Registry(*DIGESTS[::2])
    answer = await Availability(registry.ask).has(DIGESTS)
    assert answer == {d: i % 2 == 0 for i, d in enumerate(DIGESTS)}
    assert [len(call) for call in registry.calls] == [BATCH, BATCH, 50]
    assert sorted(d for call in registry.calls for d in call) == sorted(DIGESTS)


async def test_images_of_one_moment_share_calls_and_blobs() -> None:
    registry = Registry(DIGESTS[0])
    questions = [[DIGESTS[0], DIGESTS[i], DIGESTS[i + 1]] for i in range(1, 41)]
    answers = await gather(Availability(registry.ask), *questions)
    expected = [{d: d == DIGESTS[0] for d in question} for question in questions]
    assert answers == expected
    assert [len(call) for call in registry.calls] == [42]


async def test_while_a_call_is_on_its_way_questions_gather() -> None:
    registry, answers = Registry(), []
    availability = Availability(registry.ask)

    async def ask(digest: Digest) -> None:
        answers.append(await availability.has([digest, DIGESTS[0]]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, DIGESTS[1])
        await anyio.wait_all_tasks_blocked()
        assert len(registry.calls) == 1
        for digest in DIGESTS[2:12]:
            tasks.start_soon(ask, digest)
    assert registry.calls == [[DIGESTS[1], DIGESTS[0]], DIGESTS[2:12]]
    assert len(answers) == 11


async def test_what_is_known_is_not_asked_until_it_is_forgotten() -> None:
    registry = Registry()
    availability = Availability(registry.ask)
    assert await availability.has([]) == {}
    assert await availability.has(DIGESTS[:2]) == dict.fromkeys(DIGESTS[:2], False)
    availability.learn(DIGESTS[0])
    assert await availability.has(DIGESTS[:2]) == {DIGESTS[0]: True, DIGESTS[1]: False}
    availability.forget([DIGESTS[0], DIGESTS[2]])
    assert await availability.has(DIGESTS[:2]) == dict.fromkeys(DIGESTS[:2], False)
    assert registry.calls == [DIGESTS[:2], DIGESTS[:1]]


async def test_a_failure_for_good_is_everyones() -> None:
    denied = AccessDeniedError("no")
    registry = Registry(fail=lambda number: denied)
    availability = Availability(registry.ask)
    questions = [[d] for d in DIGESTS]
    answers = await gather(availability, *questions)
    assert [str(answer) for answer in answers] == ["no"] * len(questions)
    # Each image adds its own place to its error.
    assert len({id(answer) for answer in answers}) == len(questions)
    with pytest.raises(AccessDeniedError):
        await availability.has([DIGESTS[0]])
    assert len(registry.calls) == 1


async def test_a_transient_failure_is_one_callers_and_the_others_ask_again() -> None:
    registry = Registry(DIGESTS[1], fail=lambda n: TransientError("lost") if n == 1 else None)
    availability = Availability(registry.ask)
    first, *others = await gather(availability, *[[d] for d in DIGESTS[:3]])
    assert isinstance(first, TransientError)
    assert others == [{DIGESTS[1]: True}, {DIGESTS[2]: False}]
    assert len(registry.calls) == 2
    assert await availability.has([DIGESTS[0]]) == {DIGESTS[0]: False}


async def test_a_cancelled_caller_leaves_its_question_to_the_others() -> None:
    registry = Registry(DIGESTS[1])
    availability = Availability(registry.ask)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(availability.has, DIGESTS[:3])
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    with anyio.fail_after(1):
        assert await availability.has([DIGESTS[1]]) == {DIGESTS[1]: True}
