"""Collects all mistakes of a job file, each with its line and key, and parses its templates."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncpush.documents.problems import located
from asyncpush.documents.yaml import Key, Lines
from asyncpush.errors import AsyncpushError, UsageError
from asyncpush.job.template import Template, parse_template

_ROLE = re.compile(r"arn:aws[a-z0-9-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+")


@dataclass
class Collector:
    """What is needed to read any part of a job file.

    :param settings: values of ``{set.KEY}``.
    :param environ: values of ``{env.NAME}``.
    :param problems: the mistakes so far.
    """

    path: Path
    lines: Lines
    settings: Mapping[str, str]
    environ: Mapping[str, str]
    problems: list[UsageError] = field(default_factory=list)

    def template(self, text: str | None, where: Key, names: tuple[str, ...]) -> Template | None:
        if text is None:
            return None
        with self.at(where):
            return parse_template(text, names, self.environ, self.settings)
        return None

    def check_unique(self, names: list[str], where: Key) -> None:
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.add(f"the name {name} is here for the second time", where)

    def unknown(
        self, kind: str, name: str, known: Sequence[str] | Mapping[str, Any], where: Any
    ) -> None:
        close = difflib.get_close_matches(name, list(known), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        advice = f"there is {', '.join(known)}" if known else f"give one of the {kind} a name"
        self.add(f"no {kind} have the name {name}{hint}", where, advice)

    def add(self, message: str, where: Key, advice: str = "") -> None:
        self.problems.append(
            located(UsageError(message, advice=advice), self.path, self.lines, where)
        )

    def at(self, where: Key) -> _Collecting:
        def collect(error: AsyncpushError) -> None:
            self.add(error.message, where, error.advice)

        return _Collecting(collect)

    def check_role(self, role: Template, where: Key) -> None:
        example = {"account": "0" * 12, "region": "x"}
        if not _ROLE.fullmatch(role.render(example)):
            self.add(
                f"{role.source} is no role's ARN", where, "write arn:aws:iam::{account}:role/NAME"
            )


class _Collecting:
    """Turns an error inside of the context into one of the job's problems."""

    def __init__(self, collect: Callable[[AsyncpushError], None]) -> None:
        self._collect = collect

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, value: BaseException | None, traceback: object) -> bool:
        if isinstance(value, AsyncpushError):
            self._collect(value)
            return True
        return False
