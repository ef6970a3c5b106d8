"""The operations on repositories."""

from __future__ import annotations

from typing import Any

from asyncpush.localregistry.call import Call
from asyncpush.localregistry.errors import ApiError, invalid_parameter
from asyncpush.localregistry.images import has_images
from asyncpush.localregistry.pages import cut_page, page_size, read_token
from asyncpush.localregistry.params import Params, check_repository
from asyncpush.localregistry.repositories import (
    Repository,
    create_repository,
    delete_repository,
    get_repository,
    list_repositories,
    set_immutable,
)
from asyncpush.localregistry.store import Database

_MUTABILITY = ("MUTABLE", "IMMUTABLE", "IMMUTABLE_WITH_EXCLUSION", "MUTABLE_WITH_EXCLUSION")


async def create(call: Call, params: Params) -> dict[str, Any]:
    """CreateRepository."""
    name = params.repository()
    call.authorize("CreateRepository", name)
    immutable = _is_immutable(params)
    scan = params.structure("imageScanningConfiguration").flag("scanOnPush")
    encryption = params.structure("encryptionConfiguration").optional_text("encryptionType")
    if encryption not in (None, "AES256"):
        raise invalid_parameter("The local registry has no encryption other than AES256.")
    if params.items("tags", dict, 50):
        raise invalid_parameter("The local registry keeps no resource tags.")
    now = call.services.options.clock()

    def work(db: Database) -> dict[str, Any]:
        with db.transaction() as connection:
            repository = create_repository(
                connection, call.registry, name, now, immutable=immutable, scan_on_push=scan
            )
        return {"repository": _document(repository)}

    return await call.services.store.run(work)


async def describe(call: Call, params: Params) -> dict[str, Any]:
    """DescribeRepositories, of all repositories page by page, or of those that are named."""
    names = params.items("repositoryNames", str, 100)
    if names is not None:
        if "maxResults" in params.document or "nextToken" in params.document:
            raise invalid_parameter("repositoryNames cannot be used with maxResults or nextToken.")
        for name in names:
            call.authorize("DescribeRepositories", check_repository(name))
    else:
        call.authorize("DescribeRepositories", "*")
    limit = page_size(params)
    (after,) = read_token(params, 1)

    def work(db: Database) -> dict[str, Any]:
        with db.transaction() as connection:
            if names is not None:
                found = [get_repository(connection, call.registry, name) for name in names]
                return {"repositories": [_document(r) for r in found]}
            found = list_repositories(connection, call.registry, after, limit + 1)
        page, token = cut_page(found, limit, lambda repository: (repository.name,))
        return {"repositories": [_document(r) for r in page], **token}

    return await call.services.store.run(work)


async def delete(call: Call, params: Params) -> dict[str, Any]:
    """DeleteRepository; one with images only by force."""
    name = params.repository()
    force = params.flag("force")
    call.authorize("DeleteRepository", name)
    services = call.services

    def work(db: Database) -> dict[str, Any]:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            if not force and has_images(connection, repository):
                raise ApiError(
                    "RepositoryNotEmptyException",
                    f"The repository with name '{name}' in registry with id "
                    f"'{call.registry.account}' cannot be deleted because it still contains images",
                )
            orphans = delete_repository(connection, repository)
        for digest in orphans:
            services.files.blob(digest).unlink(missing_ok=True)
        services.uploads.end_all(repository)
        return {"repository": _document(repository)}

    return await services.store.run(work)


async def put_tag_mutability(call: Call, params: Params) -> dict[str, Any]:
    """PutImageTagMutability."""
    name = params.repository()
    params.text("imageTagMutability")
    immutable = _is_immutable(params)
    call.authorize("PutImageTagMutability", name)

    def work(db: Database) -> dict[str, Any]:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            set_immutable(connection, repository, immutable=immutable)
        return {
            "registryId": call.registry.account,
            "repositoryName": name,
            "imageTagMutability": _mutability(immutable=immutable),
        }

    return await call.services.store.run(work)


def _is_immutable(params: Params) -> bool:
    choice = params.choice("imageTagMutability", _MUTABILITY)
    if choice in _MUTABILITY[2:] or params.items("imageTagMutabilityExclusionFilters", dict, 5):
        raise invalid_parameter("The local registry has no exclusion filters for tag mutability.")
    return choice == "IMMUTABLE"


def _mutability(*, immutable: bool) -> str:
    return "IMMUTABLE" if immutable else "MUTABLE"


def _document(repository: Repository) -> dict[str, Any]:
    registry = repository.registry
    suffix = "amazonaws.com.cn" if registry.partition == "aws-cn" else "amazonaws.com"
    return {
        "repositoryArn": registry.repository_arn(repository.name),
        "registryId": registry.account,
        "repositoryName": repository.name,
        "repositoryUri": f"{registry.account}.dkr.ecr.{registry.region}.{suffix}/{repository.name}",
        "createdAt": repository.created,
        "imageTagMutability": _mutability(immutable=repository.immutable),
        "imageScanningConfiguration": {"scanOnPush": repository.scan_on_push},
        "encryptionConfiguration": {"encryptionType": "AES256"},
    }
