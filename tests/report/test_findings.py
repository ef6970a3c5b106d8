"""What a push waited for is found out: pushes by the real engine with one known bound each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated import MIB, ONE, TWO, SimulatedRegistry, World, push

from asyncpush.errors import AccessDeniedError, AsyncpushError, TransientError
from asyncpush.registries.base import Mounting
from asyncpush.report.document import ADAPTER, Report
from asyncpush.report.findings import Analysis, Finding, analyse, steps_for_people
from asyncpush.report.path import critical_path


def even_world(images: int, layer: int, layers: int = 1) -> World:
    """Images of equal layers, in a few repositories."""
    world = World()
    for i in range(images):
        blobs = {f"layer {i}.{j}": layer for j in range(layers)}
        world.image(ONE, f"app{i % 5}", f"v{i}", {**blobs, f"config {i}": 2000})
    return world


def first_finding(report: Report) -> Finding:
    analysis = analyse(report)
    check_path(report, analysis)
    return analysis.findings[0]


def check_path(report: Report, analysis: Analysis) -> None:
    """The path covers the push's whole time, without gaps, and its causes add up to it."""
    steps = analysis.path.steps
    assert steps[0].begin == 0
    assert steps[-1].end == pytest.approx(report["seconds"])
    for before, after in itertools.pairwise(steps):
        assert before.end == pytest.approx(after.begin)
    assert sum(analysis.path.causes().values()) == pytest.approx(report["seconds"], abs=0.01)
    few = steps_for_people(analysis.path, 5)
    assert len(few) <= 5
    assert sum(step.end - step.begin for step in few) == pytest.approx(report["seconds"])


def test_many_small_images_wait_for_the_quota_of_putimage(tmp_path: Path) -> None:
    world = even_world(200, 50_000)
    report = push(tmp_path / "r.json", world, {ONE: SimulatedRegistry()})

    found = first_finding(report)
    assert found.title == "PutImage ran into its quota of 10/s"
    assert "--quota PutImage=20" in found.advice
    # More images at once would wait for the same.
    assert [other.title for other in analyse(report).findings] == [found.title]
    # 200 manifests at 10 a second.
    assert 15 < found.seconds < 20
    faster = push(tmp_path / "r.json", world, {ONE: SimulatedRegistry()}, quotas={"PutImage": 20.0})
    assert report["seconds"] - faster["seconds"] == pytest.approx(found.gain, rel=0.2)


def test_a_quota_that_is_not_there_is_told_apart_from_one_that_is(tmp_path: Path) -> None:
    registry = SimulatedRegistry(rates={"PutImage": 10})
    world = even_world(200, 50_000)
    report = push(tmp_path / "r.json", world, {ONE: registry}, quotas={"PutImage": 40.0})

    found = first_finding(report)
    assert found.title == "PutImage was throttled below the 40/s that the push assumed"
    assert str(report["totals"]["throttles"]) in found.text


def test_one_huge_layer_is_named_with_how_long_it_was_alone(tmp_path: Path) -> None:
    world = even_world(20, 20 * MIB)
    world.image(ONE, "ml/model", "v1", {"weights": 3000 * MIB})
    report = push(tmp_path / "r.json", world, {ONE: SimulatedRegistry()})

    found = first_finding(report)
    assert found.title.startswith("one layer of 2.9 GiB took")
    assert found.blob is not None
    assert report["blobs"][found.blob]["digest"] in found.text
    assert "was the only one on its way" in found.text
    assert found.gain == pytest.approx(report["seconds"] / 2, rel=0.1)


def test_a_layer_that_many_wait_for_is_told_with_their_number(tmp_path: Path) -> None:
    world = World()
    for i in range(12):
        world.image(ONE, "team/app", f"v{i}", {"base": 900 * MIB, f"own {i}": 10_000})
    report = push(tmp_path / "r.json", world, {ONE: SimulatedRegistry()})

    found = first_finding(report)
    assert "12 images share it and wait for it" in found.text
    analysis = analyse(report)
    assert len(analysis.path.shared) == 1


def test_who_mounts_a_layer_waited_for_the_one_who_brought_it_up(tmp_path: Path) -> None:
    world = World()
    for i in range(6):
        world.image(ONE, f"team/app{i}", "v1", {"base": 900 * MIB, f"own {i}": MIB})
    registry = SimulatedRegistry(mounting=Mounting(referenced=True, advice=""))
    report = push(tmp_path / "r.json", world, {ONE: registry})

    assert report["totals"]["blobs_mounted"] == 5
    analysis = analyse(report)
    check_path(report, analysis)
    kinds = [step.kind for step in analysis.path.steps]
    assert kinds[-2:] == ["mount", "committing"]
    # The others waited for this one; what was slow is its layer, not their mounts.
    (found,) = analysis.findings
    assert found.title.startswith("one layer of 900.0 MiB took")
    assert "team/app0" in found.text


@pytest.mark.parametrize(
    ("registry", "options", "title", "advice"),
    [
        ({"link": 1e12}, {"layers": 4}, "all 4 layer slots were taken", "raise --layers"),
        ({"link": 120 * MIB}, {}, "all 16 layer slots were taken", "a faster link"),
        ({"link": 1e12}, {"parts": 2}, "parts waited for slots", "raise --parts"),
    ],
)
def test_slots_that_are_short_are_told_from_a_link_that_is_full(
    tmp_path: Path, registry: Mapping[str, Any], options: dict[str, int], title: str, advice: str
) -> None:
    world = even_world(30, 50 * MIB, layers=4)
    report = push(tmp_path / "r.json", world, {ONE: SimulatedRegistry(**registry)}, **options)

    found = first_finding(report)
    assert found.title == title
    assert advice in found.advice


