"""Which cases of a parametrized test are to run, for what is begun ahead of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def asked_for(session: pytest.Session, test: Callable[..., None], parameter: str) -> list[Any]:
    """The values of a parameter in the cases of a test that the session runs, in their order."""
    return [
        item.callspec.params[parameter]
        for item in session.items
        if isinstance(item, pytest.Function) and item.function is test
    ]
