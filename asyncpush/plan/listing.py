"""What registries list: repositories and tags, page by page, and opening what they list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from asyncpush.errors import AsyncpushError
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import Content
from asyncpush.plan.choose import TagInfo
from asyncpush.plan.pages import MOST_PAGES, PageGuard
from asyncpush.plan.reference import AnyRegistry, Repository

T = TypeVar("T")

NAME_THEM = "name the repositories in images: instead of a pattern"
"""What to do where a registry lists no repositories."""

FindTags = Callable[[Repository, Sequence[str]], Mapping[str, Digest]]
"""What tags of a target point to, less those that do not exist or may not be asked for."""


@dataclass(frozen=True, slots=True)
class SourceAccess:
    """How the registry of a source is asked, where that is not as for any other.

    :param profile: a profile of the shared AWS configuration.
    :param role_arn: a role to assume.
    :param external_id: what the role's trust policy asks for.
    :param plain_http: without TLS, also beyond this machine.
    """

    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = None
    plain_http: bool = False


AS_ANY = SourceAccess()
"""As any other source is asked."""


class Listing(Protocol):
    """What one registry lists. Methods block; they run on the thread that plans."""

    @property
    def push_times(self) -> bool:
        """Whether its tags come with ``pushed_at``."""
        ...

    @property
    def pull_times(self) -> bool:
        """Whether its tags come with ``pulled_at``."""
        ...

    def repositories(self, pattern: str) -> Iterator[str]:
        """Names of repositories, read page by page as they are asked for.

        :param pattern: a glob; the listing may give others, which the caller leaves out, but not
            fewer.
        :raises AccessDeniedError: it may not be listed; the advice is :data:`NAME_THEM`.
        :raises RegistryError: it has no such list, with the same advice; or it fails.
        """
        ...

    def tags(self, repository: str) -> Iterator[TagInfo]:
        """A repository's tags, read page by page as they are asked for.

        :raises RepositoryNotFoundError: it does not exist.
        :raises RegistryError: it cannot be listed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """Some images of one repository.

    :param tags: the images by their tags; none for one that is named by its digest.
    :param digest: the digest that is named; with a tag, what the tag is taken for.
    """

    repository: Repository
    tags: tuple[TagInfo, ...] = ()
    digest: Digest | None = None

    def __str__(self) -> str:
        names = ", ".join(tag.name for tag in self.tags[:3])
        more = len(self.tags) - 3
        tags = f":{names}" if names else ""
        return f"{self.repository}{tags}" + (f" and {more} more" if more > 0 else "")


class Catalog(Protocol):
    """Lists registries and opens what they list. Methods block, as those of a listing do."""

    def listing(self, registry: AnyRegistry, access: SourceAccess) -> Listing:
        """What a registry lists."""
        ...

    def open(
        self, wanted: Iterable[Wanted], access: SourceAccess
    ) -> Iterator[tuple[Wanted, Content | AsyncpushError]]:
        """Open images, each repository's as content whose entries are named by their tags.

        A bounded number of what is wanted is taken ahead, so that several can be asked for at once.

        :return: all that is wanted, in the order in which it came, with its content, or with the
            error why none of it can be had. What single tags meet is in the content's ``problems``.
        """
        ...


def read_pages(
    fetch: Callable[[str | None], tuple[Iterable[T], str | None]],
    what: str,
    *,
    most_pages: int = MOST_PAGES,
) -> Iterator[T]:
    """Read a listing page by page; one page is in memory at a time.

    :param fetch: reads the page of a token, None for the first, and gives the next page's token,
        None behind the last.
    :param what: whose listing it is, for errors.
    :raises RegistryError: a page comes again, or there is no end of pages.
    """
    token: str | None = None
    guard = PageGuard(what, most_pages)
    while True:
        found, token = fetch(token)
        page = tuple(found)
        guard.check(page, token)
        yield from page
        if token is None:
            return
