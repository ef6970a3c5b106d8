"""What ``--only`` and ``--exclude`` leave of a job; apart, since a push has no job to read."""

from __future__ import annotations

from collections.abc import Sized

from asyncpush.errors import UsageError
from asyncpush.plan.graph import Plan


def require_images(plan: Plan, rejected: Sized, *, chosen: bool) -> None:
    """Refuse a choice of a job that leaves nothing: a typo, which looks like a job that is done.

    :param plan: what ``--only`` and ``--exclude`` leave of the job.
    :param rejected: what cannot be planned, which has an error of its own.
    :param chosen: whether there is such a choice.
    :raises UsageError: they leave no image.
    """
    if chosen and not plan.repositories and not plan.unchanged and not rejected:
        raise UsageError(
            "no image of the job is chosen by --only and --exclude",
            advice="patterns are matched, whole and with case, against directory, DIRECTORY:ENTRY,"
            " entry, repository, registry and reference; asyncpush plan JOB.yaml lists them",
        )
