"""What can be tuned on ``/v2/``: who may come in, what may be mounted, where it is as ECR is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Mounting = Literal["off", "on", "ecr"]
Authentication = Literal["basic", "bearer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionOptions:
    """How the OCI distribution API behaves; the defaults are as Amazon ECR does it.

    :raises ValueError: a value that cannot be meant.
    """

    authentication: Authentication = "basic"
    """``basic`` takes the authorization token with every call; ``bearer`` sends callers to the
    token service at ``/token``, which takes that token, or an access key's id and secret."""

    bearer_lifetime: int = 300
    """Seconds that a token of the token service lives; clients read them as a whole number."""

    anonymous_pull: bool = False
    """Whether it may be read without credentials."""

    anonymous_push: bool = False
    """Whether it may be read and written without credentials."""

    create_on_push: bool = False
    """Whether a repository that is missing is created when something is pushed to it."""

    mounting: Mounting = "ecr"
    """Which blobs of another repository ``?mount=`` shares: none; ``on``, any that it holds; or
    ``ecr``, those that its manifests reference, between repositories of equal encryption, once the
    account setting BLOB_MOUNTING is ENABLED."""

    blob_mounting: bool = False
    """Whether BLOB_MOUNTING is ENABLED where no account setting was put."""

    patch_status: Literal[201, 202] = 201
    """The status of a chunk that was taken: ECR's is 201, the specification's 202."""

    min_chunks: bool = True
    """Whether a chunk below ``min_part_size`` is refused in the end unless it is the last, and
    ``OCI-Chunk-Min-Length`` says so."""

    empty_blobs: bool = False
    """Whether a blob may be empty; ECR answers HTTP 500."""

    stale_range: bool = True
    """Whether the answer to a chunk tells the end of the session's first chunk in ``Range``, as
    ECR does (aws/containers-roadmap 2831), rather than the end of what it has."""

    missing_repository: Literal["answer", "cut"] = "answer"
    """Whether pushing to a repository that is missing is answered with NAME_UNKNOWN, or its
    connection is cut, as ECR has done."""

    absolute_locations: bool = False
    """Whether ``Location`` headers have scheme and host."""

    def __post_init__(self) -> None:
        choices = {"authentication": Authentication, "mounting": Mounting}
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name}: {getattr(self, name)!r} is none of {get_args(kind)}")
        if self.bearer_lifetime <= 0:
            raise ValueError(f"bearer_lifetime: {self.bearer_lifetime!r} is not above 0")


PLAIN_REGISTRY = DistributionOptions(
    anonymous_push=True,
    create_on_push=True,
    mounting="on",
    patch_status=202,
    min_chunks=False,
    empty_blobs=True,
    stale_range=False,
)
"""A registry by the specification, open to everybody on this machine."""
