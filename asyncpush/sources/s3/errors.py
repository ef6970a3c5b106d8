"""What S3 answers, in this package's terms ("Error responses", S3 API reference)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import aiohttp
from botocore import exceptions as boto

from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    BlobMissingError,
    ClockError,
    ContentError,
    CredentialsError,
    RegistryError,
    SourceNotFoundError,
    ThrottledError,
    TransientError,
)
from asyncpush.registries.distribution.errors import retry_after
from asyncpush.registries.ecr.errors import Answer, translating

# A HEAD's answer has no body, so its status is all that it says.
_MISSING = frozenset({"NoSuchKey", "404"})
_DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "403"})
_THROTTLED = frozenset({"SlowDown", "503", "429"})
_ELSEWHERE = frozenset(
    {
        "301",
        "307",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "IncorrectEndpoint",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)
_CHANGED = frozenset({"PreconditionFailed", "412", "InvalidRange", "416"})
_ACTIONS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
}
_LATER = "push again later"


@contextlib.contextmanager
def translating_s3(call: str, bucket: str, key: str, partition: str = "aws") -> Iterator[None]:
    """Raise this package's errors for whatever a call to S3 raises inside.

    :param call: the API's name for the call.
    :param key: the key, or the prefix that is listed.
    :param partition: the bucket's, as ARNs write it.
    """
    with translating(call, file=f"s3://{bucket}/{key}"):
        try:
            yield
        except boto.ClientError as exc:
            if (error := _error_of(exc, call, bucket, key, partition)) is not None:
                raise error from exc
            raise
        except (aiohttp.ClientError, boto.IncompleteReadError) as exc:
            raise TransientError(
                f"the connection broke: {' '.join(str(exc).split())}", advice=_LATER
            ) from exc


def _error_of(
    exc: boto.ClientError, call: str, bucket: str, key: str, partition: str
) -> AsyncpushError | None:
    """The error that an answer of S3's own is; None for what all AWS services answer."""
    answer = Answer.of(exc)
    where: dict[str, str | None] = {"error": answer.code, "request_id": answer.request_id}
    error = _of_object(exc.response, answer.code, bucket, key, where)
    error = error or _of_caller(exc.response, answer, where)
    if error is None and (
        answer.code in _DENIED or (answer.status in (401, 403) and not answer.is_known)
    ):
        error = _denied(answer, call, bucket, key, partition, where)
    return error or _of_service(exc.response, answer, where)


def _of_object(
    response: dict[str, Any], code: str, bucket: str, key: str, where: dict[str, str | None]
) -> AsyncpushError | None:
    """The error that concerns bucket or object alone."""
    if code == "NoSuchBucket":
        return SourceNotFoundError(
            f"there is no bucket {bucket}", advice="check the name and AWS_ENDPOINT_URL_S3", **where
        )
    if code in _MISSING:
        return BlobMissingError("the object is not there", advice="check the key", **where)
    if code in _CHANGED:
        return ContentError(
            "the object changed while it was read",
            advice="push again when nothing writes to it",
            **where,
        )
    if code == "InvalidObjectState":
        kind = response.get("Error", {}).get("StorageClass")
        return ContentError(
            f"the object is archived{f' ({kind})' if kind else ''} and cannot be read",
            advice=f"restore it first: aws s3api restore-object --bucket {bucket} --key {key}"
            " --restore-request Days=1",
            **where,
        )
    return None


def _of_caller(
    response: dict[str, Any], answer: Answer, where: dict[str, str | None]
) -> RegistryError | None:
    """The error of a caller who is in the wrong place, at the wrong time, or not known."""
    if answer.code in _ELSEWHERE:
        region = _header(response, "x-amz-bucket-region") or response["Error"].get("Region")
        return RegistryError(
            f"the bucket is in {f'the Region {region}' if region else 'another Region'}",
            advice=f"set AWS_REGION to {region or 'it'}, and check AWS_ENDPOINT_URL_S3",
            **where,
        )
    if answer.code == "RequestTimeTooSkewed":
        advice = "the signature is too old or too new; set this machine's clock"
        return ClockError(answer.message, advice=advice, **where)
    if answer.code in ("InvalidToken", "TokenRefreshRequired"):
        return CredentialsError(answer.message, advice="sign in again", **where)
    return None


def _of_service(
    response: dict[str, Any], answer: Answer, where: dict[str, str | None]
) -> TransientError | None:
    """The error of a service that is busy or broken."""
    if answer.code in _THROTTLED or answer.status == 429:
        throttled = ThrottledError(
            "S3 asks for fewer requests", advice="push less at once, or again later", **where
        )
        throttled.retry_after = retry_after(_header(response, "retry-after") or "")
        return throttled
    if answer.status >= 500 or answer.code == "RequestTimeout":
        return TransientError(
            f"S3 failed: {answer.message} (HTTP {answer.status})", advice=_LATER, **where
        )
    return None


def _denied(
    answer: Answer, call: str, bucket: str, key: str, partition: str, where: dict[str, str | None]
) -> AccessDeniedError:
    listed = call == "ListObjectsV2"
    arn = f"arn:{partition}:s3:::{bucket}"
    action, resource = answer.denied or (_ACTIONS[call], arn if listed else f"{arn}/{key}")
    # S3, GetObject: without ListBucket, what is not there is denied as well.
    hint = "" if listed else f"; without s3:ListBucket on {arn} S3 also denies what is not there"
    return AccessDeniedError(
        "access denied" if answer.code == "403" else answer.message,
        advice=f"allow {action} on {resource} for this principal{hint}",
        **where,
    )


def _header(response: dict[str, Any], name: str) -> str | None:
    value = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(name)
    return None if value is None else str(value)
