"""What can be tuned on the local registry: one dataclass, each field with its unit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asyncpush.localregistry.distribution_options import DistributionOptions
from asyncpush.localregistry.faults import CallInfo, Fault
from asyncpush.localregistry.identity import DEFAULT_REGISTRY, Registry

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRegistryOptions:
    """How the local registry behaves; the defaults are Amazon ECR's published limits.

    :raises ValueError: a size or time that cannot be meant.
    """

    part_size: int = 10 * MIB
    """Bytes; what InitiateLayerUpload answers as ``partSize``."""

    min_part_size: int = 5 * MIB
    """Bytes; a smaller part is refused at CompleteLayerUpload unless it is the last."""

    max_part_size: int = 20 * MIB
    """Bytes of one part after base64; ``LayerPartBlob.max`` of the service model."""

    max_parts: int = 4200
    """Parts of one layer; ECR's quota "Layer parts"."""

    upload_lifetime: float = 24 * 3600
    """Seconds that an upload session lives, counted from InitiateLayerUpload."""

    token_lifetime: float = 12 * 3600
    """Seconds that an authorization token lives."""

    download_url_lifetime: float = 3600
    """Seconds that a URL of GetDownloadUrlForLayer lives."""

    max_clock_skew: float = 300
    """Seconds that a signature's date may differ from the clock, either way."""

    body_timeout: float = 60
    """Seconds without a byte after which a request is given up, when it is late up to twice."""

    shutdown_timeout: float = 5
    """Seconds that requests in flight have to end when the server stops."""

    rates: Mapping[str, float] = field(default_factory=dict)
    """Calls a second by action, for each account and Region; what is beyond is answered with
    ThrottlingException. ``PUBLISHED_RATES`` are ECR's; empty limits nothing."""

    refuse_artifacts: bool = False
    """Whether PutImage refuses what is no runnable image, as ECR has done in places: manifests
    with ``artifactType``, ``subject`` or a config of another type."""

    distribution: DistributionOptions = field(default_factory=DistributionOptions)
    """How ``/v2/`` behaves."""

    replication_delay: float = 0
    """Seconds from a push until its replication begins."""

    default_registry: Registry = DEFAULT_REGISTRY
    """What ``/v2/`` means where credentials do not tell the Region, or there are none, unless the
    Host header has the form of an ECR host."""

    max_call_records: int = 100_000
    """Records that the call log keeps in memory; the oldest go first, counters are exact."""

    call_log: Path | None = None
    """File to which every call is appended as one line of JSON."""

    log_requests: bool = False
    """Whether every call is logged through the logger ``asyncpush.localregistry``."""

    clock: Callable[[], float] = time.time
    """Gives the time, in seconds since 1970; tests move it."""

    faults: Callable[[CallInfo], Fault | None] | None = None
    """Asked before each call acts; gives the fault that the call is to meet."""

    def __post_init__(self) -> None:
        if not 0 < self.min_part_size <= self.part_size <= self.max_part_size:
            raise ValueError(
                "part sizes: 0 < min_part_size <= part_size <= max_part_size is broken"
            )
        for name in ("max_parts", "upload_lifetime", "token_lifetime", "download_url_lifetime"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")
        for action, rate in self.rates.items():
            if rate <= 0:
                raise ValueError(f"rates: {action}: {rate!r} is not above 0")
        for name in (
            "max_clock_skew",
            "body_timeout",
            "shutdown_timeout",
            "replication_delay",
            "max_call_records",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is below 0")
