"""Templates: repository names and tags that are made from what an image is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from asyncpush.errors import UsageError

IMAGE_NAMES = (
    "directory",
    "name",
    "tag",
    "digest",
    "short_digest",
    "platform",
    "os",
    "architecture",
    "account",
    "region",
    "source.registry",
    "source.repository",
)
"""Names that each image gives a value to."""
REGISTRY_NAMES = ("account", "region")
"""Names that each registry gives a value to."""
_FAMILIES = ("annotations", "env", "set")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: texts, and names that a value is put in for.

    ``{env.NAME}`` and ``{set.KEY}`` are texts by now; ``{annotations.KEY}`` is a name.
    """

    source: str
    pieces: tuple[tuple[str, str], ...]

    def render(self, values: Mapping[str, str | None]) -> str:
        """Put values in.

        :raises UsageError: this image has no such value.
        """
        return "".join(
            text if kind == "text" else self._value(text, values) for kind, text in self.pieces
        )

    def _value(self, name: str, values: Mapping[str, str | None]) -> str:
        value = values.get(name)
        if value is None and name.startswith("source."):
            raise UsageError(
                f"the template {self.source!r} needs {name}, and the image comes from no registry",
                advice="use {directory} for layouts and archives",
            )
        if value is None:
            raise UsageError(
                f"the template {self.source!r} needs {name}, and the image has none",
                advice="leave such images out with entries or exclude, or change the template",
            )
        return value

    @property
    def resolved(self) -> str:
        """The template with all that is known of it, for the job's fingerprint."""
        return "".join(text if kind == "text" else f"{{{text}}}" for kind, text in self.pieces)


def parse_template(
    source: str,
    names: tuple[str, ...],
    environ: Mapping[str, str],
    settings: Mapping[str, str],
) -> Template:
    """Parse a template; ``{{`` and ``}}`` stand for braces.

    :param names: names that will have a value.
    :param environ: values of ``{env.NAME}``.
    :param settings: values of ``{set.KEY}``.
    :raises UsageError: a brace stands alone, or a name is unknown or has no value.
    """
    pieces: list[tuple[str, str]] = []
    end = 0
    for token in _TOKEN.finditer(source):
        pieces.append(("text", source[end : token.start()]))
        end = token.end()
        if token[0] in ("{{", "}}"):
            pieces.append(("text", token[0][0]))
        elif token[1] is None:
            raise UsageError(
                f"a {token[0]} stands alone", advice=f"write {token[0] * 2} for a brace"
            )
        else:
            pieces.append(_piece(token[1].strip(), names, environ, settings))
    pieces.append(("text", source[end:]))
    return Template(source, tuple(piece for piece in pieces if piece != ("text", "")))


def _piece(
    name: str, names: tuple[str, ...], environ: Mapping[str, str], settings: Mapping[str, str]
) -> tuple[str, str]:
    family, dot, key = name.partition(".")
    if dot and key and family in ("env", "set"):
        values, how = (
            (environ, "set it in the environment")
            if family == "env"
            else (settings, f"give it with --set {key}=VALUE")
        )
        if key not in values:
            raise UsageError(f"{{{name}}} has no value", advice=how)
        return "text", values[key]
    if name in names or (dot and key and family == "annotations" and "name" in names):
        return "name", name
    close = difflib.get_close_matches(name, names, 1)
    known = ", ".join([*names, *(f"{family}.KEY" for family in _FAMILIES)])
    raise UsageError(
        f"{{{name}}} is unknown" + (f"; did you mean {{{close[0]}}}?" if close else ""),
        advice=f"there is {known}",
    )
