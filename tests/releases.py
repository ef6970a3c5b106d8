"""Atomic releases of a few repositories, with other writers, lost answers and kills."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from support import ACCOUNT, HOST, KEY_ID, REGION, SECRET

from asyncpush import AwsOptions, Event, Pusher, PushItem, PushOptions, PushReport, open_journal
from asyncpush.engine.results import TagResult
from asyncpush.localregistry import (
    CallInfo,
    Fault,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
)
from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

Faults = Callable[[CallInfo], Fault | None]


def write_release(folder: Path, name: str, tags: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """A layout for each repository, with an image of its own for each tag."""
    layouts = {}
    for repository, names in tags.items():
        writer = LayoutWriter(folder / name / repository)
        for tag in names:
            text = f"{name} of {repository}:{tag}"
            writer.entry(writer.image([writer.blob(text.encode(), mediatypes.OCI_LAYER)]), tag)
        layouts[repository] = writer.close()
    return layouts


def roots(layouts: Mapping[str, Path]) -> dict[tuple[str, str], str]:
    """The digest that each repository's tags point to when a release is done."""
    return {
        (repository, str(entry.ref_name)): str(entry.digest)
        for repository, layout in layouts.items()
        for entry in Layout(layout).entries
    }


@dataclass
class Releases:
    """A registry, and releases into it; ``faults`` may be set at any time."""

    server: RunningRegistry
    journal: Path
    transport: str
    faults: Faults = lambda call: None
    events: list[Event] = field(default_factory=list)
    on_event: Callable[[Event], None] = lambda event: None

    async def push(
        self, layouts: Mapping[str, Path], *, journal: bool = True, **options: Any
    ) -> PushReport:
        """Push a release as the same job each time."""
        settings: dict[str, Any] = {
            "retry_base": 0.001,
            "quotas": {"PutImage": 1000},
            "transport": self.transport,
            **options,
        }
        aws = AwsOptions(
            access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=self.server.url
        )

        def take(event: Event) -> None:
            self.events.append(event)
            self.on_event(event)

        items = [PushItem(path, f"{HOST}/{name}") for name, path in layouts.items()]
        async with Pusher(PushOptions(aws=aws, **settings), on_event=take) as pusher:
            if not journal:
                return await pusher.push(items)
            async with open_journal(self.journal, "job", "job") as notes:
                return await pusher.push(items, notes)

    async def killed(
        self, push: Callable[[], Awaitable[object]], when: Callable[[CallInfo], bool]
    ) -> bool:
        """Push until the server meets a call, which it still acts on, and nobody hears of it.

        :return: whether it came to that.
        """
        faults = self.faults
        with anyio.CancelScope() as scope:

            def kill(call: CallInfo) -> Fault | None:
                if when(call):
                    scope.cancel()
                    return None
                return faults(call)

            self.faults = kill
            try:
                await push()
            finally:
                self.faults = faults
        if scope.cancelled_caught:
            # What has arrived is acted on although its caller is gone.
            await anyio.sleep(0.05)
        return scope.cancelled_caught

    async def tags(self, repositories: Sequence[str]) -> dict[tuple[str, str], str]:
        """Where all tags point."""
        return {
            (name, tag): digest
            for name in repositories
            for tag, digest in (await self.server.tags(ACCOUNT, REGION, name)).items()
        }


@asynccontextmanager
async def releasing(
    folder: Path,
    repositories: Sequence[str],
    transport: str = "native",
    policy: Mapping[str, object] | None = None,
) -> AsyncIterator[Releases]:
    """A registry with some repositories."""
    releases: list[Releases] = []

    def faults(call: CallInfo) -> Fault | None:
        return releases[0].faults(call)

    options = LocalRegistryOptions(faults=faults)
    key = Key(KEY_ID, SECRET, ACCOUNT, policy=policy)
    async with LocalRegistry(folder / "store", [key], options).run() as server:
        for name in repositories:
            await server.ensure_repository(ACCOUNT, REGION, name)
        releases.append(Releases(server, folder / "journal", transport))
        yield releases[0]


def tag_results(report: PushReport) -> dict[tuple[str, str], TagResult]:
    """What a report says of tags, by repository and tag."""
    found = {}
    for image in report.images:
        name = image.reference.removeprefix(f"{HOST}/").rpartition(":")[0]
        for tag in image.tags:
            found[name, tag.tag] = tag
    return found
