"""The document of a job file: its keys and types, from which its JSON Schema is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from asyncpush.documents.problems import Account, Strict, Text
from asyncpush.engine.pace import PUBLISHED_QUOTAS
from asyncpush.registries.ecr.options import TransportName


def _known_call(name: str) -> str:
    if name not in PUBLISHED_QUOTAS:
        raise ValueError(f"there is no quota for {name}; there is {', '.join(PUBLISHED_QUOTAS)}")
    return name


Call = Annotated[str, AfterValidator(_known_call), WithJsonSchema({"enum": list(PUBLISHED_QUOTAS)})]
Quotas = Annotated[
    dict[Call, Annotated[float, Field(gt=0, allow_inf_nan=False)]],
    Field(description="Calls a second by API call, where they are not the published quotas."),
]


class KeptPlatforms(Strict):
    """A smaller index instead of single images."""

    keep: list[Text] = Field(
        min_length=1, description="OS/ARCH[/VARIANT]: an index of these alone, of a new digest."
    )


def _platforms_kind(value: Any) -> str:
    return "[keep]" if isinstance(value, dict | KeptPlatforms) else "[each]"


Platforms = Annotated[
    Annotated[list[Text], Tag("[each]")] | Annotated[KeptPlatforms, Tag("[keep]")],
    Discriminator(_platforms_kind),
]


class Defaults(Strict):
    """What sources and targets have that do not say otherwise."""

    entries: list[Text] | None = Field(None, description="Patterns of entry names.")
    exclude: list[Text] | None = Field(None, description="Patterns of entry names to leave out.")
    platforms: Platforms | None = Field(
        None, description="OS/ARCH[/VARIANT], one image each; or keep:, a smaller index."
    )
    repository: Text | None = Field(None, description="Template of the repository's name.")
    tags: list[Text] | None = Field(None, description="Templates of tags.")


class Options(Strict):
    """The engine's bounds; options of the command line have precedence."""

    images: int | None = Field(None, ge=1, description="Images in flight to each registry.")
    layers: int | None = Field(None, ge=1, description="Layers in flight to each registry.")
    parts: int | None = Field(None, ge=1, description="Part uploads in flight to each registry.")
    connections: int | None = Field(None, ge=1, description="Connections to each registry.")
    attempts: int | None = Field(None, ge=1, description="How often a call is tried.")
    memory_mib: int | None = Field(None, ge=1, description="MiB of buffers for all in flight.")
    part_size_mib: float | None = Field(None, ge=5, le=20, description="MiB of a part.")
    temp_space_mib: int | None = Field(
        None, ge=0, description="MiB of temporary files for what cannot be read in place."
    )
    compress_layers: bool | None = Field(
        None, description="Compress layers of docker-archive: files of the older form."
    )
    include_foreign: bool | None = Field(None, description="Upload foreign layers, too.")
    on_refused: Literal["fail", "warn"] | None = Field(
        None, description="When a registry does not take an artifact."
    )


class RegistryGroup(Strict):
    """Registries that share credentials: accounts x Regions, or hosts."""

    name: Text | None = Field(None, description="What targets call them.")
    accounts: list[Account] | None = Field(None, min_length=1, description="AWS accounts.")
    regions: list[Text] | None = Field(None, min_length=1, description="AWS Regions.")
    hosts: list[Text] | None = Field(
        None,
        min_length=1,
        description="Hosts such as ACCOUNT.dkr.ecr.REGION.amazonaws.com, or docker://HOST[:PORT].",
    )
    profile: Text | None = Field(None, description="Profile of the shared AWS configuration.")
    role_arn: Text | None = Field(
        None, description="Role to assume; a template over account and region."
    )
    external_id: Text | None = Field(
        None, description="External id for the role; a template, as for {env.NAME}."
    )
    endpoint_url: Text | None = Field(None, description="Address of the ECR API.")
    transport: TransportName | None = Field(
        None, description="How to speak to ECR; default: by its own API."
    )
    plain_http: bool | None = Field(
        None, description="Ask docker:// hosts without TLS, also those not on this machine."
    )
    quotas: Quotas | None = None

    @model_validator(mode="before")
    @classmethod
    def _either(cls, value: Any) -> Any:
        if isinstance(value, dict):
            pair = "accounts" in value and "regions" in value
            if pair == ("hosts" in value) or ("accounts" in value) != ("regions" in value):
                raise ValueError("give accounts and regions, or hosts")
            if "external_id" in value and "role_arn" not in value:
                raise ValueError("external_id goes with role_arn")
        return value


