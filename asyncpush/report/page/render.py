"""The page: one file with style, script and data inside, and a policy that allows no more."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from pathlib import Path

from asyncpush.errors import UsageError, printable
from asyncpush.report.document import Report
from asyncpush.report.file import write_whole
from asyncpush.report.findings import analyse
from asyncpush.report.page.data import page_data

_SCRIPTS = (
    "format.js",
    "charts.js",
    "summary.js",
    "tables.js",
    "search.js",
    "rows.js",
    "timeview.js",
    "controls.js",
    "waterfall.js",
    "main.js",
)
_MARK = re.compile(r"\{\{(\w+)\}\}")


def write_page(path: Path, report: Report) -> None:
    """Write a report's page, whole or not at all.

    :raises UsageError: it cannot be written.
    """
    try:
        with write_whole(path) as file:
            file.write(render(report))
    except (OSError, ValueError) as exc:
        raise UsageError(
            f"the page cannot be written: {getattr(exc, 'strerror', None) or exc}",
            advice="choose another file for --html",
            file=str(path),
        ) from exc


def render(report: Report) -> str:
    """A report's page."""
    style = _read("style.css")
    script = "\n".join(["(() => {", '"use strict";', *map(_read, _SCRIPTS), "})();"])
    values = {
        "title": html.escape(printable(f"{report['job']}: {report['outcome']}")),
        "policy": html.escape(_policy(style, script)),
        "style": style,
        "script": script,
        "data": _inert(json.dumps(page_data(report, analyse(report)), separators=(",", ":"))),
    }
    return _MARK.sub(lambda mark: values[mark[1]], _read("page.html"))


def _inert(document: str) -> str:
    """JSON that ends no script element, whatever its strings hold; all of it is ASCII already."""
    return document.replace("<", "\\u003c")


def _policy(style: str, script: str) -> str:
    """What a browser lets the page do: run this script, use this style, and nothing else."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {_source(style)}",
            f"script-src {_source(script)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
