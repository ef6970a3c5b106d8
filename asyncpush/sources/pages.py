"""Lists that come in pages: read to their end, unless they have none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from asyncpush.errors import RegistryError
from asyncpush.registries.distribution.reading import Page

MOST_NAMES = 1_000_000
"""The longest list that is read: ten times the images that ECR keeps in a repository."""
_MOST_EMPTY = 100


async def names_of(
    page: Callable[[str | None], Awaitable[Page]], what: str, place: str
) -> AsyncIterator[tuple[str, ...]]:
    """The names of a list, page by page, each once.

    :param page: fetches a page; given what the page before it said of the next one.
    :param what: what is listed, for errors.
    :param place: what is asked, for errors.
    :raises RegistryError: the list leads back to itself, or does not end.
    """
    known: set[str] = set()
    asked: set[str] = set()
    following: str | None = None
    empty = 0
    while True:
        found = await page(following)
        fresh = tuple(dict.fromkeys(name for name in found.names if name not in known))
        known.update(fresh)
        if fresh:
            yield fresh
        following = found.following
        if following is None:
            return
        empty = 0 if fresh else empty + 1
        if following in asked or (found.names and not fresh):
            raise RegistryError(
                f"the list of {what} leads back to pages that were read already",
                advice=f"name the {what} one by one; the registry's list is faulty",
                source=place,
            )
        if len(known) > MOST_NAMES or empty > _MOST_EMPTY:
            raise RegistryError(
                f"the list of {what} does not end: {len(known)} names so far",
                advice=f"name the {what} one by one",
                source=place,
            )
        asked.add(following)
