"""What is wrong in a document: every mistake with file, line and key, in this package's terms."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from asyncpush.documents.yaml import Key, Lines
from asyncpush.errors import DocumentError, UsageError

# Also the only pattern that a document's texts may have: its error names an account.
Account = Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")]
Text = Annotated[str, StringConstraints(min_length=1)]

_QUOTE = "quote it: a bare { begins a mapping, and a bare number is no text"
# What pydantic puts into a path beside keys: branches of a union, and the mark of a key itself.
_NOT_KEYS = ("str", "bool", "constrained-str", "list[constrained-str]", "[key]", "[each]", "[keep]")


class Strict(BaseModel):
    """A part of a document: unknown keys are mistakes, and no value is bent to fit."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


D = TypeVar("D", bound=Strict)


def validate(model: type[D], content: Any, path: Path, lines: Lines) -> D:
    """Make a document's model of its content.

    :raises DocumentError: with all mistakes that the model finds.
    """
    try:
        return model.model_validate(content)
    except ValidationError as exc:
        raise DocumentError(
            [_problem(error, model, path, lines) for error in exc.errors(include_url=False)]
        ) from None


def located(error: UsageError, path: Path, lines: Lines, where: Key) -> UsageError:
    """The error, with the line and the key that it is about."""
    error.at(file=f"{path}:{lines.of(where)}", key=".".join(map(str, where)) or None)
    return error


def _problem(error: Any, document: type[Strict], path: Path, lines: Lines) -> UsageError:
    """One of pydantic's errors as one of ours."""
    where = tuple(part for part in error["loc"] if part not in _NOT_KEYS)
    message, advice = str(error["msg"]), ""
    match error["type"]:
        case "extra_forbidden":
            known = _keys_at(document, where[:-1])
            close = difflib.get_close_matches(str(where[-1]), known, 1)
            message = f"the key {where[-1]} is unknown"
            message += f"; did you mean {close[0]}?" if close else ""
            advice = f"there is {', '.join(known)}" if known else ""
        case "missing":
            message = f"the key {where[-1]} is missing"
        case "string_type":
            message, advice = "this must be a text", _QUOTE
        case "model_type" | "dict_type":
            known = _keys_at(document, where)
            message = "this must be a mapping of keys to values"
            advice = f"its keys are {', '.join(known)}" if known else ""
        case "value_error":
            message = str(error["ctx"]["error"])
        case "string_pattern_mismatch":
            message = f"{error['input']!r} is no AWS account"
            advice = "an account has 12 digits"
        case _:
            message = message[0].lower() + message[1:]
    return located(UsageError(message, advice=advice), path, lines, where)


def _keys_at(document: type[Strict], where: tuple[Any, ...]) -> list[str]:
    """The keys that a place in the document may have."""
    model: Any = document
    for part in where:
        if isinstance(part, int):
            continue
        info = getattr(model, "model_fields", {}).get(part)
        if info is None:
            return []
        model = _model_in(info.annotation)
    return list(getattr(model, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None
