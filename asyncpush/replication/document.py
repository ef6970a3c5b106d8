"""The document of a replication file: its keys and types, from which its JSON Schema is made."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from asyncpush.documents.problems import Account, Strict, Text

# Service model 2015-09-21: RepositoryFilterValue (2 to 256 characters), Region (2 to 25).
_PREFIX = r"(?:[a-z0-9]+(?:[._-][a-z0-9]*)*/)*[a-z0-9]*(?:[._-][a-z0-9]*)*"
# The service model takes any letters, digits and hyphens; a Region's name has this form.
_REGION = r"[a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2}"


def _is_prefix(text: str) -> str:
    if not 2 <= len(text) <= 256 or not re.fullmatch(_PREFIX, text):
        raise ValueError(
            f"{text!r} is no prefix of repository names: 2 to 256 lower-case letters, digits and"
            " . _ - / between them, without *"
        )
    return text


def _is_region(text: str) -> str:
    if len(text) > 25 or not re.fullmatch(_REGION, text):
        raise ValueError(f"{text!r} is no AWS Region, such as eu-central-1")
    return text


Prefix = Annotated[
    str,
    AfterValidator(_is_prefix),
    WithJsonSchema({"type": "string", "minLength": 2, "maxLength": 256, "pattern": f"^{_PREFIX}$"}),
]
Region = Annotated[
    str, AfterValidator(_is_region), WithJsonSchema({"type": "string", "pattern": f"^{_REGION}$"})
]


class DestinationDocument(Strict):
    """A registry that images are replicated to."""

    region: Region = Field(description="Its AWS Region.")
    account: Account | None = Field(None, description="Its account; default: the source's own.")


class RuleDocument(Strict):
    """Which repositories are replicated where."""

    prefixes: list[Prefix] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Prefixes of repository names; left out: all repositories.",
    )
    destinations: list[DestinationDocument] = Field(min_length=1, max_length=100)


class ReplicationDocument(Strict):
    """All replication rules of one registry."""

    version: Literal[1] = Field(description="Version of this format.")
    registry: Text = Field(
        description="The source: a host such as ACCOUNT.dkr.ecr.REGION.amazonaws.com."
    )
    # Service model: ReplicationRuleList has up to 25 rules, ReplicationDestinationList up to 100
    # destinations, RepositoryFilterList up to 100 filters.
    rules: list[RuleDocument] = Field(
        max_length=25, description="All rules; an empty list takes those away that there are."
    )


def replication_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of replication files."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:asyncpush:replication:1",
        **ReplicationDocument.model_json_schema(),
    }
