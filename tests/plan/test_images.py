"""What ``images:`` of a source names, and reading listings page by page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.errors import InvalidReferenceError, RegistryError
from asyncpush.plan.images import matches_path, parse_images
from asyncpush.plan.listing import read_pages
from asyncpush.plan.reference import DistributionRegistry, Registry

ECR = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "host", "repositories", "reference"),
    [
        ("docker://localhost:5000/team/*", "localhost:5000", "team/*", None),
        ("docker://ghcr.io/team/app", "ghcr.io", "team/app", None),
        ("docker://ghcr.io/team/app:v1", "ghcr.io", "team/app", "ghcr.io/team/app:v1"),
        (f"docker://[::1]:5000/a@{DIGEST}", "[::1]:5000", "a", f"[::1]:5000/a@{DIGEST}"),
        ("docker://docker.io/nginx:1", "docker.io", "library/nginx", "docker.io/library/nginx:1"),
        ("public.ecr.aws/x/*", "public.ecr.aws", "x/*", None),
        (f"{ECR}/team/**", ECR, "team/**", None),
        (f"docker://{ECR}/team/app", ECR, "team/app", None),
        ("arn:aws:ecr:eu-west-1:111122223333:repository/dev/*", ECR, "dev/*", None),
        ("arn:aws:ecr:eu-west-1:111122223333:repository/app:v1", ECR, "app", f"{ECR}/app:v1"),
    ],
)
def test_images(text: str, host: str, repositories: str, reference: str | None) -> None:
    found = parse_images(text)
    assert (found.registry.host, found.repositories) == (host, repositories)
    assert (str(found.reference) if found.reference else None) == reference
    assert isinstance(found.registry, Registry if host == ECR else DistributionRegistry)
    assert found.is_glob == ("*" in text)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("docker://ghcr.io/team/*:v1", "no tag and no digest"),
        (f"{ECR}/*@{DIGEST}", "no tag and no digest"),
        ("docker://ghcr.io", "names no repository|takes no repository|no host|no ECR"),
        ("docker://gh*.io/team", "no host"),
        ("team/*", "no ECR reference"),
        ("docker://user:secret@ghcr.io/*", "without name and password"),
        ("docker://h/" + "*" * 9000, "characters"),
        ("arn:aws:ecr:eu-west-1:111122223333:other/*", "no ECR reference"),
    ],
)
def test_what_names_no_images(text: str, match: str) -> None:
    with pytest.raises(InvalidReferenceError, match=match) as caught:
        parse_images(text)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=30) | st.text("docker:/*@[]?arn.awsehr-1", max_size=60))
def test_hostile_texts_are_images_or_a_usage_error(text: str) -> None:
    try:
        found = parse_images(text)
    except InvalidReferenceError:
        return
    assert found.registry.host
    assert isinstance(found.matches("team/app"), bool)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("team/*", ["team/a"], ["team", "team/a/b", "other/a"]),
        ("team/**", ["team/a", "team/a/b"], ["other/a"]),
        ("**", ["a", "a/b/c"], []),
        ("**/api", ["api", "a/api", "a/b/api"], ["api/a"]),
        ("te?m/[ab]*", ["team/app", "team/b"], ["team/c"]),
        ("a/**/z/**", ["a/z", "a/b/z/c"], ["a/b"]),
    ],
)
def test_globs_stay_between_slashes(pattern: str, inside: list[str], outside: list[str]) -> None:
    assert [name for name in inside + outside if matches_path(pattern, name)] == inside


def test_pages_are_read_as_they_are_asked_for() -> None:
    fetched: list[str | None] = []

    def fetch(token: str | None) -> tuple[list[int], str | None]:
        fetched.append(token)
        number = int(token or 0)
        return [number * 2, number * 2 + 1], str(number + 1) if number < 4 else None

    pages = read_pages(fetch, "ghcr.io")
    assert [next(pages), next(pages)] == [0, 1]
    assert fetched == [None]
    assert list(pages) == list(range(2, 10))


def test_pagination_that_loops_or_never_ends_is_an_error() -> None:
    with pytest.raises(RegistryError, match=r"loops.*ghcr\.io"):
        list(read_pages(lambda token: ([1], "b" if token == "a" else "a"), "ghcr.io"))
    with pytest.raises(RegistryError, match="more than 50 pages"):
        list(read_pages(lambda token: ([token], str(int(token or 0) + 1)), "h", most_pages=50))
    with pytest.raises(RegistryError, match="loops"):
        list(read_pages(lambda token: ([1], str(int(token or 0) + 1)), "h"))
    with pytest.raises(RegistryError, match="more than 101 empty pages"):
        list(read_pages(lambda token: ([], str(int(token or 0) + 1)), "h"))
