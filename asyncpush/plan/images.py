"""Images in registries as sources name them: one image, one repository, or a glob over them."""

from __future__ import annotations

import fnmatch
import glob
from dataclasses import dataclass

from asyncpush.errors import InvalidReferenceError
from asyncpush.plan.reference import (
    AnyRegistry,
    Reference,
    Repository,
    parse_reference,
    parse_registry,
    without_password,
)
from asyncpush.plan.sources import parse_remote

_MOST_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class ImagePattern:
    """What ``images:`` of a source names.

    :param registry: where it is.
    :param repositories: a repository's name, or a glob over names: ``*`` stays between two slashes,
        ``**`` crosses them.
    :param reference: the one image that is meant, where there is no choice.
    """

    registry: AnyRegistry
    repositories: str
    reference: Reference | None = None

    @property
    def is_glob(self) -> bool:
        """Whether the registry must list its repositories."""
        return glob.has_magic(self.repositories)

    @property
    def repository(self) -> Repository:
        """The one repository that is named."""
        return Repository(self.registry, self.repositories)

    def matches(self, name: str) -> bool:
        """Whether a repository's name is meant."""
        return matches_path(self.repositories, name)

    def __str__(self) -> str:
        if self.reference is not None:
            return str(self.reference)
        return f"{self.registry.host}/{self.repositories}"


def parse_images(text: str) -> ImagePattern:
    """Read ``docker://HOST/REPO``, an ECR reference or an ARN, with a tag, a digest or globs.

    :raises InvalidReferenceError: it is none of these, or a glob with a tag.
    """
    if len(text) > _MOST_CHARACTERS:
        raise InvalidReferenceError(
            f"{text[:60]}... has {len(text)} characters, {_MOST_CHARACTERS} at most are read"
        )
    # The brackets of an IPv6 address in the host are no glob.
    if not glob.has_magic(text.removeprefix("docker://").partition("/")[2]):
        reference = parse_remote(text)
        single = reference.tag is not None or reference.digest is not None
        repository = reference.repository
        return ImagePattern(repository.registry, repository.name, reference if single else None)
    registry, pattern = _split(text)
    if not pattern or ":" in pattern or "@" in pattern:
        raise InvalidReferenceError(
            "a pattern of repositories has no tag and no digest",
            advice="choose tags with tags: {include: [...]} of the source",
            reference=without_password(text),
        )
    return ImagePattern(registry, pattern)


def matches_path(pattern: str, path: str) -> bool:
    """Whether a glob matches a path: ``*`` within one of its parts, ``**`` any number of parts."""
    names = path.split("/")
    # Which beginnings of the path are matched by the parts of the pattern so far.
    reached = {0}
    for part in pattern.split("/"):
        if part == "**":
            reached = set(range(min(reached), len(names) + 1)) if reached else set()
        else:
            reached = {
                i + 1 for i in reached if i < len(names) and fnmatch.fnmatchcase(names[i], part)
            }
    return len(names) in reached


def _split(text: str) -> tuple[AnyRegistry, str]:
    """The registry of a pattern, and what stands behind it."""
    if text.startswith("arn:"):
        head, slash, pattern = text.partition("/")
        return parse_reference(f"{head}/any").repository.registry, pattern if slash else ""
    other = text.startswith(("docker://", "public.ecr.aws/"))
    prefix = "docker://" if other else ""
    host, _, pattern = text.removeprefix(prefix).partition("/")
    return parse_registry(f"{prefix}{host}"), pattern
