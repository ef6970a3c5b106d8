"""What a private ECR registry lists: repositories, and tags with the times of pushes and pulls."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from typing import Any, Protocol

import anyio.from_thread

from asyncpush.errors import AccessDeniedError, RepositoryNotFoundError
from asyncpush.oci.digest import Digest
from asyncpush.plan.choose import TagInfo
from asyncpush.plan.listing import NAME_THEM, read_pages
from asyncpush.plan.reference import Registry
from asyncpush.registries.ecr.errors import translating

# botocore's ecr model: MaxResults, 1 to 1,000.
_PAGE = 1000


class Ask(Protocol):
    """Makes a call on the event loop for a thread that waits for it."""

    def __call__(self, name: str, call: Callable[[], Coroutine[Any, Any, Any]], /) -> Any:
        """Make a call, again if need be.

        :param name: the API's name of the call.
        """
        ...


def ask_once(_name: str, call: Callable[[], Coroutine[Any, Any, Any]], /) -> Any:
    """Make a call on the event loop that started this thread, without trying again."""
    return anyio.from_thread.run(call)


class EcrListing:
    """A :class:`~asyncpush.plan.listing.Listing` of ECR.

    It takes ``ecr:DescribeRepositories`` for patterns and ``ecr:DescribeImages`` for tags. Methods
    block and run on a worker thread of anyio; a page of 1,000 is in memory at a time.

    :param client: an aiobotocore ECR client without retries.
    :param registry: the registry, which may be another account's.
    :param ask: makes calls on the event loop.
    """

    push_times = True
    pull_times = True

    def __init__(self, client: Any, registry: Registry, ask: Ask = ask_once) -> None:
        self._client = client
        self._registry = registry
        self._ask = ask

    def repositories(self, pattern: str) -> Iterator[str]:
        """All names of repositories: the API has no filter for them.

        :param pattern: for the error alone.
        :raises AccessDeniedError: they may not be listed.
        """

        def fetch(token: str | None) -> tuple[list[str], str | None]:
            answer = self._page("DescribeRepositories", token, registry=self._registry.host)
            names = [one["repositoryName"] for one in answer.get("repositories", ())]
            return names, answer.get("nextToken")

        try:
            yield from read_pages(fetch, self._registry.host)
        except AccessDeniedError as exc:
            exc.advice = f"{exc.advice}; or {NAME_THEM}"
            raise exc.at(images=f"{self._registry.host}/{pattern}") from exc.__cause__

    def tags(self, repository: str) -> Iterator[TagInfo]:
        """A repository's tags, those of one image one after the other.

        :raises RepositoryNotFoundError: it does not exist.
        :raises AccessDeniedError: they may not be listed.
        """
        where = f"{self._registry.host}/{repository}"

        def fetch(token: str | None) -> tuple[Iterator[TagInfo], str | None]:
            answer = self._page(
                "DescribeImages",
                token,
                {"repositoryName": repository, "filter": {"tagStatus": "TAGGED"}},
                repository=where,
            )
            details = answer.get("imageDetails", ())
            return (tag for detail in details for tag in _tags(detail)), answer.get("nextToken")

        try:
            yield from read_pages(fetch, where)
        except RepositoryNotFoundError as exc:
            exc.advice = "check name, account and Region of the source"
            raise
        except AccessDeniedError as exc:
            exc.advice = f"{exc.advice}; or name images with their tags: {where}:TAG"
            raise

    def _page(
        self, call: str, token: str | None, more: dict[str, Any] | None = None, **where: str
    ) -> dict[str, Any]:
        arguments = {"registryId": self._registry.account, "maxResults": _PAGE, **(more or {})}
        if token is not None:
            arguments["nextToken"] = token
        methods = {
            "DescribeRepositories": self._client.describe_repositories,
            "DescribeImages": self._client.describe_images,
        }

        async def ask() -> dict[str, Any]:
            with translating(call, **where):
                answer: dict[str, Any] = await methods[call](**arguments)
            return answer

        answer: dict[str, Any] = self._ask(call, ask)
        return answer


def _tags(detail: dict[str, Any]) -> Iterator[TagInfo]:
    pushed: datetime | None = detail.get("imagePushedAt")
    pulled: datetime | None = detail.get("lastRecordedPullTime")
    for tag in detail.get("imageTags", ()):
        yield TagInfo(tag, Digest(detail["imageDigest"]), pushed, pulled)