class TagChoice(Strict):
    """Which tags of a repository go, or entries of a layout by their names."""

    include: list[Text] | None = Field(None, description="Shell patterns; one must match.")
    exclude: list[Text] | None = Field(None, description="Shell patterns; none may match.")
    semver: Text | None = Field(
        None, description='Range of versions, such as ">=1.2 <2", "^1.4" or "1.x || 3.x".'
    )
    newest: int | None = Field(
        None,
        ge=1,
        description="How many at most: by version with semver, else by time, else by name.",
    )
    newer_than: Text | None = Field(None, description="Pushed in the last 90m, 12h, 90d or 6w.")
    pulled_within: Text | None = Field(
        None, description="Pulled in the last 90d; private ECR alone lists that."
    )


class Source(Strict):
    """Layouts or images of registries, and which of their entries or tags go."""

    layouts: Text | list[Text] | None = Field(
        None,
        description="Globs of OCI layout directories, or of tar files behind oci-archive: or"
        " docker-archive:, relative to the job file; s3://BUCKET/KEY of either.",
    )
    images: Text | list[Text] | None = Field(
        None,
        description="docker://HOST/REPOSITORY[:TAG|@DIGEST], references and ARNs of ECR; globs over"
        " repositories, where ** crosses slashes.",
    )
    tags: TagChoice | None = Field(None, description="Which tags, or names of entries, go.")
    referrers: bool | list[Text] | None = Field(
        None, description="Whether what refers to an image comes along, or which artifact types."
    )
    profile: Text | None = Field(None, description="Profile of the shared AWS configuration.")
    role_arn: Text | None = Field(
        None, description="Role to read with; a template over account and region."
    )
    external_id: Text | None = Field(
        None, description="External id for the role; a template, as for {env.NAME}."
    )
    plain_http: bool | None = Field(
        None, description="Ask docker:// hosts without TLS, also those not on this machine."
    )
    entries: list[Text] | None = Field(None, description="Patterns of entry names; default: all.")
    exclude: list[Text] | None = Field(None, description="Patterns of entry names to leave out.")
    platforms: Platforms | None = Field(
        None,
        description="OS/ARCH[/VARIANT]: that image of an index, one for each platform; or keep:,"
        " a smaller index.",
    )
    targets: list[Text] | None = Field(None, description="Names of targets; default: all.")

    @field_validator("tags", mode="before")
    @classmethod
    def _choice(cls, value: Any) -> Any:
        if isinstance(value, list | str):
            raise ValueError(
                "tags of a source choose what goes, as in {include: [v*]}; templates of tags"
                " belong to a target"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _either(cls, value: Any) -> Any:
        if isinstance(value, dict):
            if ("layouts" in value) == ("images" in value):
                raise ValueError("give layouts or images")
            if "external_id" in value and "role_arn" not in value:
                raise ValueError("external_id goes with role_arn")
            if "images" in value and (value.get("entries") or value.get("exclude")):
                raise ValueError(
                    "entries and exclude choose from layouts; choose from images with"
                    " tags: {include: [...], exclude: [...]}"
                )
        return value


class Target(Strict):
    """Where images go."""

    name: Text | None = Field(None, description="What sources call it.")
    registries: list[Text] | None = Field(None, description="Names of registries; default: all.")
    repository: Text | None = Field(None, description="Template of the repository's name.")
    tags: list[Text] | None = Field(
        None,
        description="Templates of tags; left out, the entry's name gives the tag; empty, none.",
    )
    immutable_tags: list[Text] | None = Field(
        None,
        description="Shell patterns of tags that never move; one that the target lists is not asked"
        " for again.",
    )


class CreateRepositories(Strict):
    """How repositories are created, where --create-repositories asks for it."""

    mutability: Literal["MUTABLE", "IMMUTABLE"] = "MUTABLE"
    encryption: Literal["AES256", "KMS", "KMS_DSSE"] = "AES256"
    kms_key: Text | None = None
    tags: dict[str, str] = Field(default_factory=dict, description="AWS resource tags.")


class JobDocument(Strict):
    """A bulk push: sources, registries, and what goes where."""

    version: Literal[1] = Field(description="Version of this format.")
    name: Text | None = Field(None, description="What people call the job.")
    defaults: Defaults = Defaults()
    options: Options = Options()
    quotas: Quotas | None = None
    registries: list[RegistryGroup] = Field(min_length=1)
    sources: list[Source] = Field(min_length=1)
    targets: list[Target] = Field(min_length=1)
    create_repositories: CreateRepositories = CreateRepositories()


def job_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of job files."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:asyncpush:job:1",
        **JobDocument.model_json_schema(),
    }
