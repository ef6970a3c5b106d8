"""A small world for bulk tests: three registries, two accounts, two Regions, many images."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from asyncpush import AwsOptions, PushItem, PushOptions, Registry
from asyncpush.engine.options import RegistrySettings
from asyncpush.localregistry import (
    CallInfo,
    DistributionOptions,
    Fault,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
)
from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

ONE, TWO = "111122223333", "444455556666"
KEYS = {
    ONE: Key("AKIDFLEETACCOUNTONE0", "secret-of-account-one", ONE),
    TWO: Key("AKIDFLEETACCOUNTTWO0", "secret-of-account-two", TWO),
}
REGISTRIES = [
    Registry(ONE, "eu-central-1"),
    Registry(ONE, "us-east-1"),
    Registry(TWO, "eu-central-1"),
]


def write_layouts(
    folder: Path, count: int, images: int, layer: int = 20_000, shared: int = 100_000
) -> list[Path]:
    """Layouts ``app000`` and on, each of some images; the same base layer is in all of them.

    :param layer: bytes of each image's own layer.
    :param shared: bytes of the layer that all have.
    """
    base = os.urandom(shared)
    layouts = []
    for i in range(count):
        writer = LayoutWriter(folder / f"app{i:03}")
        base_layer = writer.blob(base, mediatypes.OCI_LAYER)
        for j in range(images):
            own = writer.blob(os.urandom(layer), mediatypes.OCI_LAYER)
            writer.entry(writer.image([base_layer, own]), f"v{j}")
        layouts.append(writer.close())
    return layouts


@asynccontextmanager
async def serving(
    store: Path,
    repositories: list[str],
    faults: Callable[[CallInfo], Fault | None] | None = None,
    keys: Iterable[Key] = KEYS.values(),
    **options: Any,
) -> AsyncIterator[RunningRegistry]:
    """A server of all three registries that has these repositories in each of them."""
    # Mounting is as ECR does it once the account has switched it on.
    options.setdefault("distribution", DistributionOptions(blob_mounting=True))
    settings = LocalRegistryOptions(faults=faults, **options)
    async with LocalRegistry(store, list(keys), settings).run() as server:
        for registry in REGISTRIES:
            for name in repositories:
                await server.ensure_repository(registry.account, registry.region, name)
        yield server


def options_for(server: RunningRegistry, **options: Any) -> PushOptions:
    """Options with each registry's own credentials."""
    return PushOptions(
        registries={
            registry: RegistrySettings(
                aws=AwsOptions(
                    access_key_id=KEYS[registry.account].access_key_id,
                    secret_access_key=KEYS[registry.account].secret_access_key,
                    endpoint_url=server.url,
                )
            )
            for registry in REGISTRIES
        },
        **options,
    )


def items_for(layouts: list[Path]) -> list[PushItem]:
    """Every layout to a repository of its name in every registry."""
    return [
        PushItem(layout, f"{registry.host}/{layout.name}")
        for layout in layouts
        for registry in REGISTRIES
    ]


async def all_tags(server: RunningRegistry, names: list[str]) -> dict[str, dict[str, str]]:
    """Digest by tag of every repository of every registry."""
    return {
        f"{registry.host}/{name}": await server.tags(registry.account, registry.region, name)
        for registry in REGISTRIES
        for name in names
    }


def wanted_tags(layouts: list[Path]) -> dict[str, dict[str, str]]:
    """What :func:`all_tags` gives when everything is pushed."""
    return {
        f"{registry.host}/{layout.name}": {
            str(entry.ref_name): entry.digest for entry in Layout(layout).entries
        }
        for registry in REGISTRIES
        for layout in layouts
    }


def names_of(layouts: list[Path]) -> Iterator[str]:
    """The repositories that layouts go to."""
    return (layout.name for layout in layouts)
