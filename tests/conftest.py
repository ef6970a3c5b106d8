"""Fixtures of the whole suite."""

from __future__ import annotations

import awsmodels
import pytest

awsmodels.read_once()
pytest_plugins = ["pytester"]


@pytest.fixture
def anyio_backend() -> str:
    """The engine stands on asyncio's transports (aiobotocore), so trio is no option."""
    return "asyncio"
