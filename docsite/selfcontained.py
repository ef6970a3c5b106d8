"""``python -m docsite.selfcontained SITE``: fails if a page fetches anything from elsewhere."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

_FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(_FETCHED.get(tag, ""))
        if address is not None and address.startswith(("http:", "https:", "//")):
            self.foreign.append(f"<{tag}> {address}")


def main() -> int:
    """Look at every page of a built site; 1 if one of them needs a network."""
    pages = sorted(Path(sys.argv[1]).rglob("*.html"))
    found = []
    for path in pages:
        page = _Page()
        page.feed(path.read_text("utf-8"))
        found += [f"{path}: {address}" for address in page.foreign]
    sys.stdout.write(
        "\n".join([*found, f"{len(pages)} pages, {len(found)} fetch from elsewhere\n"])
    )
    return 1 if found or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
