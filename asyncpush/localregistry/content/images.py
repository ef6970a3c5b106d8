"""Rows of images: manifests, their children, and the tags that point at them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from asyncpush.localregistry.content.repositories import Repository
from asyncpush.localregistry.errors import ApiError

# API reference, ImageDetail, lastRecordedPullTime: "at least once every 24 hours".
_PULLS_RECORDED_EVERY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest or index as it was put, and what is to be known of it without reading it."""

    digest: str
    media_type: str
    body: bytes
    artifact_type: str | None
    subject: str | None
    annotations: str | None
    image_size: int
    pushed: float
    pulled: float | None = None
    children: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()

    def arrived(self, now: float, children: tuple[str, ...], blobs: tuple[str, ...]) -> Image:
        """The same image as it comes into another repository."""
        return replace(self, pushed=now, pulled=None, children=children, blobs=blobs)


def get_image(db: sqlite3.Connection, repository: Repository, digest: str) -> Image | None:
    """The image of that digest, without its children and blobs."""
    row = db.execute(
        "SELECT * FROM manifests WHERE repository=? AND digest=?", (repository.id, digest)
    ).fetchone()
    return None if row is None else _from_row(row)


def get_tag(db: sqlite3.Connection, repository: Repository, tag: str) -> str | None:
    """The digest that a tag points at."""
    row = db.execute(
        "SELECT digest FROM tags WHERE repository=? AND tag=?", (repository.id, tag)
    ).fetchone()
    return None if row is None else str(row["digest"])


def list_tags(
    db: sqlite3.Connection,
    repository: Repository,
    after: str = "",
    limit: int = -1,
    digest: str | None = None,
) -> list[str]:
    """Tags in their order, from behind a tag on, of all images or of one."""
    rows = db.execute(
        "SELECT tag FROM tags WHERE repository=:repository AND tag>:after "
        "AND (:digest IS NULL OR digest=:digest) ORDER BY tag LIMIT :limit",
        {"repository": repository.id, "after": after, "digest": digest, "limit": limit},
    )
    return [row["tag"] for row in rows]


def list_image_ids(
    db: sqlite3.Connection,
    repository: Repository,
    after: tuple[str, str],
    limit: int,
    *,
    tagged: bool | None,
) -> list[tuple[str, str]]:
    """Pairs of digest and tag (empty for none) in their order, from behind a pair on."""
    rows = db.execute(
        "SELECT m.digest, ifnull(t.tag, '') AS tag FROM manifests m LEFT JOIN tags t "
        "ON t.repository=m.repository AND t.digest=m.digest WHERE m.repository=:repository "
        "AND (m.digest, ifnull(t.tag, '')) > (:digest, :tag) "
        "AND (:tagged IS NULL OR (t.tag IS NOT NULL)=:tagged) ORDER BY 1, 2 LIMIT :limit",
        {
            "repository": repository.id,
            "digest": after[0],
            "tag": after[1],
            "limit": limit,
            "tagged": tagged,
        },
    )
    return [(row["digest"], row["tag"]) for row in rows]


def list_images(
    db: sqlite3.Connection, repository: Repository, after: str, limit: int, *, tagged: bool | None
) -> list[Image]:
    """Images in the order of their digests, from behind a digest on."""
    rows = db.execute(
        "SELECT * FROM manifests m WHERE repository=:repository AND digest>:after "
        "AND (:tagged IS NULL OR EXISTS "
        "(SELECT 1 FROM tags t WHERE t.repository=m.repository AND t.digest=m.digest)"
        "=:tagged) ORDER BY digest LIMIT :limit",
        {"repository": repository.id, "after": after, "limit": limit, "tagged": tagged},
    )
    return [_from_row(row) for row in rows]


def list_referrers(db: sqlite3.Connection, repository: Repository, subject: str) -> list[Image]:
    """Images whose subject is that digest, in the order of their digests."""
    rows = db.execute(
        "SELECT * FROM manifests WHERE repository=? AND subject=? ORDER BY digest",
        (repository.id, subject),
    )
    return [_from_row(row) for row in rows]


def has_images(db: sqlite3.Connection, repository: Repository) -> bool:
    """Whether the repository has any image."""
    rows = db.execute("SELECT 1 FROM manifests WHERE repository=? LIMIT 1", (repository.id,))
    return rows.fetchone() is not None


