"""The operations that read, list and remove images; PutImage has a file of its own."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from typing import Any

from asyncpush.localregistry.call import Call
from asyncpush.localregistry.content.images import (
    Image,
    get_image,
    get_tag,
    list_image_ids,
    list_images,
    list_tags,
    parents_of,
    record_pull,
    remove_image,
    remove_tag,
)
from asyncpush.localregistry.content.repositories import Repository, get_repository
from asyncpush.localregistry.content.store import Database
from asyncpush.localregistry.ecr.pages import cut_page, page_size, read_token
from asyncpush.localregistry.errors import ApiError, constraint
from asyncpush.localregistry.params import IMAGE_TAG, SHA256_DIGEST, Params

ImageId = dict[str, str]


class _NoImageError(Exception):
    """An image id that leads to no image, with the code of its entry in ``failures``."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def batch_get(call: Call, params: Params) -> dict[str, Any]:
    """BatchGetImage."""
    name = params.repository()
    ids = [read_id(value) for value in params.required_items("imageIds", dict, 100)]
    accepted = params.items("acceptedMediaTypes", str, 100)
    call.authorize("BatchGetImage", name)
    now = call.services.options.clock()

    def work(db: Database) -> dict[str, Any]:
        images, failures = [], []
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            for image_id in ids:
                try:
                    image = _find(connection, repository, image_id)
                    if accepted is not None and image.media_type not in accepted:
                        raise _NoImageError("ImageNotFound", "Requested image not found")
                except _NoImageError as exc:
                    failures.append(_failure(image_id, exc))
                    continue
                record_pull(connection, repository, image.digest, now)
                found = {**image_id, "imageDigest": image.digest}
                images.append(image_document(repository, image, found))
        return {"images": images, "failures": failures}

    return await call.services.store.run(work)


async def describe(call: Call, params: Params) -> dict[str, Any]:
    """DescribeImages, of all images page by page, or of those that are named."""
    name = params.repository()
    values = params.items("imageIds", dict, 100)
    ids = None if values is None else [read_id(value) for value in values]
    limit, tagged = page_size(params), _tag_filter(params)
    (after,) = read_token(params, 1)
    call.authorize("DescribeImages", name)

    def work(db: Database) -> dict[str, Any]:
        token: dict[str, str] = {}
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            if ids is None:
                found = list_images(connection, repository, after, limit + 1, tagged=tagged)
                found, token = cut_page(found, limit, lambda image: (image.digest,))
            else:
                found = [find_or_raise(connection, repository, i) for i in ids]
            details = [_detail(connection, repository, image) for image in found]
        return {"imageDetails": details, **token}

    return await call.services.store.run(work)


async def list_ids(call: Call, params: Params) -> dict[str, Any]:
    """ListImages."""
    name = params.repository()
    limit, tagged = page_size(params), _tag_filter(params)
    digest, tag = read_token(params, 2)
    call.authorize("ListImages", name)

    def work(db: Database) -> dict[str, Any]:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            found = list_image_ids(connection, repository, (digest, tag), limit + 1, tagged=tagged)
        page, token = cut_page(found, limit, lambda pair: pair)
        ids = [{"imageDigest": d} | ({"imageTag": t} if t else {}) for d, t in page]
        return {"imageIds": ids, **token}

    return await call.services.store.run(work)


async def batch_delete(call: Call, params: Params) -> dict[str, Any]:
    """BatchDeleteImage: a tag alone removes the tag, and the image with its last tag."""
    name = params.repository()
    ids = [read_id(value) for value in params.required_items("imageIds", dict, 100)]
    call.authorize("BatchDeleteImage", name)

    def work(db: Database) -> dict[str, Any]:
        deleted, failures = [], []
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            for image_id in ids:
                try:
                    deleted += _delete(connection, repository, image_id)
                except _NoImageError as exc:
                    failures.append(_failure(image_id, exc))
        return {"imageIds": deleted, "failures": failures}

    return await call.services.store.run(work)


def image_document(repository: Repository, image: Image, image_id: ImageId) -> dict[str, Any]:
    """An image as PutImage and BatchGetImage answer it."""
    return {
        "registryId": repository.registry.account,
        "repositoryName": repository.name,
        "imageId": image_id,
        "imageManifest": image.body.decode(),
        "imageManifestMediaType": image.media_type,
    }


