"""What a distribution registry answers, in this package's terms (distribution-spec)."""

from __future__ import annotations

import email.utils
import json
import re
from datetime import UTC, datetime
from typing import Any

import aiohttp

from asyncpush.errors import (
    AccessDeniedError,
    BlobRejectedError,
    BlobsNotFoundError,
    CredentialsError,
    ManifestsNotFoundError,
    PartOutOfOrderError,
    RefusedError,
    RegistryError,
    RepositoryNotFoundError,
    TagConflictError,
    ThrottledError,
    TransientError,
    UnexpectedAnswerError,
    UploadNotFoundError,
)

_MOST_ERROR_BYTES = 64 * 1024
_SECONDS = re.compile(r"[0-9]{1,9}")
# No blob has an offset of more digits, and Python reads no number of thousands.
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")
# ECR's wording (apple/containerization 790, dotnet/sdk-container-builds 424).
_EXPECTED_FIRST_BYTE = re.compile(
    r"First byte of the layer part is [0-9]+ instead of ([0-9]{1,18})"
)
_WRONG_DIGEST = "layer digests match"
_REPOSITORY_ADVICE = "create the repository first, and check the target's name"
_KINDS: dict[str, tuple[type[RegistryError], str]] = {
    "NAME_UNKNOWN": (RepositoryNotFoundError, _REPOSITORY_ADVICE),
    "NAME_INVALID": (RegistryError, "the registry takes no repository of this name"),
    "DENIED": (AccessDeniedError, "ask for the permission to push to this repository"),
    "UNAUTHORIZED": (CredentialsError, "sign in again with docker login"),
    "BLOB_UNKNOWN": (BlobsNotFoundError, "push again"),
    "MANIFEST_BLOB_UNKNOWN": (BlobsNotFoundError, "push again"),
    "MANIFEST_UNKNOWN": (ManifestsNotFoundError, "push again"),
    "BLOB_UPLOAD_UNKNOWN": (UploadNotFoundError, "push again"),
    "BLOB_UPLOAD_INVALID": (UploadNotFoundError, "push again"),
    "DIGEST_INVALID": (
        BlobRejectedError,
        "the file is damaged, or its name lies; copy the image into the layout again",
    ),
    "SIZE_INVALID": (BlobRejectedError, "copy the image into the layout again"),
    "TOOMANYREQUESTS": (ThrottledError, "push less at once"),
    "UNSUPPORTED": (RefusedError, "--on-refused warn leaves such artifacts out"),
    "MANIFEST_INVALID": (RefusedError, "--on-refused warn leaves such artifacts out"),
}


async def error_of(
    response: aiohttp.ClientResponse, call: str, **places: str | None
) -> RegistryError:
    """The error that an answer is.

    :param call: what was asked, as ``PUT manifest``.
    """
    code, message = await _read(response)
    status = response.status
    where: dict[str, Any] = {
        **places,
        "call": call,
        "error": code or None,
        "status": str(status),
        "request_id": response.headers.get("x-amzn-RequestId")
        or response.headers.get("X-Request-Id"),
    }
    message = message or f"the registry answered HTTP {status}"
    if status == 416:
        last = _last_of_refusal(response, message)
        return PartOutOfOrderError(message, last_valid_byte=last, advice="push again", **where)
    if code == "TAG_INVALID" and "immutable" in message:
        return TagConflictError(
            message, advice="push under a new tag, or delete the old image if it may go", **where
        )
    if code == "BLOB_UPLOAD_INVALID" and _WRONG_DIGEST in message:
        code = "DIGEST_INVALID"
    kind, advice = _KINDS.get(code) or _by_status(status, call)
    error = kind(message, advice=advice, **where)
    if isinstance(error, TransientError):
        error.retry_after = retry_after(response.headers.get("Retry-After", ""))
    return error


def retry_after(text: str) -> float | None:
    """The seconds that a Retry-After header asks for (RFC 9110, 10.2.3); None if it says none."""
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None  # A date that is none, or a time zone that is no time's.


def _by_status(status: int, call: str) -> tuple[type[RegistryError], str]:
    """The class of an error whose code says nothing."""
    if status < 400:
        return UnexpectedAnswerError, (
            "the specification knows no such success; check that no proxy answers in its place"
        )
    if status == 404 and "upload" in call:
        return UploadNotFoundError, "push again"
    if status >= 500 or status == 408:
        return TransientError, "the registry failed; push again later"
    if status == 413:
        return RegistryError, (
            "raise the size limit of requests at the registry or the proxy in front of it"
            " (nginx: client_max_body_size)"
        )
    code = {
        401: "UNAUTHORIZED",
        403: "DENIED",
        404: "NAME_UNKNOWN",
        405: "UNSUPPORTED" if call == "PUT manifest" else "",
        429: "TOOMANYREQUESTS",
    }.get(status, "")
    return _KINDS.get(code, (RegistryError, ""))


def last_of(response: aiohttp.ClientResponse) -> int | None:
    """Offset of the last byte of an upload that an answer tells (header Range), None for none."""
    found = _RANGE.fullmatch(response.headers.get("Range", ""))
    return int(found[1]) if found else None


def _last_of_refusal(response: aiohttp.ClientResponse, message: str) -> int | None:
    """Offset of the last byte that a registry has which wants another chunk, -1 for nothing.

    ECR's message is worth more than its Range, which tells the end of an earlier chunk
    (aws/containers-roadmap 2831). ``0-0`` is what docker's registry says of an empty upload.
    """
    found = _EXPECTED_FIRST_BYTE.search(message)
    if found:
        return int(found[1]) - 1
    last = last_of(response)
    return -1 if last == 0 else last


def lost(exc: Exception, call: str, **where: Any) -> RegistryError:
    """The error that a connection which broke, or never came to be, is."""
    text = " ".join(str(exc).split()) or type(exc).__name__
    if isinstance(exc, aiohttp.ClientSSLError):
        # A certificate that is not trusted will not be in a second either.
        lasts = isinstance(exc, aiohttp.ClientConnectorCertificateError)
        return (RegistryError if lasts else TransientError)(
            f"there is no TLS connection: {text}",
            advice="SSL_CERT_FILE names further authorities;"
            " a registry without TLS is asked with --plain-http",
            call=call,
            **where,
        )
    if isinstance(exc, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError | ValueError):
        # The address is not quoted: a proxy's has a password in it, a storage's a signature.
        return RegistryError(
            "an address on the way there is none that can be asked",
            advice="write HTTPS_PROXY and HTTP_PROXY as http://HOST[:PORT]",
            call=call,
            **where,
        )
    return TransientError(
        f"the connection failed: {text}",
        advice="check the network and the host; some registries cut the connection"
        " when the repository does not exist",
        call=call,
        **where,
    )


async def _read(response: aiohttp.ClientResponse) -> tuple[str, str]:
    """Code and message of an answer's first error."""
    try:
        raw = await response.content.read(_MOST_ERROR_BYTES)
        first = json.loads(raw)["errors"][0]
        message = str(first.get("message") or "")
        detail = first.get("detail")
        if detail and isinstance(detail, str | dict):
            text = detail if isinstance(detail, str) else json.dumps(detail)
            message = f"{message} ({text[:300]})" if message else text[:300]
        return str(first.get("code") or ""), message
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""
    except aiohttp.ClientError:
        return "", ""
