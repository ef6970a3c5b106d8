"""Listings that come in pages: they must neither lead back to themselves nor go on for ever."""

from __future__ import annotations

from collections.abc import Sequence

from asyncpush.errors import RegistryError

MOST_PAGES = 100_000
"""The longest listing that is read; registries give 100 to 1,000 names in a page."""
_MOST_EMPTY = 100


class PageGuard:
    """Looks at the pages of one listing.

    :param what: whose listing it is, for errors.
    :param most_pages: how many it may have.
    """

    def __init__(self, what: str, most_pages: int = MOST_PAGES) -> None:
        self._what = what
        self._most_pages = most_pages
        # Hashes instead of tokens and names: those may have any length.
        self._tokens: set[int] = set()
        self._contents: set[int] = set()
        self._count = 0
        self._empty = 0

    def check(self, page: Sequence[object], following: str | None) -> None:
        """Look at the next page.

        :param page: what is in it.
        :param following: what leads to the page behind it; None at the end.
        :raises RegistryError: it was read before, or there is no end of pages.
        """
        self._count += 1
        self._empty = 0 if page else self._empty + 1
        content = hash(tuple(page))
        if following is None:
            return
        if hash(following) in self._tokens or (page and content in self._contents):
            raise RegistryError(
                "the listing loops: a page leads back to one that was read",
                advice="name repositories and tags one by one, and report this to whoever runs the"
                " registry",
                registry=self._what,
            )
        if self._count >= self._most_pages or self._empty > _MOST_EMPTY:
            many = f"{self._empty} empty" if self._empty > _MOST_EMPTY else f"{self._count:,}"
            raise RegistryError(
                f"the listing does not end: more than {many} pages",
                advice="name repositories and tags one by one",
                registry=self._what,
            )
        self._tokens.add(hash(following))
        self._contents.add(content)
