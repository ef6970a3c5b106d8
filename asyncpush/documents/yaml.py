"""YAML (and so JSON) with the line of every key, for errors that say where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from asyncpush.errors import UsageError

MAX_BYTES = 16 * 1024 * 1024
"""A job file with 100,000 sources has 8 MB; what is larger is no document that is read here."""
_MAX_NODES = 1_000_000
Key = tuple[str | int, ...]


class Lines:
    """The lines of a document's keys and values, by path."""

    def __init__(self) -> None:
        self._lines: dict[Key, int] = {(): 1}

    def note(self, path: Key, line: int) -> None:
        """Note the line where a path begins."""
        self._lines[path] = line

    def of(self, path: Key) -> int:
        """The line of a path, or of the nearest thing around it."""
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]


def read_document(path: Path, what: str) -> tuple[Any, Lines]:
    """Read a YAML or JSON file.

    :param what: what people call such a file, for its errors.
    :return: its content, and the lines of its keys.
    :raises UsageError: it cannot be read, is too large, is no YAML, or has a key twice.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise UsageError(f"the {what} cannot be read: {reason}", file=str(path)) from exc
    if len(raw) > MAX_BYTES:
        raise UsageError(f"the {what} has more than {MAX_BYTES:,} bytes", file=str(path))
    try:
        text = raw.decode("utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as exc:
        raise UsageError(f"the {what} is not UTF-8", file=str(path)) from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        problem = getattr(exc, "problem", None) or " ".join(str(exc).split())
        line = f":{mark.line + 1}" if mark is not None else ""
        raise UsageError(f"this is no YAML: {problem}", file=f"{path}{line}") from exc
    except RecursionError as exc:
        raise UsageError(f"the {what} nests too deeply", file=str(path)) from exc
    if node is None:
        raise UsageError(f"the {what} is empty", file=str(path))
    lines = Lines()
    return _Builder(path, what, lines).build(node, ()), lines


class _Builder:
    """Makes plain values of nodes; every value once, so that aliases cannot multiply."""

    def __init__(self, path: Path, what: str, lines: Lines) -> None:
        self._path = path
        self._what = what
        self._lines = lines
        self._nodes = 0
        # Parses scalars by YAML's core rules; given no text of its own.
        self._scalars = yaml.SafeLoader("")

    def build(self, node: yaml.Node, path: Key) -> Any:
        self._nodes += 1
        line = node.start_mark.line + 1
        if self._nodes > _MAX_NODES or len(path) > 100:
            raise UsageError(
                f"the {self._what}'s aliases unfold without end", file=f"{self._path}:{line}"
            )
        self._lines.note(path, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, i)) for i, child in enumerate(node.value)]
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as exc:
            raise UsageError(
                f"this value cannot be read: {' '.join(str(exc).split())}",
                file=f"{self._path}:{line}",
            ) from exc

    def _mapping(self, node: yaml.MappingNode, path: Key) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise UsageError(
                    "a key must be a text",
                    advice="quote a value that begins with {",
                    file=f"{self._path}:{line}",
                )
            key = str(key_node.value)
            if key in result:
                raise UsageError(
                    f"the key {key} stands here twice",
                    file=f"{self._path}:{line}",
                    key=".".join(map(str, (*path, key))),
                )
            result[key] = self.build(value_node, (*path, key))
            self._lines.note((*path, key), line)
        return result
