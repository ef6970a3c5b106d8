"""A Markdown extension that puts the command line's reference, taken from click, into a page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor

from asyncpush.cli.main import cli

_MARK = "<!-- all commands -->"
_BEFORE_FENCES = 28
"""Priority: after line ends are made alike (30), before fenced code (25) and HTML (20) is read."""


class _Commands(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        out: list[str] = []
        for line in lines:
            out.extend(reference() if line.strip() == _MARK else [line])
        return out


class CommandsExtension(Extension):
    """Replaces the line ``<!-- all commands -->``."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - Markdown's own name
        """Register with Markdown."""
        md.preprocessors.register(_Commands(md), "asyncpush-commands", _BEFORE_FENCES)


def makeExtension(**settings: object) -> CommandsExtension:  # noqa: N802 - Markdown's own name
    """What Markdown calls."""
    return CommandsExtension(**settings)


def reference() -> Iterator[str]:
    """The lines of Markdown that describe every command, each with all its options."""
    context = click.Context(cli, info_name="asyncpush", max_content_width=88, terminal_width=88)
    yield from _describe(cli, context)


def _describe(command: click.Command, context: click.Context) -> Iterator[str]:
    yield from ("", f"## {context.command_path}", "")
    for paragraph in re.split(r"\n\s*\n", command.help or ""):
        yield from (_plain(paragraph), "")
    yield from ("```text", command.get_usage(context).removeprefix("Usage: "), "```", "")
    yield from _options(command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _describe(child, click.Context(child, context, info_name=name))


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    records = [
        record
        for param in command.get_params(context)
        if isinstance(param, click.Option) and "--help" not in param.opts
        if (record := param.get_help_record(context))
    ]
    if records:
        yield from ("| option | meaning |", "| --- | --- |")
    for names, text in records:
        yield f"| <code>{_plain(names)}</code> | {_plain(text)} |"


def _plain(text: str) -> str:
    """Text that neither Markdown nor HTML reads anything into."""
    text = " ".join(text.split())
    return re.sub(r"[&<>\[\]*_`|#\\{}~]", lambda found: f"&#{ord(found[0])};", text)