def test_more_layer_slots_bring_what_was_promised(tmp_path: Path) -> None:
    world = even_world(30, 50 * MIB, layers=4)
    # It ends by itself, so that the rate of a layer among few is known.
    world.image(ONE, "tail", "v1", {"tail": 100 * MIB})
    slow = push(tmp_path / "r.json", world, {ONE: SimulatedRegistry(link=1e12)}, layers=4)
    fast = push(tmp_path / "r.json", world, {ONE: SimulatedRegistry(link=1e12)}, layers=8)
    gained = slow["seconds"] - fast["seconds"]
    assert gained == pytest.approx(first_finding(slow).gain, rel=0.2)


def test_few_images_at_once_on_a_long_round_trip(tmp_path: Path) -> None:
    registry = SimulatedRegistry(link=1e12, latency=0.4)
    report = push(tmp_path / "r.json", even_world(30, 10_000), {ONE: registry}, images=2)

    found = first_finding(report)
    assert found.title == "all 2 image slots were taken"
    assert "raise --images (it was 2) to 4" in found.advice


def test_retries_are_told_with_their_call(tmp_path: Path) -> None:
    def fault(call: str, repository: str, tried: int) -> AsyncpushError | None:
        return TransientError("lost") if call == "CompleteLayerUpload" and tried % 3 else None

    report = push(
        tmp_path / "r.json", even_world(20, 10_000), {ONE: SimulatedRegistry(fault=fault)}
    )

    (found,) = [f for f in analyse(report).findings if f.title.endswith("was tried again")]
    assert found.title == "CompleteLayerUpload was tried again"
    assert "-v shows every retry" in found.advice


def test_an_atomic_push_has_its_second_phase_on_the_path(tmp_path: Path) -> None:
    report = push(tmp_path / "r.json", even_world(60, MIB), {ONE: SimulatedRegistry()}, atomic=True)
    analysis = analyse(report)
    check_path(report, analysis)
    assert analysis.path.steps[-1].kind == "tags"
    assert analysis.findings[0].title == "PutImage ran into its quota of 10/s"


def test_a_plain_push_took_as_long_as_its_bytes(tmp_path: Path) -> None:
    world = World()
    for i in range(8):
        world.image(ONE, "app", f"v{i}", {f"layer {i}": 100 * MIB})
    report = push(tmp_path / "r.json", world, {ONE: SimulatedRegistry(link=100 * MIB)})
    assert [f.title for f in analyse(report).findings] == [
        "most of the time bytes were on their way"
    ]


def test_images_that_fail_and_a_registry_of_its_own_are_no_trouble(tmp_path: Path) -> None:
    def deny(call: str, repository: str, tried: int) -> AsyncpushError | None:
        return AccessDeniedError("no") if call == "InitiateLayerUpload" else None

    world = even_world(10, MIB)
    for i in range(10):
        world.image(TWO, "app", f"v{i}", {f"layer {i}": MIB})
    report = push(
        tmp_path / "r.json", world, {ONE: SimulatedRegistry(), TWO: SimulatedRegistry(fault=deny)}
    )
    assert report["totals"]["images"]["failed"] == 10
    check_path(report, analyse(report))


def test_the_slowest_blobs_come_first(tmp_path: Path) -> None:
    world = World()
    for i in range(8):
        world.image(ONE, "app", f"v{i}", {f"layer {i}": (i + 1) * 20 * MIB})
    report = push(tmp_path / "r.json", world, {ONE: SimulatedRegistry()})
    seconds = [report["blobs"][place]["seconds"] or 0 for place in analyse(report, 5).slowest]
    assert seconds == sorted(seconds, reverse=True)
    assert len(seconds) == 5


def test_a_report_without_times_has_an_empty_path(tmp_path: Path) -> None:
    report = push(tmp_path / "r.json", even_world(3, MIB), {ONE: SimulatedRegistry()})
    del report["timeline"]
    for image in report["images"]:
        for key in ("started", "ended", "blobs", "manifests"):
            image.pop(key)  # type: ignore[misc]
    analysis = analyse(report)
    assert (analysis.path.steps, analysis.findings) == ([], [])
    assert analysis.slowest


numbers = st.floats(0, 10) | st.floats(0, 1e9)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_report_claims_it_is_read_to_its_end(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    report = _sample(tmp_path_factory)
    for image in report["images"]:
        image["started"], image["ended"] = data.draw(numbers), data.draw(numbers)
        image["blobs"] = data.draw(st.lists(st.integers(0, len(report["blobs"]) - 1), max_size=3))
        for commit in image["manifests"]:
            commit["ended"], commit["seconds"] = data.draw(numbers), data.draw(numbers)
    for blob in report["blobs"]:
        blob["started"], blob["seconds"] = data.draw(numbers), data.draw(st.none() | numbers)
        blob["waited"], blob["slots"] = data.draw(numbers), data.draw(numbers)
    report["timeline"]["width"] = data.draw(st.floats(0.001, 10))
    report["seconds"] = data.draw(numbers)
    path = critical_path(ADAPTER.validate_python(report))
    assert len(path.steps) <= 2 * len(report["images"]) + len(report["blobs"]) + 4
    analyse(report)


_SAMPLE: dict[str, Report] = {}


def _sample(factory: pytest.TempPathFactory) -> Report:
    """A small report, made once; a copy for each who asks."""
    if not _SAMPLE:
        path = factory.mktemp("sample") / "r.json"
        _SAMPLE["it"] = push(path, even_world(6, MIB), {ONE: SimulatedRegistry()})
    return ADAPTER.validate_json(ADAPTER.dump_json(_SAMPLE["it"]))
