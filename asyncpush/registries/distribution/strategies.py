"""How each registry takes a blob: in one request, in one PATCH, or in chunks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from asyncpush.plan.limits import MIB
from asyncpush.registries.base import WHOLE

CHUNK = 64 * MIB
"""Bytes of a chunk, unless the registry asks for more: a blob up to this size goes in one request,
a larger one can be resumed in the middle."""
# Azure answers 413 to bodies above about 20 MB (goharbor/harbor 23015); its own SDKs send 4 MiB.
_AZURE_CHUNK = 16 * MIB
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """The requests by which a registry takes a blob, after the POST that opens the session.

    :param part_size: bytes of one request, unless the user or the registry asks for another size;
        :data:`~asyncpush.registries.base.WHOLE` sends every blob in one request, and a request that
        breaks off starts over in a new session.
    :param most: the most bytes of one request, whatever the user asks for.
    :param put_whole: a blob that fits in one request travels in the closing PUT; otherwise in a
        PATCH, and the PUT is empty.
    :param put_last: the last of several chunks travels in the closing PUT; otherwise in a PATCH,
        and the PUT is empty.
    :param confirm_whole: ask for the stored size of a blob that went in one request.
    :param confirm_chunks: ask for the stored size of a blob that went in several.
    """

    part_size: int = WHOLE
    most: int = WHOLE
    put_whole: bool = True
    put_last: bool = True
    confirm_whole: bool = True
    confirm_chunks: bool = True

    def closes(self, *, whole: bool) -> bool:
        """Whether the request with a blob's last byte is the closing PUT.

        :param whole: that request has the blob's first byte as well.
        """
        return self.put_whole if whole else self.put_last

    def confirms(self, *, whole: bool) -> bool:
        """Whether the registry is asked for the stored size of a blob that is complete.

        :param whole: the blob went in one request.
        """
        return self.confirm_whole if whole else self.confirm_chunks


ONE_PUT = Strategy()
"""What every registry takes: one PUT of the whole blob (distribution-spec, "POST then PUT")."""
CHUNKS = Strategy(part_size=CHUNK, confirm_whole=False)
"""For registries that are known to keep chunks."""
_ECR = Strategy(part_size=CHUNK, confirm_whole=False, confirm_chunks=False)
ONE_PATCH = Strategy(put_whole=False)
AZURE = Strategy(part_size=_AZURE_CHUNK, most=_AZURE_CHUNK, put_last=False)

_BY_HOST: tuple[tuple[re.Pattern[str], Strategy], ...] = (
    # A second PATCH overwrites the first, without an error (clowdhaus/ocync's documentation). A
    # Content-Range limits the body to 4 MiB (oras-project/rust-oci-client 35).
    (re.compile(r"ghcr\.io"), ONE_PATCH),
    # "Artifact Registry does not support Docker chunked uploads" (Google's "Docker API" page).
    (re.compile(r"(?:[a-z0-9-]+\.)*gcr\.io|[a-z0-9-]+-docker\.pkg\.dev"), ONE_PUT),
    # Its own SDKs send PATCHes and an empty PUT (azure-containerregistry, upload_blob).
    (re.compile(r"(?:[a-z0-9-]+\.)+azurecr\.(?:io|cn|us)"), AZURE),
    (re.compile(r"docker\.io|index\.docker\.io|registry-1\.docker\.io"), ONE_PUT),
    # ECR keeps chunks (aws/containers-roadmap 2831) and computes the digest of what it stored.
    (re.compile(r"[0-9]{12}\.dkr[.-]ecr(?:-fips)?\.[a-z0-9.-]+"), _ECR),
)
_API_HOSTS = dict.fromkeys(("docker.io", "index.docker.io"), "registry-1.docker.io")


def strategy_of_host(host: str) -> Strategy | None:
    """The strategy of a registry that is known by its name; None for all others.

    :param host: the registry, with its port if it has one.
    """
    name = host.lower().rpartition(":")[0] or host.lower()
    for pattern, strategy in _BY_HOST:
        if pattern.fullmatch(name):
            return strategy
    return None


def part_size_of(host: str, answer: Mapping[str, str]) -> int:
    """The bytes of a request in an upload session that a registry has just opened.

    :param answer: the headers of the answer that opened the session.
    """
    known = strategy_of_host(host)
    if known is not None and known is not _ECR:
        return known.part_size
    if known is None and not _keeps_chunks(answer):
        return WHOLE
    least = answer.get("OCI-Chunk-Min-Length", "")
    return min(max(CHUNK, int(least)), WHOLE) if _NUMBER.fullmatch(least) else CHUNK


def api_host(host: str) -> str:
    """The host that serves a registry's API, where that is not the one that people name."""
    return _API_HOSTS.get(host.lower(), host)


def _keeps_chunks(answer: Mapping[str, str]) -> bool:
    """Whether an answer that opened a session comes from a registry that keeps chunks.

    ``OCI-Chunk-Min-Length`` is the specification's way to ask for chunks. Distribution and what is
    built on it (Harbor, GitLab) are known by three headers together: the version of the API alone
    is sent by registries that refuse chunks as well, Google's among them.
    """
    return "OCI-Chunk-Min-Length" in answer or (
        answer.get("Docker-Distribution-Api-Version") == "registry/2.0"
        and "Docker-Upload-UUID" in answer
        and answer.get("Range") == "0-0"
    )
