"""What was called: the last calls as records, and counters of all of them."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TextIO


@dataclass(slots=True)
class CallRecord:
    """One call of either API.

    ``action`` is the operation's name (``PutImage``), or for ``/v2/`` one such as
    ``v2.GetManifest``. ``time`` is in seconds since 1970. ``layer_bytes`` counts bytes of layers
    that came with the call, after base64, acknowledged or not. ``mount`` says what became of a
    mount: ``mounted``, or why it was refused. ``status`` is 0 for a call that got no answer.
    """

    time: float
    action: str
    request_id: str
    account: str | None = None
    region: str | None = None
    repository: str | None = None
    access_key_id: str | None = None
    upload_id: str | None = None
    mount: str | None = None
    status: int = 0
    error: str | None = None
    layer_bytes: int = 0
    acknowledged_bytes: int = 0


@dataclass(slots=True)
class CallCounters:
    """Exact sums since the server started.

    ``layer_bytes_duplicate`` counts acknowledged bytes of uploads that ended in a layer which the
    repository had already: bytes that a better plan would not have sent. ``mounts_refused`` are
    mounts that were answered with an upload session.
    """

    calls: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    layer_bytes_received: int = 0
    layer_bytes_acknowledged: int = 0
    layer_bytes_duplicate: int = 0
    mounts: int = 0
    mounts_refused: int = 0


class CallLog:
    """The calls of one run of a server, oldest first; iterate it or ask its counters.

    :param most: records kept in memory; counters go on being exact beyond it.
    :param file: gets every record as a line of JSON, if given.
    """

    def __init__(self, most: int, file: TextIO | None = None) -> None:
        self.counters = CallCounters()
        self._records: deque[CallRecord] = deque(maxlen=most)
        self._file = file

    def __iter__(self) -> Iterator[CallRecord]:
        return iter(list(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def of(self, action: str) -> list[CallRecord]:
        """The kept records of one action."""
        return [record for record in self._records if record.action == action]

    def begin(self, action: str) -> int:
        """Count a call that begins.

        :return: its number among the calls of this action, from 1.
        """
        self.counters.calls[action] += 1
        return self.counters.calls[action]

    def end(self, record: CallRecord) -> None:
        """Keep the record of a call that has ended."""
        self._records.append(record)
        if record.error is not None:
            self.counters.errors[record.action, record.error] += 1
        self.counters.layer_bytes_received += record.layer_bytes
        self.counters.layer_bytes_acknowledged += record.acknowledged_bytes
        if self._file is not None:
            self._file.write(json.dumps(asdict(record)) + "\n")
            self._file.flush()

    def clear(self) -> None:
        """Forget records and counters, so that what follows can be looked at alone."""
        self.counters = CallCounters()
        self._records.clear()
