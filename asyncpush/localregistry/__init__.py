"""The embedded registry: a strict, persistent stand-in for Amazon ECR on this machine."""

from asyncpush.localregistry.access.keys import DEFAULT_KEY, Key, load_keys
from asyncpush.localregistry.calls import CallCounters, CallLog, CallRecord
from asyncpush.localregistry.distribution_options import PLAIN_REGISTRY, DistributionOptions
from asyncpush.localregistry.faults import CallInfo, Fault
from asyncpush.localregistry.identity import Registry
from asyncpush.localregistry.options import LocalRegistryOptions
from asyncpush.localregistry.rates import PUBLISHED_RATES
from asyncpush.localregistry.server import LocalRegistry, RunningRegistry

__all__ = [
    "DEFAULT_KEY",
    "PLAIN_REGISTRY",
    "PUBLISHED_RATES",
    "CallCounters",
    "CallInfo",
    "CallLog",
    "CallRecord",
    "DistributionOptions",
    "Fault",
    "Key",
    "LocalRegistry",
    "LocalRegistryOptions",
    "Registry",
    "RunningRegistry",
    "load_keys",
]