def read_id(value: Mapping[str, Any]) -> ImageId:
    """The digest, the tag, or both, that an image is meant by."""
    params = Params(value)
    pairs = ((name, params.optional_text(name)) for name in ("imageDigest", "imageTag"))
    return {name: text for name, text in pairs if text is not None}


def _find(db: sqlite3.Connection, repository: Repository, image_id: ImageId) -> Image:
    digest, tag = image_id.get("imageDigest"), image_id.get("imageTag")
    if digest is None and tag is None:
        raise _NoImageError(
            "MissingDigestAndTag", "Invalid request parameters: both tag and digest are missing"
        )
    if digest is not None and not re.fullmatch(SHA256_DIGEST, digest):
        raise _NoImageError(
            "InvalidImageDigest",
            "Invalid request parameters: image digest is no sha256 digest",
        )
    if tag is not None:
        if not re.fullmatch(IMAGE_TAG, tag):
            raise _NoImageError(
                "InvalidImageTag", "Invalid request parameters: image tag is invalid"
            )
        current = get_tag(db, repository, tag)
        if current is None:
            raise _NoImageError("ImageNotFound", "Requested image not found")
        if digest not in (None, current):
            raise _NoImageError("ImageTagDoesNotMatchDigest", "Image tag does not match the digest")
        digest = current
    assert digest is not None
    image = get_image(db, repository, digest)
    if image is None:
        raise _NoImageError("ImageNotFound", "Requested image not found")
    return image


def find_or_raise(db: sqlite3.Connection, repository: Repository, image_id: ImageId) -> Image:
    """The image that is meant.

    :raises ApiError: ImageNotFoundException, or InvalidParameterException if none can be meant.
    """
    try:
        return _find(db, repository, image_id)
    except _NoImageError as exc:
        if exc.code != "ImageNotFound":
            raise constraint("imageIds", exc.reason) from exc
        shown = ", ".join(
            f"{name}:'{image_id.get(name, 'null')}'" for name in ("imageDigest", "imageTag")
        )
        raise ApiError(
            "ImageNotFoundException",
            f"The image with imageId {{{shown}}} does not exist within the repository with name "
            f"'{repository.name}' in the registry with id '{repository.registry.account}'",
        ) from exc


def _delete(db: sqlite3.Connection, repository: Repository, image_id: ImageId) -> list[ImageId]:
    image = _find(db, repository, image_id)
    tags = list_tags(db, repository, digest=image.digest)
    tag = image_id.get("imageTag")
    if tag is not None and "imageDigest" not in image_id and tags != [tag]:
        remove_tag(db, repository, tag)
        return [{"imageDigest": image.digest, "imageTag": tag}]
    if parents := parents_of(db, repository, image.digest):
        raise _NoImageError(
            "ImageReferencedByManifestList",
            f"Requested image referenced by manifest list: [{', '.join(parents)}]",
        )
    remove_image(db, repository, image.digest)
    return [{"imageDigest": image.digest, "imageTag": t} for t in tags] or [
        {"imageDigest": image.digest}
    ]


def _detail(db: sqlite3.Connection, repository: Repository, image: Image) -> dict[str, Any]:
    optional = {
        "imageTags": list_tags(db, repository, digest=image.digest),
        "artifactMediaType": image.artifact_type,
        "subjectManifestDigest": image.subject,
        "lastRecordedPullTime": image.pulled,
    }
    return {
        "registryId": repository.registry.account,
        "repositoryName": repository.name,
        "imageDigest": image.digest,
        "imageSizeInBytes": image.image_size,
        "imagePushedAt": image.pushed,
        "imageManifestMediaType": image.media_type,
        "imageStatus": "ACTIVE",
        **{name: value for name, value in optional.items() if value},
    }


def _tag_filter(params: Params) -> bool | None:
    wanted = params.structure("filter")
    status = wanted.choice("tagStatus", ("TAGGED", "UNTAGGED", "ANY"))
    wanted.choice("imageStatus", ("ACTIVE", "ANY"))
    return {"TAGGED": True, "UNTAGGED": False}.get(status or "ANY")


def _failure(image_id: ImageId, exc: _NoImageError) -> dict[str, Any]:
    return {"imageId": image_id, "failureCode": exc.code, "failureReason": exc.reason}
