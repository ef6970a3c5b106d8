"""One ECR registry: credentials, endpoint, clock, then its repositories and their tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from asyncpush.check.findings import (
    Outcome,
    RegistryState,
    RepositoryState,
    Severity,
    Subject,
)
from asyncpush.check.repository import INITIATE, RepositoryCheck
from asyncpush.check.surroundings import USER_AGENT, Surroundings
from asyncpush.check.tags import check_tags
from asyncpush.check.target import Target
from asyncpush.engine.work import for_each
from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    ClockError,
    CredentialsError,
)
from asyncpush.oci.digest import Digest
from asyncpush.plan.reference import AnyRegistry, Registry
from asyncpush.registries.ecr.probe import EcrProbe, open_probe

# An answer's date has whole seconds, and was some time on its way.
_NOTABLE_SKEW = 60.0
_CLOCK_ADVICE = "set this machine's clock, as with timedatectl set-ntp true"
_ELSEWHERE_AT_ONCE = 8

Available = dict[Digest, bool] | AsyncpushError
"""Which of a repository's blobs are there, or why that is not known."""


class EcrCheck:
    """The check of one registry.

    :param registry: the registry.
    :param targets: the repositories of it.
    :param others: all registries that are checked, so that none is asked twice.
    """

    def __init__(
        self,
        registry: Registry,
        targets: Sequence[Target],
        others: Sequence[AnyRegistry],
        around: Surroundings,
    ) -> None:
        self._registry = registry
        self._targets = targets
        self._others = others
        self._around = around
        self.state = RegistryState(registry)
        self.repositories = {t.repository: RepositoryState(t.repository) for t in targets}
        self.available: dict[Target, Available] = {}

    async def run(self) -> None:
        """Find out all that can be found out; what fails becomes a finding."""
        aws, connections = self._around.settings.aws, self._around.options.connections
        try:
            async with open_probe(
                self._registry, aws, connections=connections, user_agent=USER_AGENT
            ) as probe:
                await self._check(probe)
        except CredentialsError as exc:
            self._around.add(Severity.PROBLEM, Subject.CREDENTIALS, exc)
        except AsyncpushError as exc:
            # Such as an endpoint that is no address.
            self._around.add(Severity.PROBLEM, Subject.ENDPOINT, exc)

    async def _check(self, probe: EcrProbe) -> None:
        state = self.state
        state.endpoint, state.default_region = probe.endpoint, probe.default_region
        try:
            state.identity = await probe.identify()
        except AsyncpushError as exc:
            self._around.add(Severity.PROBLEM, Subject.CREDENTIALS, exc)
            return
        goes_on = await self._authorize(probe)
        state.skew = probe.skew
        self._judge_clock()
        if not goes_on:
            return
        check = RepositoryCheck(probe, self._around)

        async def one(target: Target) -> None:
            found = self.repositories[target.repository]
            self.available[target] = await check.run(target, found)

        await for_each(self._targets, min(len(self._targets), self._around.options.images), one)
        await check_tags(probe, self._around, self._targets, self.repositories)
        await self._look_in_default_region()
        self._add_across_accounts()

    async def _authorize(self, probe: EcrProbe) -> bool:
        """Ask for a token; whether it is worth to ask on."""
        state = self.state
        try:
            await self._around.call("GetAuthorizationToken", state.registry.host, probe.authorize)
        except AccessDeniedError as exc:
            state.token = Outcome.DENIED
            self._around.add(
                Severity.PROBLEM, Subject.ACTION, exc, action="ecr:GetAuthorizationToken"
            )
        except ClockError as exc:
            state.reached = True
            told = exc if probe.skew is None else _clock(probe.skew)
            self._around.add(Severity.PROBLEM, Subject.CLOCK, told, advice=_CLOCK_ADVICE)
            return False
        except CredentialsError as exc:
            state.reached = True
            self._around.add(Severity.PROBLEM, Subject.CREDENTIALS, exc)
            return False
        except AsyncpushError as exc:
            state.reached = False
            self._around.add(Severity.PROBLEM, Subject.ENDPOINT, exc)
            return False
        else:
            state.token = Outcome.ALLOWED
        state.reached = state.accepted = True
        return True

    def _judge_clock(self) -> None:
        """Warn of a clock that is off; one that is too far off has been told as a problem."""
        skew = self.state.skew
        if skew is None or abs(skew) < _NOTABLE_SKEW or not self.state.accepted:
            return
        self._around.add(Severity.WARNING, Subject.CLOCK, _clock(skew), advice=_CLOCK_ADVICE)

    async def _look_in_default_region(self) -> None:
        """Ask whether missing repositories are in the Region that the configuration names."""
        region = self.state.default_region
        missing = [s for s in self.repositories.values() if s.exists is False]
        if not missing or region is None or region == self._registry.region:
            return
        other = replace(self._registry, region=region)
        if other in self._others:
            return

        async def look(probe: EcrProbe, state: RepositoryState) -> None:
            try:
                await probe.available(state.repository.name, [probe.nothing])
            except AsyncpushError:
                return  # Not there, or not for us to know.
            state.elsewhere.append(region)

        try:
            async with open_probe(
                other,
                self._around.settings.aws,
                connections=_ELSEWHERE_AT_ONCE,
                user_agent=USER_AGENT,
            ) as probe:
                await for_each(missing, min(len(missing), _ELSEWHERE_AT_ONCE), partial(look, probe))
        except AsyncpushError:
            return  # No such Region: its name in the finding's advice is all that can be said.

    def _add_across_accounts(self) -> None:
        identity = self.state.identity
        if identity is None or identity.account in (None, self._registry.account):
            return
        if not any(Outcome.DENIED in s.actions.values() for s in self.repositories.values()):
            return
        self._around.add(
            Severity.WARNING,
            Subject.CREDENTIALS,
            f"the credentials are of account {identity.account},"
            f" the registry is of {self._registry.account}",
            advice="both the principal's policy and each repository's must allow a push;"
            " asyncpush iam repository-policy prints the latter",
        )

    def conclude(self) -> None:
        """Note what all registries together tell: of repositories that are missing, and why."""
        for found in self.repositories.values():
            if found.exists is False:
                self._add_missing(found)
        if any(INITIATE in found.actions for found in self.repositories.values()):
            self._around.add(
                Severity.UNKNOWN,
                Subject.ACTION,
                f"whether ecr:{INITIATE} is allowed cannot be known without opening an upload",
                advice="asyncpush iam policy prints a policy that allows it",
                action=f"ecr:{INITIATE}",
            )

    def _add_missing(self, found: RepositoryState) -> None:
        where, region = str(found.repository), self._registry.region
        if self._around.options.create is not None:
            self._around.add(
                Severity.UNKNOWN,
                Subject.REPOSITORY,
                "the repository does not exist, and will be created; whether ecr:CreateRepository"
                " is allowed cannot be known without doing so",
                where=where,
                advice="asyncpush iam policy --with create prints what it takes",
                action="ecr:CreateRepository",
            )
            return
        advice = (
            "create it (aws ecr create-repository, or --create-repositories),"
            " or mend account, Region or name of the target"
        )
        if found.elsewhere:
            regions = ", ".join(sorted(found.elsewhere))
            advice = f"the account has one of this name in {regions}: mend the target's Region"
        elif self.state.default_region not in (None, region):
            advice += f"; the credentials' default Region is {self.state.default_region}"
        self._around.add(
            Severity.PROBLEM,
            Subject.REPOSITORY,
            "the repository does not exist",
            where=where,
            advice=advice,
        )


def _clock(skew: float) -> str:
    way = "behind" if skew > 0 else "ahead of"
    return (
        f"this machine's clock is {abs(skew):.0f} s {way} the registry's;"
        " signatures that are 5 minutes off are refused"
    )
