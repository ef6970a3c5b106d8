"""What asyncpush calls itself."""

from __future__ import annotations

from functools import cache


@cache
def version() -> str:
    """The version of the installed package, which takes milliseconds to find."""
    from importlib import metadata  # noqa: PLC0415 - takes as long to import

    return metadata.version("asyncpush")


def user_agent() -> str:
    """What registries are told."""
    return f"asyncpush/{version()}"