def put_image(
    db: sqlite3.Connection, repository: Repository, image: Image, tag: str | None
) -> None:
    """Add an image, a tag for it, or both.

    :raises ApiError: ImageAlreadyExistsException if nothing is new;
        ImageTagAlreadyExistsException if an immutable tag points elsewhere.
    """
    known = get_image(db, repository, image.digest) is not None
    current = None if tag is None else get_tag(db, repository, tag)
    registry = repository.registry
    if known and (tag is None or current == image.digest):
        tagged = "" if tag is None else f" and tag '{tag}'"
        raise ApiError(
            "ImageAlreadyExistsException",
            f"Image with digest '{image.digest}'{tagged} already exists in the repository with "
            f"name '{repository.name}' in registry with id '{registry.account}'",
        )
    if current is not None and repository.immutable:
        raise ApiError(
            "ImageTagAlreadyExistsException",
            f"The image tag '{tag}' already exists in the '{repository.name}' repository and "
            "cannot be overwritten because the tag is immutable.",
        )
    if not known:
        db.execute(
            "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                repository.id,
                image.digest,
                image.media_type,
                image.body,
                image.artifact_type,
                image.subject,
                image.annotations,
                image.image_size,
                image.pushed,
                image.pulled,
            ),
        )
        db.executemany(
            "INSERT OR IGNORE INTO children VALUES (?, ?, ?)",
            ((repository.id, image.digest, child) for child in image.children),
        )
        db.executemany(
            "INSERT OR IGNORE INTO manifest_blobs VALUES (?, ?, ?)",
            ((repository.id, image.digest, blob) for blob in image.blobs),
        )
    if tag is not None:
        db.execute(
            "INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", (repository.id, tag, image.digest)
        )


def record_pull(db: sqlite3.Connection, repository: Repository, digest: str, now: float) -> None:
    """Take note that an image was pulled; as in ECR, once in 24 hours at least."""
    db.execute(
        "UPDATE manifests SET pulled=:now WHERE repository=:repository AND digest=:digest "
        "AND (pulled IS NULL OR pulled<=:due)",
        {
            "now": now,
            "repository": repository.id,
            "digest": digest,
            "due": now - _PULLS_RECORDED_EVERY,
        },
    )


def remove_tag(db: sqlite3.Connection, repository: Repository, tag: str) -> None:
    """Remove a tag, and leave its image."""
    db.execute("DELETE FROM tags WHERE repository=? AND tag=?", (repository.id, tag))


def remove_image(db: sqlite3.Connection, repository: Repository, digest: str) -> None:
    """Remove an image with its tags."""
    db.execute("DELETE FROM manifests WHERE repository=? AND digest=?", (repository.id, digest))


def parents_of(db: sqlite3.Connection, repository: Repository, digest: str) -> list[str]:
    """Digests of the indexes that name an image."""
    rows = db.execute(
        "SELECT parent FROM children WHERE repository=? AND child=?", (repository.id, digest)
    )
    return [row["parent"] for row in rows]


def children_of(db: sqlite3.Connection, repository: Repository, digest: str) -> tuple[str, ...]:
    """Digests of the images that an index names."""
    rows = db.execute(
        "SELECT child FROM children WHERE repository=? AND parent=?", (repository.id, digest)
    )
    return tuple(row["child"] for row in rows)


def blobs_of(db: sqlite3.Connection, repository: Repository, digest: str) -> tuple[str, ...]:
    """Digests of the blobs that a manifest names, foreign ones left out."""
    rows = db.execute(
        "SELECT digest FROM manifest_blobs WHERE repository=? AND manifest=?",
        (repository.id, digest),
    )
    return tuple(row["digest"] for row in rows)


def is_referenced(db: sqlite3.Connection, repository: Repository, blob: str) -> bool:
    """Whether any manifest of the repository names a blob."""
    rows = db.execute(
        "SELECT 1 FROM manifest_blobs WHERE repository=? AND digest=? LIMIT 1",
        (repository.id, blob),
    )
    return rows.fetchone() is not None


def _from_row(row: sqlite3.Row) -> Image:
    return Image(
        digest=row["digest"],
        media_type=row["media_type"],
        body=row["body"],
        artifact_type=row["artifact_type"],
        subject=row["subject"],
        annotations=row["annotations"],
        image_size=row["image_size"],
        pushed=row["pushed"],
        pulled=row["pulled"],
    )
