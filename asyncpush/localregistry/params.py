"""The parameters of one call, read with the types and constraints of ECR's service model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from asyncpush.localregistry.errors import constraint, invalid_parameter, serialization

# Service model 2015-09-21: RepositoryName, RegistryId, UploadId, LayerDigest, ImageTag.
REPOSITORY_NAME = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
REGISTRY_ID = r"[0-9]{12}"
UPLOAD_ID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
SHA256_DIGEST = r"sha256:[0-9a-f]{64}"
# Distribution-spec, "Pulling manifests": a tag's grammar; ECR's length is 300.
IMAGE_TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,299}"


def load_object(body: bytes) -> dict[str, Any]:
    """Decode the JSON object of a call.

    :raises ApiError: SerializationException; members given twice are refused too.
    """
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_unique)
        if b"\\u" in body:
            # Half a surrogate pair is JSON but no text: it could be neither hashed nor stored.
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as exc:
        raise serialization(f"Could not parse the request body as JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise serialization("Start of structure or map found where not expected.")
    return document


class Params:
    """Typed access to the parameters of one call.

    Readers raise :class:`ApiError`: SerializationException for a wrong JSON type,
    InvalidParameterException for a value that is missing or breaks a constraint. A member that is
    ``null`` counts as missing, as AWS has it.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    def text(self, name: str, pattern: str | None = None, most: int | None = None) -> str:
        """A required text."""
        value = self.optional_text(name, pattern, most)
        if value is None:
            raise _missing(name)
        return value

    def optional_text(
        self, name: str, pattern: str | None = None, most: int | None = None
    ) -> str | None:
        """A text, or ``None``."""
        value = self._typed(name, str, "a String")
        if value is None:
            return None
        return check_text(name, value, pattern, most)

    def repository(self) -> str:
        """The required ``repositoryName``."""
        value = self.text("repositoryName")
        return check_repository(value)

    def number(self, name: str, least: int = 0) -> int:
        """A required number."""
        value = self.optional_number(name, least)
        if value is None:
            raise _missing(name)
        return value

    def optional_number(self, name: str, least: int = 0, most: int = 2**63 - 1) -> int | None:
        """A whole number, or ``None``."""
        value = self._typed(name, int, "a Long")
        if value is None:
            return None
        if not least <= value <= most:
            edge = f"greater than or equal to {least}" if value < least else f"at most {most}"
            raise constraint(name, f"must have value {edge}")
        return int(value)

    def flag(self, name: str) -> bool:
        """A boolean; missing is false."""
        value = self.document.get(name)
        if value is not None and not isinstance(value, bool):
            raise _wrong_type(value, "a Boolean")
        return bool(value)

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        """One text out of several, or ``None``."""
        value = self.optional_text(name)
        if value is not None and value not in choices:
            raise constraint(name, f"must satisfy enum value set: [{', '.join(choices)}]")
        return value

    def items(self, name: str, kind: type, most: int, least: int = 1) -> list[Any] | None:
        """A list of ``least`` to ``most`` values of one JSON type, or ``None``."""
        values = self._typed(name, list, "a list")
        if values is None:
            return None
        for value in values:
            if not isinstance(value, kind):
                raise _wrong_type(value, "a String" if kind is str else "a structure")
        if not least <= len(values) <= most:
            raise constraint(name, f"must have length between {least} and {most}")
        return list(values)

    def required_items(self, name: str, kind: type, most: int, least: int = 1) -> list[Any]:
        """As :meth:`items`, but required."""
        values = self.items(name, kind, most, least)
        if values is None:
            raise _missing(name)
        return values

    def structure(self, name: str) -> Params:
        """A structure; missing is an empty one."""
        value = self._typed(name, dict, "a structure")
        return Params(value or {})

    def _typed(self, name: str, kind: type, wanted: str) -> Any:
        value = self.document.get(name)
        # bool is a kind of int in Python, not in JSON.
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise _wrong_type(value, wanted)
        return value


def check_repository(name: str) -> str:
    """A repository name that keeps to ECR's grammar.

    :raises ApiError: InvalidParameterException.
    """
    if not 2 <= len(name) <= 256:
        raise constraint("repositoryName", "must have length between 2 and 256")
    return check_text("repositoryName", name, REPOSITORY_NAME)


def check_text(name: str, value: str, pattern: str | None = None, most: int | None = None) -> str:
    """A text that keeps to pattern and length.

    :raises ApiError: InvalidParameterException.
    """
    if not value:
        raise constraint(name, "must have length greater than or equal to 1")
    if most is not None and len(value) > most:
        raise constraint(name, f"must have length less than or equal to {most}")
    if pattern is not None and not re.fullmatch(pattern, value):
        raise constraint(name, f"must satisfy regular expression '{pattern}'")
    return value


def _missing(name: str) -> Exception:
    return invalid_parameter(
        f"1 validation error detected: Value null at '{name}' failed to satisfy constraint: "
        "Member must not be null"
    )


def _wrong_type(value: Any, wanted: str) -> Exception:
    kinds = {bool: "BOOLEAN", int: "NUMBER", float: "NUMBER", str: "STRING"}
    return serialization(
        f"{kinds.get(type(value), 'Other')}_VALUE can not be converted to {wanted}"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is given twice")
    return members
