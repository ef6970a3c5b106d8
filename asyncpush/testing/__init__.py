"""The local registry for tests of your own: beside a test, in a thread; knows no pytest."""

from asyncpush.localregistry import (
    PUBLISHED_RATES,
    CallInfo,
    CallRecord,
    Fault,
    Key,
    LocalRegistryOptions,
)
from asyncpush.oci.sample import write_sample
from asyncpush.testing.local_ecr import DEFAULT_SETTINGS, LocalEcr, LocalEcrSettings

__all__ = [
    "DEFAULT_SETTINGS",
    "PUBLISHED_RATES",
    "CallInfo",
    "CallRecord",
    "Fault",
    "Key",
    "LocalEcr",
    "LocalEcrSettings",
    "LocalRegistryOptions",
    "write_sample",
]
