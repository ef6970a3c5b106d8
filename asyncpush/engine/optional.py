"""A call that a push can do without, where the registry does not grant it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from asyncpush.errors import AccessDeniedError, RegistryError

T = TypeVar("T")


class OptionalCall:
    """One of a registry's calls that not every principal may make.

    The first who makes it finds out for all others, so that a denial costs one call.
    """

    def __init__(self) -> None:
        self._granted = False
        self._denied = False
        self._trial = anyio.Lock()

    @property
    def denied(self) -> bool:
        """Whether it has turned out that nobody may make it."""
        return self._denied

    async def make(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Make the call, unless it is known to be denied.

        :return: None where it is denied, or is not answered for another reason.
        """
        if not self._granted:
            async with self._trial:
                if self._denied:
                    return None
                if not self._granted:
                    return await self._make(call)
        return await self._make(call)

    async def _make(self, call: Callable[[], Awaitable[T]]) -> T | None:
        try:
            result = await call()
        except AccessDeniedError:
            # Where another repository has been granted it, this one alone is denied.
            self._denied = not self._granted
            return None
        except RegistryError:
            return None
        self._granted = True
        return result
