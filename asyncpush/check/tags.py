"""Tags that may not move: which of a push's tags are taken, asked where reads are granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from asyncpush.check.findings import Outcome, RepositoryState, Severity, Subject, Tags
from asyncpush.check.surroundings import Surroundings
from asyncpush.check.target import Target
from asyncpush.engine.work import for_each
from asyncpush.errors import AccessDeniedError, AsyncpushError
from asyncpush.oci.digest import Digest
from asyncpush.plan.reference import Repository
from asyncpush.registries.ecr.probe import EcrProbe

# API reference: DescribeRepositories takes 1 to 100 names, BatchGetImage 1 to 100 tags.
_AT_ONCE = 100
_DESCRIBE = "DescribeRepositories"
_READ = "BatchGetImage"
_GRANT_ADVICE = (
    "to foresee conflicts on immutable tags, allow what asyncpush iam policy --with check prints"
)


async def check_tags(
    probe: EcrProbe,
    around: Surroundings,
    targets: Sequence[Target],
    states: Mapping[Repository, RepositoryState],
) -> None:
    """Foresee conflicts in the repositories that are there, and ask whether a rollback may read."""
    check = _TagCheck(probe, around, states)
    there = [t for t in targets if t.tags and states[t.repository].exists]
    fixed: dict[Target, list[str]] = {}
    for i in range(0, len(there), _AT_ONCE):
        fixed |= await check.fixed(there[i : i + _AT_ONCE])
    await for_each(fixed.items(), min(len(fixed), around.options.images), check.compare)
    if around.options.rollback:
        rest = [t for t in there if _READ not in states[t.repository].actions]
        await for_each(rest, min(len(rest), around.options.images), check.may_read)


class _TagCheck:
    """The questions about tags in one registry."""

    def __init__(
        self,
        probe: EcrProbe,
        around: Surroundings,
        states: Mapping[Repository, RepositoryState],
    ) -> None:
        self._probe = probe
        self._around = around
        self._states = states
        self._told = False

    async def fixed(self, targets: Sequence[Target]) -> dict[Target, list[str]]:
        """For at most 100 targets, the tags that may not move once they exist."""
        host = self._around.registry.host
        names = [target.repository.name for target in targets]
        try:
            found = await self._around.call(_DESCRIBE, host, partial(self._probe.mutability, names))
        except AsyncpushError as exc:
            for target in targets:
                self._states[target.repository].tags = Tags.UNKNOWN
            if not self._told:
                self._told = True
                self._around.add(
                    Severity.UNKNOWN,
                    Subject.TAG,
                    exc,
                    advice=_GRANT_ADVICE,
                    action=f"ecr:{_DESCRIBE}",
                )
            return {}
        fixed = {}
        for target in targets:
            state, mutability = self._states[target.repository], found.get(target.repository.name)
            if mutability is None:
                state.tags = Tags.UNKNOWN
                continue
            state.tags = Tags.FREE
            if tags := [tag for tag in target.tags if mutability.fixes(tag)]:
                fixed[target] = tags
        return fixed

    async def compare(self, item: tuple[Target, list[str]]) -> None:
        """Hold a push's tags against those that exist."""
        target, tags = item
        state = self._states[target.repository]
        for i in range(0, len(tags), _AT_ONCE):
            found = await self._read(target, tags[i : i + _AT_ONCE], Severity.UNKNOWN)
            if found is None:
                state.tags = Tags.UNKNOWN
                return
            for tag, digest in found.items():
                if digest != target.tags[tag]:
                    state.tags = Tags.CONFLICT
                    self._around.add(
                        Severity.PROBLEM,
                        Subject.TAG,
                        f"the tag is immutable and points to {digest}, not to {target.tags[tag]}",
                        where=f"{target.repository}:{tag}",
                        advice="push under a new tag, or delete the old image if it may go",
                    )

    async def may_read(self, target: Target) -> None:
        """Ask whether a rollback may note what a repository's tags point to."""
        await self._read(target, list(target.tags)[:1], Severity.WARNING)

    async def _read(
        self, target: Target, tags: Sequence[str], severity: Severity
    ) -> dict[str, Digest] | None:
        """What tags point to; None where that cannot be read, which is a finding."""
        where = str(target.repository)
        actions = self._states[target.repository].actions
        ask = partial(self._probe.tagged, target.repository.name, tags)
        try:
            found = await self._around.call(_READ, where, ask)
        except AsyncpushError as exc:
            denied = isinstance(exc, AccessDeniedError)
            actions[_READ] = Outcome.DENIED if denied else Outcome.UNKNOWN
            self._around.add(severity, Subject.TAG, exc, where=where, action=f"ecr:{_READ}")
            return None
        actions[_READ] = Outcome.ALLOWED
        return found
