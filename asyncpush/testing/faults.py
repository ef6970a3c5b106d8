"""Faults that a test asks for while the registry runs: which calls meet them, and how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asyncpush.localregistry import CallInfo, Fault


@dataclass(slots=True)
class _Wish:
    action: str
    repository: str | None
    fault: Fault
    left: int

    def fits(self, call: CallInfo) -> bool:
        return (
            self.left > 0
            and call.action == self.action
            and self.repository in (None, call.repository)
        )


class FaultList:
    """What calls are to meet, in the order in which it was asked for.

    :param further: asked where nothing in the list fits.
    """

    def __init__(self, further: Callable[[CallInfo], Fault | None] | None) -> None:
        self._further = further
        self._wishes: list[_Wish] = []

    def add(self, action: str, repository: str | None, fault: Fault, times: int) -> None:
        """Let the next calls of an action meet a fault."""
        self._wishes.append(_Wish(action, repository, fault, times))

    def clear(self) -> None:
        """Forget what has not been met."""
        self._wishes.clear()

    def left(self) -> dict[str, int]:
        """How many faults have not been met, by action."""
        left: dict[str, int] = {}
        for wish in self._wishes:
            if wish.left:
                left[wish.action] = left.get(wish.action, 0) + wish.left
        return left

    def __call__(self, call: CallInfo) -> Fault | None:
        """The fault that a call meets: what the registry asks before each call acts."""
        for wish in self._wishes:
            if wish.fits(call):
                wish.left -= 1
                return wish.fault
        return self._further(call) if self._further else None
