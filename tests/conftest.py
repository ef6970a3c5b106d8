"""Fixtures of the whole suite."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def anyio_backend() -> str:
    """The engine stands on asyncio's transports (aiobotocore), so trio is no option."""
    return "asyncio"
