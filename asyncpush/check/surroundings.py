"""What every step of a check has at hand: options, findings, and calls at the quotas' pace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import TypeVar

from asyncpush.check.findings import CheckReport, Finding, Severity, Subject
from asyncpush.engine.events import Event
from asyncpush.engine.options import PushOptions
from asyncpush.engine.pace import PUBLISHED_QUOTAS, Paces
from asyncpush.engine.retry import Retrier
from asyncpush.errors import AsyncpushError
from asyncpush.plan.reference import AnyRegistry

T = TypeVar("T")

# Whoever checks waits for the answer: what does not answer soon is told, not waited for.
_MOST_ATTEMPTS = 3
USER_AGENT = f"asyncpush/{metadata.version('asyncpush')}"


class Surroundings:
    """The surroundings of the check of one registry.

    :param registry: whose quotas hold.
    :param report: takes what is found.
    """

    def __init__(self, registry: AnyRegistry, options: PushOptions, report: CheckReport) -> None:
        self.registry = registry
        self.options = options
        self.settings = options.settings(registry)
        self.report = report
        self._paces = Paces({**PUBLISHED_QUOTAS, **self.settings.quotas})
        attempts = min(options.attempts, _MOST_ATTEMPTS)
        self._retrier = Retrier(attempts, options.retry_base, options.retry_cap, _unheard)

    def add(
        self,
        severity: Severity,
        subject: Subject,
        error: AsyncpushError | str,
        *,
        where: str | None = None,
        advice: str | None = None,
        action: str | None = None,
    ) -> None:
        """Note a finding.

        :param error: what is wrong; an error brings its advice along.
        :param where: what it is about, if not the registry as a whole.
        """
        message = error
        if isinstance(error, AsyncpushError):
            message, advice = error.message, error.advice if advice is None else advice
        self.report.findings.append(
            Finding(
                severity=severity,
                subject=subject,
                where=where or self.registry.host,
                message=str(message),
                advice=advice or "",
                registry=self.registry.host,
                action=action,
            )
        )

    async def call(self, name: str, where: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call at its pace; what may pass is tried again, a few times.

        :param name: the API's name of the call.
        :param where: the registry or repository that it is about.
        """
        return await self._retrier.call(name, where, call, self._paces.of(name))


def _unheard(_event: Event) -> None:
    """Nobody listens to the calls of a check."""
