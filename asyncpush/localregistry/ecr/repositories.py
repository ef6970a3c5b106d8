"""The operations on repositories."""

from __future__ import annotations

from typing import Any

from asyncpush.localregistry.call import Call
from asyncpush.localregistry.content.images import has_images
from asyncpush.localregistry.content.repositories import (
    Encryption,
    Repository,
    create_repository,
    delete_repository,
    get_repository,
    list_repositories,
    repository_tags,
    set_immutable,
)
from asyncpush.localregistry.content.store import Database
from asyncpush.localregistry.ecr.pages import cut_page, page_size, read_token
from asyncpush.localregistry.errors import ApiError, invalid_parameter
from asyncpush.localregistry.identity import Registry
from asyncpush.localregistry.params import Params, check_repository

_MUTABILITY = ("MUTABLE", "IMMUTABLE", "IMMUTABLE_WITH_EXCLUSION", "MUTABLE_WITH_EXCLUSION")
_ENCRYPTION = ("AES256", "KMS", "KMS_DSSE")
_DEFAULT_KEY = "alias/aws/ecr"
# "Tag your resources": at most 50 tags a resource, keys of 128, values of 256 characters.
_MAX_TAGS = 50


async def create(call: Call, params: Params) -> dict[str, Any]:
    """CreateRepository."""
    name = params.repository()
    call.authorize("CreateRepository", name)
    immutable = _is_immutable(params)
    scan = params.structure("imageScanningConfiguration").flag("scanOnPush")
    encryption = _read_encryption(params, call.registry)
    tags = _read_tags(params)
    if tags:
        call.authorize("TagResource", name)
    now = call.services.options.clock()

    def work(db: Database) -> dict[str, Any]:
        with db.transaction() as connection:
            repository = create_repository(
                connection,
                call.registry,
                name,
                now,
                immutable=immutable,
                scan_on_push=scan,
                encryption=encryption,
                tags=tags,
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
        services.policies.forget(repository)
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


async def list_tags(call: Call, params: Params) -> dict[str, Any]:
    """ListTagsForResource."""
    arn = params.text("resourceArn")
    prefix = call.registry.repository_arn("")
    if not arn.startswith(prefix):
        raise invalid_parameter(f"Invalid parameter at 'resourceArn': '{arn}' is no repository")
    name = check_repository(arn.removeprefix(prefix))
    call.authorize("ListTagsForResource", name)

    def work(db: Database) -> dict[str, str]:
        with db.transaction() as connection:
            repository = get_repository(connection, call.registry, name)
            return repository_tags(connection, repository)

    tags = await call.services.store.run(work)
    return {"tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _read_encryption(params: Params, registry: Registry) -> Encryption:
    configuration = params.structure("encryptionConfiguration")
    if not configuration.document:
        return Encryption()
    if configuration.optional_text("encryptionType") is None:
        raise invalid_parameter("encryptionConfiguration has no encryptionType.")
    kind = configuration.choice("encryptionType", _ENCRYPTION)
    key = configuration.optional_text("kmsKey", most=2048)
    if kind is None or kind == "AES256":
        if key is not None:
            raise invalid_parameter("kmsKey cannot be used with the encryption type AES256.")
        return Encryption()
    return Encryption(kind, _kms_arn(key or _DEFAULT_KEY, registry))


def _kms_arn(key: str, registry: Registry) -> str:
    """The ARN that a key's id, alias or ARN stands for; whether the key exists nobody asks."""
    if key.startswith("arn:"):
        return key
    name = key if key.startswith("alias/") else f"key/{key}"
    return f"arn:{registry.partition}:kms:{registry.region}:{registry.account}:{name}"


def _read_tags(params: Params) -> dict[str, str]:
    values = params.items("tags", dict, 10_000) or []
    if len(values) > _MAX_TAGS:
        raise ApiError("TooManyTagsException", f"A repository has at most {_MAX_TAGS} tags.")
    tags = {}
    for value in values:
        tag = Params(value)
        key, text = tag.text("Key"), tag.document.get("Value")
        if not isinstance(text, str) or len(key) > 128 or len(text) > 256:
            raise ApiError("InvalidTagParameterException", f"The tag '{key}' is not valid.")
        tags[key] = text
    return tags


def _is_immutable(params: Params) -> bool:
    choice = params.choice("imageTagMutability", _MUTABILITY)
    if choice in _MUTABILITY[2:] or params.items("imageTagMutabilityExclusionFilters", dict, 5):
        raise invalid_parameter("The local registry has no exclusion filters for tag mutability.")
    return choice == "IMMUTABLE"


def _mutability(*, immutable: bool) -> str:
    return "IMMUTABLE" if immutable else "MUTABLE"


def _document(repository: Repository) -> dict[str, Any]:
    registry = repository.registry
    encryption = {"encryptionType": repository.encryption.type}
    if repository.encryption.kms_key is not None:
        encryption["kmsKey"] = repository.encryption.kms_key
    suffix = "amazonaws.com.cn" if registry.partition == "aws-cn" else "amazonaws.com"
    return {
        "repositoryArn": registry.repository_arn(repository.name),
        "registryId": registry.account,
        "repositoryName": repository.name,
        "repositoryUri": f"{registry.account}.dkr.ecr.{registry.region}.{suffix}/{repository.name}",
        "createdAt": repository.created,
        "imageTagMutability": _mutability(immutable=repository.immutable),
        "imageScanningConfiguration": {"scanOnPush": repository.scan_on_push},
        "encryptionConfiguration": encryption,
    }
