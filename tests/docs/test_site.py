"""What building the site (tox -e docs) does not find out: its navigation, links of the README."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s#]+)[^)]*\)")


class _Config(yaml.SafeLoader):
    """YAML whose tags (!!python/name) are not looked at."""


_Config.add_multi_constructor("", lambda loader, suffix, node: None)


def _pages(nav: Any) -> Iterator[str]:
    match nav:
        case str():
            yield nav
        case dict():
            for entry in nav.values():
                yield from _pages(entry)
        case list():
            for entry in nav:
                yield from _pages(entry)


def test_every_page_is_in_the_navigation_once() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), _Config)
    there = sorted(path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md"))

    assert sorted(_pages(config["nav"])) == there


def test_every_relative_link_of_readme_and_docs_leads_to_a_file() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")]
    pages += ROOT.glob("examples/**/*.md")
    links = [
        (page, target)
        for page in pages
        for target in _LINK.findall(page.read_text())
        if not re.match(r"[a-z]+:", target)
    ]

    assert len(links) > 20
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page, target in links
        if not (page.parent / target).exists()
    ]
    assert dead == []
