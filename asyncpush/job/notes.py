"""What a job's choices left out and made smaller, for whoever reads the plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.trim import Trimmed
from asyncpush.plan.choose import Choice

_MOST = 1000


@dataclass(slots=True)
class Notes:
    """Choices that left something out, and indexes that were made smaller: the first thousand."""

    choices: list[Choice] = field(default_factory=list)
    trimmed: list[dict[str, Any]] = field(default_factory=list)
    more: int = 0

    def chose(self, choice: Choice) -> None:
        """Note a choice, where it left something out."""
        if choice.left_out:
            self._add(self.choices, choice)

    def trims(self, source: str, entry: Descriptor, trimmed: Trimmed) -> None:
        """Note an index that has lost members, and has another digest for it."""
        if trimmed.index.digest != entry.digest:
            note = {
                "source": source,
                "digest": str(entry.digest),
                "trimmed_digest": str(trimmed.index.digest),
                "kept": list(trimmed.kept),
                "left_out": list(trimmed.left_out),
            }
            self._add(self.trimmed, note)

    def lines(self) -> list[str]:
        """The notes as lines for a terminal."""
        lines = [line for choice in self.choices for line in choice.lines()]
        lines += [
            f"{note['source']}: the index keeps {', '.join(note['kept'])} and leaves out"
            f" {', '.join(note['left_out'])}; its digest is {note['trimmed_digest']} instead of"
            f" {note['digest']}"
            for note in self.trimmed
        ]
        if self.more:
            lines.append(f"and {self.more:,} more sources of which something is left out")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The notes as JSON-ready data."""
        return {
            "choices": [choice.to_dict() for choice in self.choices],
            "trimmed": self.trimmed,
            "more": self.more,
        }

    def _add(self, notes: list[Any], note: Any) -> None:
        if len(notes) < _MOST:
            notes.append(note)
        else:
            self.more += 1
