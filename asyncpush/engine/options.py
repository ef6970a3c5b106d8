"""Every bound of the engine, in one place, with the memory that follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from asyncpush.engine.pace import PUBLISHED_QUOTAS
from asyncpush.errors import UsageError
from asyncpush.oci.scratch import DEFAULT_LIMIT
from asyncpush.plan.limits import MAX_PART_BYTES, MIB, MIN_PART_BYTES
from asyncpush.plan.reference import AnyRegistry
from asyncpush.registries.base import RepositorySettings
from asyncpush.registries.ecr.options import AwsOptions, TransportName


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """What is special about one registry.

    :param aws: its credentials and endpoint.
    :param quotas: calls a second by call, where they differ from those of :class:`PushOptions`.
    :param transport: how to speak to it, if it is ECR's.
    :param plain_http: ask it without TLS; for registries that are not ECR's.
    """

    aws: AwsOptions = field(default_factory=AwsOptions)
    quotas: Mapping[str, float] = field(default_factory=dict)
    transport: TransportName | None = None
    plain_http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """How a push runs.

    Each registry has bounds of its own, so that one that is slow or gone holds up no other; what
    all of them hold in memory has one bound. Peak memory is about 60 MiB for the interpreter and
    the AWS client, plus ``min(parts * registries * 1.9 MiB, memory)`` for what is in flight, plus
    about 1 KiB for each image and 0.5 KiB for each distinct blob of a repository. Blobs that are
    read from elsewhere add ``memory / 2`` (at least one part) and 1 MiB for each that is being
    read; over ECR's own API, ``memory / 2`` is also what all parts of such blobs in flight may
    hold, ``part_size`` each. Open files are at most ``layers`` plus ``connections`` for each
    registry.

    :param images: images in flight to each registry: asked about, uploaded or being committed.
    :param layers: blobs in flight to each registry, over all images. One part of each is in flight
        at a time, since ECR takes the parts of a layer in order.
    :param parts: part uploads in flight to each registry, over all layers.
    :param connections: open connections to each registry.
    :param memory: bytes of buffers that all parts and manifests in flight may hold together.
    :param part_size: bytes of a part, 5 to 20 MiB; None is what the registry asks for.
    :param attempts: how often a call is tried when it meets transient errors or throttling.
    :param retry_base: seconds; the first wait is random between 0 and this, and the bound doubles.
    :param retry_cap: seconds that one wait takes at most.
    :param quotas: calls a second by call (``{"PutImage": 50}``), where a registry's are not the
        published ones.
    :param temp_space: the most bytes of the temporary file for what a plan cannot read in place:
        archives decompressed, layers compressed.
    :param compress_layers: compress the layers of ``docker-archive:`` files of the older form,
        always to the same bytes.
    :param include_foreign: upload foreign (non-distributable) layers, too.
    :param on_refused: what an artifact, or an image with an empty blob, that the registry refuses
        does to the outcome: ``fail`` or ``warn``.
    :param atomic: push every blob and every manifest by digest first, to all registries, and move
        tags only when all of it is there.
    :param rollback: with ``atomic``, note what the tags point to before they move (takes
        ecr:BatchGetImage), and move them back if one of them cannot be moved.
    :param create: create repositories that do not exist, like this (takes ecr:CreateRepository);
        None creates none.
    :param aws: credentials and endpoints.
    :param source_aws: those of ECR registries and buckets that images come from, where they are
        others.
    :param registries: what differs for some registries, sources among them.
    :param transport: how to speak to ECR: by its own API (``native``), by OCI ``distribution``, or
        by its own with mounts over OCI distribution (``hybrid``, and ``auto`` without a word where
        mounts are refused); None is what a registry's own settings say, or native. Registries that
        are not ECR's are always spoken to by OCI distribution.
    :param plain_http: ask registries that are not ECR's without TLS, also those that are not on
        this machine; what goes there, passwords too, can then be read on the way.
    """

    images: int = 32
    layers: int = 16
    parts: int = 16
    connections: int = 32
    memory: int = 128 * MIB
    part_size: int | None = None
    attempts: int = 8
    retry_base: float = 0.25
    retry_cap: float = 20.0
    quotas: Mapping[str, float] = field(default_factory=dict)
    temp_space: int = DEFAULT_LIMIT
    compress_layers: bool = False
    include_foreign: bool = False
    on_refused: Literal["fail", "warn"] = "fail"
    atomic: bool = False
    rollback: bool = False
    create: RepositorySettings | None = None
    aws: AwsOptions = field(default_factory=AwsOptions)
    source_aws: AwsOptions | None = None
    registries: Mapping[AnyRegistry, RegistrySettings] = field(default_factory=dict)
    transport: TransportName | None = None
    plain_http: bool = False

    def settings(self, registry: AnyRegistry) -> RegistrySettings:
        """A registry's settings, with all quotas that are not the published ones."""
        own = self.registries.get(registry) or RegistrySettings(aws=self.aws)
        return replace(
            own,
            quotas={**own.quotas, **self.quotas},
            transport=self.transport or own.transport or "native",
            plain_http=own.plain_http or self.plain_http,
        )

    def source_settings(self, registry: AnyRegistry) -> RegistrySettings:
        """The settings of a registry that images come from."""
        own = self.registries.get(registry) or RegistrySettings(aws=self.source_aws or self.aws)
        return replace(own, plain_http=own.plain_http or self.plain_http)

    def __post_init__(self) -> None:
        for name in ("images", "layers", "parts", "connections", "attempts"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, and must be 1 or more")
        if self.memory < MIB:
            raise UsageError(f"memory is {self.memory} bytes, and must be 1 MiB or more")
        if self.temp_space < 0:
            raise UsageError(f"temp_space is {self.temp_space} bytes, and must be 0 or more")
        if self.part_size is not None and not MIN_PART_BYTES <= self.part_size <= MAX_PART_BYTES:
            raise UsageError(
                f"the part size is {self.part_size / MIB:g} MiB, and ECR takes 5 to 20 MiB"
            )
        if self.rollback and not self.atomic:
            raise UsageError("rollback goes with atomic alone: otherwise nothing moves back")
        for call, rate in (
            *self.quotas.items(),
            *(item for own in self.registries.values() for item in own.quotas.items()),
        ):
            if call not in PUBLISHED_QUOTAS:
                raise UsageError(
                    f"there is no quota for {call}",
                    advice=f"there is {', '.join(PUBLISHED_QUOTAS)}",
                )
            if not rate > 0:
                raise UsageError(f"the quota for {call} is {rate}, and must be above 0")
        if self.transport not in (None, *get_args(TransportName)):
            known = ", ".join(get_args(TransportName))
            raise UsageError(
                f"there is no transport {self.transport!r}", advice=f"there is {known}"
            )
        if self.on_refused not in ("fail", "warn"):
            raise UsageError(f"on_refused is {self.on_refused!r}, and must be fail or warn")
        if self.retry_base < 0 or self.retry_cap < 0:
            raise UsageError("retry_base and retry_cap must not be negative")
