"""Commands import what they need: starting must not cost more than a small push."""

from __future__ import annotations

import subprocess
import sys

import pytest

from asyncpush.cli.main import cli

HEAVY = ("aiobotocore", "aiohttp.web", "asyncpush.localregistry", "botocore", "pydantic", "yaml")


@pytest.mark.parametrize("name", cli.commands_in)
def test_every_command_is_where_the_group_says(name: str) -> None:
    command = cli.get_command(None, name)
    assert command is not None
    assert command.name == name


def test_a_command_that_does_not_exist_is_none() -> None:
    assert cli.get_command(None, "pull") is None


def test_push_starts_without_what_only_others_need() -> None:
    code = (
        "import sys\nfrom asyncpush.cli.main import cli\ncli.get_command(None, 'push')\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
