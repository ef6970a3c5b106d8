"""Layouts and archives in S3, read in place by ranges."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio

from asyncpush.oci.archive import OciArchive
from asyncpush.oci.dockerarchive import DockerArchive
from asyncpush.oci.scratch import Scratch
from asyncpush.plan.s3 import S3Source
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.registries.ecr.session import (
    client_config,
    client_of,
    configured_region,
    session_in,
)
from asyncpush.sources.s3.archive import S3Archive, open_s3_archive
from asyncpush.sources.s3.bucket import Bucket
from asyncpush.sources.s3.layout import S3Layout, open_s3_layout

__all__ = [
    "Bucket",
    "S3Archive",
    "S3Layout",
    "open_s3_archive",
    "open_s3_client",
    "open_s3_layout",
    "open_s3_source",
]


@contextlib.asynccontextmanager
async def open_s3_client(
    aws: AwsOptions, *, connections: int = 64, user_agent: str = ""
) -> AsyncIterator[Any]:
    """An aiobotocore S3 client without retries, for all buckets that its principal may read.

    Its endpoint is that of AWS's configuration (``AWS_ENDPOINT_URL_S3``), never the ECR API's of
    ``aws.endpoint_url``. A bucket in another Region than the configured one is found there by
    botocore, which follows S3's redirect once for each bucket.

    :param connections: the most connections to keep open.
    :param user_agent: text to add to the User-Agent header.
    :raises CredentialsError: the configuration names a profile that does not exist, or the like.
    :raises UsageError: the endpoint's address is none.
    """
    session = await session_in(None, aws, source="S3")
    # Digests prove the bytes; checksums of S3's own would cost the same again.
    config = client_config(
        aws, connections, user_agent, response_checksum_validation="when_required"
    )
    async with client_of(
        "s3", session, aws, config, configured_region(session), source="S3"
    ) as client:
        yield client


async def open_s3_source(
    source: S3Source,
    client: Any,
    scratch: Scratch | None = None,
    *,
    spooling: anyio.CapacityLimiter | None = None,
    compress_layers: bool = False,
) -> S3Layout | S3Archive | OciArchive | DockerArchive:
    """Open what a source in S3 names, from the event loop.

    What is chosen of it (``source.selector``) is for the caller.

    :param client: what :func:`open_s3_client` gave; when it is closed, what was opened reads no
        more.
    :param scratch: takes archives that cannot be read in place. The caller does not use it until
        this returns.
    :param spooling: of one token, where several sources that share the scratch file are opened at
        once.
    :raises ContentError: there is no layout or archive, or it is damaged.
    :raises RegistryError: S3 does not give it.
    """
    bucket = Bucket(client, source.bucket)
    if source.kind == "oci":
        return await open_s3_layout(bucket, source.key)
    return await open_s3_archive(
        bucket,
        source.key,
        source.kind,
        scratch,
        spooling=spooling,
        compress_layers=compress_layers,
    )
