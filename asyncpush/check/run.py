"""The whole check: all registries at once, then what only all of them together tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from asyncpush.check.distribution import DistributionCheck
from asyncpush.check.findings import CheckReport, Finding, RepositoryState, Severity, Subject
from asyncpush.check.registry import EcrCheck
from asyncpush.check.surroundings import Surroundings
from asyncpush.check.target import Target, targets_of_plan
from asyncpush.engine.options import PushOptions
from asyncpush.engine.preview import preview
from asyncpush.engine.results import ImageResult
from asyncpush.engine.work import for_each
from asyncpush.errors import AsyncpushError, RegistryError
from asyncpush.oci.digest import Digest
from asyncpush.plan.graph import Plan, PlannedImage
from asyncpush.plan.reference import AnyRegistry, Registry

_REGISTRIES_AT_ONCE = 16

Check = EcrCheck | DistributionCheck


async def check_plan(
    plan: Plan, rejected: Iterable[ImageResult], options: PushOptions, report: CheckReport
) -> None:
    """Check whether what a plan has can be pushed, and say how long that takes at least.

    :param rejected: what could not be planned.
    :param report: filled as it goes, for whoever may be interrupted.
    """
    rejected = list(rejected)
    report.findings += [_of_source(result) for result in rejected]
    checks = _checks(targets_of_plan(plan), options, report)
    await _run(checks, report)
    available = {t.repository: found for check in checks for t, found in check.available.items()}
    not_asked = RegistryError("the registry could not be asked")
    answers: dict[PlannedImage, Mapping[Digest, bool] | AsyncpushError] = {
        image: available.get(image.repository, not_asked) for image in plan.images()
    }
    report.preview = preview(plan, rejected, answers, options)
    report.complete = True


async def check_targets(
    targets: Sequence[Target], options: PushOptions, report: CheckReport
) -> None:
    """Check whether repositories can be pushed to.

    :param report: filled as it goes, for whoever may be interrupted.
    """
    await _run(_checks(targets, options, report), report)
    report.complete = True


def _of_source(result: ImageResult) -> Finding:
    error = result.error or RegistryError("it cannot be pushed")
    return Finding(
        severity=Severity.PROBLEM,
        subject=Subject.SOURCE,
        where=f"{result.name} -> {result.reference}",
        message=error.message,
        advice=error.advice,
    )


def _checks(targets: Iterable[Target], options: PushOptions, report: CheckReport) -> list[Check]:
    by_registry: defaultdict[AnyRegistry, list[Target]] = defaultdict(list)
    for target in targets:
        by_registry[target.repository.registry].append(target)
    checks: list[Check] = []
    for registry, own in by_registry.items():
        around = Surroundings(registry, options, report)
        if isinstance(registry, Registry):
            checks.append(EcrCheck(registry, own, list(by_registry), around))
        else:
            checks.append(DistributionCheck(registry, own, around))
        report.registries.append(checks[-1].state)
        report.repositories.extend(checks[-1].repositories.values())
    return checks


async def _run(checks: Sequence[Check], report: CheckReport) -> None:
    await for_each(checks, min(len(checks), _REGISTRIES_AT_ONCE), lambda check: check.run())
    _note_other_regions(report.repositories)
    for check in checks:
        if isinstance(check, EcrCheck):
            check.conclude()


def _note_other_regions(repositories: Sequence[RepositoryState]) -> None:
    """Note of missing repositories where else the check has found one of their name."""
    there: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for found in repositories:
        registry = found.repository.registry
        if found.exists and isinstance(registry, Registry):
            there[registry.account, found.repository.name].append(registry.region)
    for found in repositories:
        registry = found.repository.registry
        if found.exists is False and isinstance(registry, Registry):
            found.elsewhere += there[registry.account, found.repository.name]
