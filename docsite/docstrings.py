"""A griffe extension that turns the roles of docstrings (:class:`Name`) into cross-references."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|data|func|meth|mod|attr):`~?([\w.]+)`")
_LITERAL = re.compile(r"``([^`]+)``")


class Roles(griffe.Extension):
    """Writes the docstrings' reStructuredText as the Markdown that the site is made of."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe with every object that it has read."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring as Markdown: roles and literals are code, ``::`` ends as a colon."""
    text = _ROLE.sub(lambda found: f"`{found[1].rpartition('.')[2]}`", text)
    text = _LITERAL.sub(r"`\1`", text)
    return re.sub(r"(?<=\w)::$", ":", text, flags=re.MULTILINE)
