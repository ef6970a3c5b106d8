"""A Markdown extension that reads tables as GitHub does: ``\\|`` in code is a bar."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from markdown.util import AtomicString

_AFTER_INLINE = 15
"""Priority: below the one that reads code spans (20)."""


class _Bars(Treeprocessor):
    def run(self, root: Element) -> None:
        for table in root.iter("table"):
            for code in table.iter("code"):
                if code.text is not None:
                    code.text = AtomicString(code.text.replace("\\|", "|"))


class TablesExtension(Extension):
    """To be given together with ``tables``."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - Markdown's own name
        """Register with Markdown."""
        md.treeprocessors.register(_Bars(md), "asyncpush-tables", _AFTER_INLINE)


def makeExtension(**settings: object) -> TablesExtension:  # noqa: N802 - Markdown's own name
    """What Markdown calls."""
    return TablesExtension(**settings)
