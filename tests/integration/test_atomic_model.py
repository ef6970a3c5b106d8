"""Atomic releases among faults, kills and other writers: every tag is where the report says.

A seed gives one history of a job: runs of it, each with faults of its own before and after calls,
some of them killed, and other writers between them. ``ASYNCPUSH_RELEASES=500`` tries that many
seeds, ``ASYNCPUSH_RELEASE_SEED=N`` the one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from releases import Releases, releasing, roots, tag_results, write_release
from transports import does, tag_of

from asyncpush import ImageStatus, PushReport
from asyncpush.engine.results import TagStatus
from asyncpush.localregistry import CallInfo, Fault

pytestmark = pytest.mark.anyio

_SEED = os.environ.get("ASYNCPUSH_RELEASE_SEED")
_SEEDS = [int(_SEED)] if _SEED else range(int(os.environ.get("ASYNCPUSH_RELEASES", "20")))
_RUNS = 4
_HERE = (TagStatus.MOVED, TagStatus.MOVED_EARLIER, TagStatus.UNCHANGED)

Tags = Mapping[tuple[str, str], str]


class Faults:
    """What a run's calls meet."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._often = rng.choice([0.0, 0.02, 0.1, 0.3])
        # What fails for good fails one tag, or nothing.
        self._refuses = rng.random() < 0.5
        self._kill = rng.randrange(5, 60) if rng.random() < 0.4 else None
        self._made = 0

    def kills(self, call: CallInfo) -> bool:
        """Whether the client is killed as this call arrives."""
        self._made += 1
        moving = does(call.action, "PutImage") and tag_of(call) is not None
        return self._kill is not None and self._made >= self._kill and moving

    def __call__(self, call: CallInfo) -> Fault | None:
        moving = does(call.action, "PutImage") and tag_of(call) is not None
        if moving and self._refuses and self._rng.random() < 0.3:
            return Fault(code="KmsException", message="no key", delay=self._rng.choice([0, 0.05]))
        if self._rng.random() >= self._often:
            return None
        return self._rng.choice(
            [
                Fault(drop="before"),
                Fault(drop="after"),
                Fault(code="ServerException", status=500),
                Fault(code="ThrottlingException"),
            ]
        )


@dataclass
class Model:
    """What is known from outside of where the tags are and were.

    :param before: where each tag pointed before the job moved it.
    """

    wanted: Tags
    before: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def begin(self, now: Tags) -> None:
        """A run begins; what is not as the job left it was made by others."""
        for key, root in self.wanted.items():
            if now.get(key) != root or key not in self.before:
                self.before[key] = now.get(key)

    def end(self, report: PushReport, begun: Tags, now: Tags, *, rollback: bool) -> None:
        """A run that was not killed has ended: hold its report against the registry."""
        assert report.complete
        results = tag_results(report)
        assert results.keys() == self.wanted.keys()
        for key, result in results.items():
            root = self.wanted[key]
            match result.status:
                case TagStatus.RETURNED:
                    assert rollback
                    assert now.get(key) == self.before[key], key
                case TagStatus.NOT_MOVED:
                    # As this run has found it, or as an earlier one of the job had.
                    assert now.get(key) == begun.get(key), key
                case TagStatus.UNKNOWN:
                    assert now.get(key) in (begun.get(key), root), key
                case status:
                    assert status in _HERE
                    assert now.get(key) == root, key
            if result.status is TagStatus.UNCHANGED:
                assert begun.get(key) == root, key
            if rollback and result.previous is not None:
                assert result.previous == self.before[key], key
            if result.status is TagStatus.RETURNED:
                del self.before[key]
        for image in report.images:
            if image.status in (ImageStatus.PUSHED, ImageStatus.EXISTS):
                assert {tag.status for tag in image.tags} <= set(_HERE)
        assert report.ok == all(now.get(key) == root for key, root in self.wanted.items()) or not (
            report.ok
        )


async def run_once(
    it: Releases, model: Model, layouts: Mapping[str, Path], faults: Faults, *, rollback: bool
) -> None:
    begun = await it.tags(list(layouts))
    model.begin(begun)
    reports: list[PushReport] = []
    it.faults = faults
    options = {"atomic": True, "rollback": rollback, "attempts": 3}

    async def push() -> None:
        reports.append(await it.push(layouts, **options))

    killed = await it.killed(push, faults.kills)
    it.faults = lambda call: None
    if not killed:
        now = await it.tags(list(layouts))
        model.end(reports[0], begun, now, rollback=rollback)


@pytest.mark.parametrize("seed", _SEEDS)
async def test_every_tag_is_where_the_report_says(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    repositories = ["aa", "bb", "cc"][: rng.randrange(2, 4)]
    tags = {name: [f"v{i}" for i in range(rng.randrange(1, 4))] for name in repositories}
    old, new, theirs = (write_release(tmp_path, name, tags) for name in ("old", "new", "theirs"))
    rollback = rng.random() < 0.7
    transport = rng.choice(["native", "distribution"])
    async with releasing(tmp_path, repositories, transport) as it:
        there = {name: layout for name, layout in old.items() if rng.random() < 0.8}
        assert (await it.push(there, journal=False)).ok
        model = Model(roots(new))
        for _ in range(_RUNS):
            await run_once(it, model, new, Faults(rng), rollback=rollback)
            if rng.random() < 0.3:
                name = rng.choice(repositories)
                assert (await it.push({name: theirs[name]}, journal=False)).ok
        report = await it.push(new, atomic=True, rollback=rollback)
        assert report.ok, [str(image.error) for image in report.failed]
        assert await it.tags(repositories) == roots(new)
