"""What ECR and botocore raise, in this package's terms."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    BlobExistsError,
    BlobRejectedError,
    BlobsNotFoundError,
    ClockError,
    CredentialsError,
    ManifestExistsError,
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
from asyncpush.plan.reference import parse_reference

_LOGIN_ADVICE = (
    "check the environment, the profile (--profile) and aws sts get-caller-identity,"
    " or sign in again"
)
_CLOCK_ADVICE = "the signature is too old or too new; set this machine's clock"
_DENIED_ADVICE = (
    "allow {action} on {resource} for this principal (across accounts, in the repository's policy,"
    " too); asyncpush iam prints the policies"
)

# Classes of error codes, with what to do: ECR's own (botocore's ecr model), and those that all AWS
# services answer ("Common errors" of the API reference; botocore's tables of throttling codes).
_KINDS: list[tuple[type[RegistryError], str, str]] = [
    (
        RepositoryNotFoundError,
        "create the repository first (aws ecr create-repository --repository-name NAME),"
        " and check account and Region of the target",
        "RepositoryNotFoundException",
    ),
    (BlobExistsError, "", "LayerAlreadyExistsException"),
    (UploadNotFoundError, "push again", "UploadNotFoundException"),
    (BlobsNotFoundError, "push again", "LayersNotFoundException"),
    (ManifestsNotFoundError, "push again", "ReferencedImagesNotFoundException"),
    (
        ManifestsNotFoundError,
        "check the tag or digest, or push the image",
        "ImageNotFoundException",
    ),
    (
        BlobRejectedError,
        "the file is damaged, or its name lies; copy the image into the layout again",
        "InvalidLayerException",
    ),
    (
        RefusedError,
        "ECR takes no blob of zero bytes; build the image without it",
        "EmptyUploadException",
    ),
    (
        RegistryError,
        "choose larger parts with --part-size, or leave the option out",
        "LayerPartTooSmallException",
    ),
    (RegistryError, "copy the image into the layout again", "ImageDigestDoesNotMatchException"),
    (
        RegistryError,
        "a quota of the account is used up; see Amazon ECR in the Service Quotas console",
        "LimitExceededException",
    ),
    (
        RegistryError,
        "check that the repository's KMS key is enabled and may be used by ECR",
        "KmsException",
    ),
    (
        ThrottledError,
        "push less at once, or ask for a higher quota",
        "BandwidthLimitExceeded LimitExceeded PriorRequestNotComplete RequestLimitExceeded"
        " RequestThrottled RequestThrottledException SlowDown Throttled ThrottledException"
        " Throttling ThrottlingException TooManyRequests TooManyRequestsException",
    ),
    (
        CredentialsError,
        _LOGIN_ADVICE,
        "ExpiredToken ExpiredTokenException IncompleteSignature IncompleteSignatureException"
        " InvalidAccessKeyId InvalidClientTokenId InvalidSignatureException"
        " MissingAuthenticationToken MissingAuthenticationTokenException NotAuthorized"
        " OptInRequired RequestExpired SignatureDoesNotMatch UnrecognizedClientException",
    ),
    (
        AccessDeniedError,
        _DENIED_ADVICE,
        "AccessDenied AccessDeniedException AuthorizationError UnauthorizedOperation",
    ),
    (
        TransientError,
        "the registry failed; push again later",
        "InternalFailure InternalServerError RequestTimeout RequestTimeoutException"
        " ServerException ServiceUnavailable",
    ),
]
_BY_CODE = {code: (kind, advice) for kind, advice, codes in _KINDS for code in codes.split()}
# A bad signature's answer may quote the request as it should have been signed, token and all.
_SESSION_TOKEN = re.compile(r"(?i)(x-amz-security-token\W{1,3})[^\s&'\"]+")
# Calls that botocore's credential providers make (botocore.credentials, botocore.tokens).
_CREDENTIAL_CALLS = frozenset(
    {
        "AssumeRole",
        "AssumeRoleWithSAML",
        "AssumeRoleWithWebIdentity",
        "CreateToken",
        "GetRoleCredentials",
    }
)
_DENIED = re.compile(r"not authorized to perform: ([a-z0-9-]+:\w+) on resource: \"?([^\s\"]+)")
_DIGESTS = re.compile(r"sha256:[a-f0-9]{64}")
_Places = dict[str, Any]
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@contextlib.contextmanager
def translating(call: str, **where: str | None) -> Iterator[None]:
    """Raise this package's errors for whatever botocore raises inside.

    :param call: the API's name for the call.
    :param where: what the call was about: repository, digest, tag.
    """
    try:
        yield
    except AsyncpushError as exc:
        raise exc.at(call=call, **where) from exc.__cause__
    except boto.ClientError as exc:
        raise _from_answer(exc, call, where) from exc
    except (boto.BotoCoreError, ResponseParserError) as exc:
        raise _from_botocore(exc, call, where) from exc
    except OSError as exc:
        # What goes wrong on the wire is botocore's to wrap; this is a file that should have held
        # credentials, such as a web identity's token.
        raise CredentialsError(
            f"{exc.strerror or exc}: {exc.filename}",
            advice=_LOGIN_ADVICE,
            **{**where, "call": call},
        ) from exc


@contextlib.contextmanager
def asking(call: str, **where: str | None) -> Iterator[None]:
    """As :func:`translating`, around a call and all reading of its answer.

    :raises UnexpectedAnswerError: also where botocore's parser, or that of an error, expects an
        object and the peer has answered something else.
    """
    try:
        with translating(call, **where):
            yield
    except _UNREADABLE as exc:
        raise UnexpectedAnswerError(
            f"the answer cannot be read ({type(exc).__name__})",
            advice="check that the endpoint is ECR's, and that no proxy answers in its place",
            **{**where, "call": call},
        ) from exc


@dataclass(frozen=True, slots=True)
class Answer:
    """What any AWS service says of a call that failed; ``message`` holds no session token."""

    code: str
    message: str
    status: int
    request_id: str | None

    @classmethod
    def of(cls, exc: boto.ClientError) -> Answer:
        """Read an answer out of botocore's error."""
        error, meta = exc.response.get("Error", {}), exc.response.get("ResponseMetadata", {})
        return cls(
            str(error.get("Code", "Unknown")),
            _SESSION_TOKEN.sub(r"\1***", str(error.get("Message") or "no message")),
            int(meta.get("HTTPStatusCode", 0)),
            meta.get("RequestId"),
        )

    @property
    def is_known(self) -> bool:
        """Whether the code alone says what kind of error this is, for any service."""
        return self.code in _BY_CODE

    @property
    def denied(self) -> tuple[str, str] | None:
        """The action and the resource that a policy must allow, where the message names them."""
        found = _DENIED.search(self.message)
        return (found[1], found[2]) if found else None


def _from_answer(exc: boto.ClientError, call: str, where: _Places) -> RegistryError:
    """An error that the service answered."""
    response: dict[str, Any] = exc.response
    answer = Answer.of(exc)
    code, message, status = answer.code, answer.message, answer.status
    places = {**where, "call": call, "error": code, "request_id": answer.request_id}
    if special := _SPECIAL.get(code):
        return special(response, message, places)
    kind, advice = _BY_CODE.get(code) or _by_status(call, code, status)
    if exc.operation_name in _CREDENTIAL_CALLS and not issubclass(kind, TransientError):
        # Another service was asked for credentials on the way.
        message = f"{exc.operation_name}: {message}"
        kind, advice = CredentialsError, _LOGIN_ADVICE
    if kind is CredentialsError and (
        code == "RequestExpired" or "expired:" in message or "not yet current" in message
    ):
        kind, advice = ClockError, _CLOCK_ADVICE
    if status >= 500:
        message = f"{message} (HTTP {status})"
    if advice is _DENIED_ADVICE:
        # A call may take a further action, which the message alone tells.
        action, resource = answer.denied or _denied(call, where)
        advice = advice.format(action=action, resource=resource)
    return kind(message, advice=advice, **places)


def _denied(call: str, where: _Places) -> tuple[str, str]:
    """The action and the resource that a policy must allow."""
    repository = where.get("repository")
    arn = parse_reference(repository).repository.arn if repository else None
    return f"ecr:{call}", arn or "*"


def _by_status(call: str, code: str, status: int) -> tuple[type[RegistryError], str]:
    """The class of an error whose code says nothing."""
    if status == 429:
        return _BY_CODE["ThrottlingException"]
    if status in (401, 403):
        return AccessDeniedError, _DENIED_ADVICE
    if status >= 500:
        return _BY_CODE["ServerException"]
    if call == "PutImage" and (status == 405 or code.startswith("InvalidParameter")):
        return RefusedError, (
            "the registry does not take this kind of manifest;"
            " --on-refused warn leaves such artifacts out"
        )
    return RegistryError, ""


def _part_out_of_order(response: dict[str, Any], message: str, places: _Places) -> RegistryError:
    last = response.get("lastValidByteReceived")
    return PartOutOfOrderError(
        message, last_valid_byte=None if last is None else int(last), advice="push again", **places
    )


def _image_exists(_response: dict[str, Any], message: str, places: _Places) -> RegistryError:
    # A repository that already has this digest under this tag says so with our digest; moto words
    # a conflict with the digest that the tag points to like this, too.
    found = _DIGESTS.findall(message)
    if places.get("tag") and found and places.get("digest") not in found:
        return _tag_conflict(_response, message, places)
    return ManifestExistsError(message, **places)


def _tag_conflict(_response: dict[str, Any], message: str, places: _Places) -> RegistryError:
    others = [digest for digest in _DIGESTS.findall(message) if digest != places.get("digest")]
    points_to = f"{others[0]}" if others else "another digest (which one, this call does not tell)"
    return TagConflictError(
        f"the tag {places.get('tag')} is immutable and points to {points_to},"
        f" not to {places.get('digest')}",
        advice="push under a new tag, or delete the old image if it may go",
        **places,
    )


_SPECIAL: dict[str, Callable[[dict[str, Any], str, _Places], RegistryError]] = {
    "InvalidLayerPartException": _part_out_of_order,
    "ImageAlreadyExistsException": _image_exists,
    "ImageTagAlreadyExistsException": _tag_conflict,
}

_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.TokenRetrievalError,
    boto.UnknownCredentialError,
    boto.ProfileNotFound,
    boto.SSOError,
    boto.RefreshWithMFAUnsupportedError,
    boto.MetadataRetrievalError,
    boto.InvalidConfigError,
    boto.ConfigParseError,
    boto.ConfigNotFound,
    boto.InfiniteLoopConfigError,
)
# The first class that fits, most special first; botocore's own errors carry no code.
_BOTOCORE: list[tuple[tuple[type[Exception], ...], type[RegistryError], str]] = [
    (
        (boto.InvalidProxiesConfigError,),
        RegistryError,
        "write HTTPS_PROXY as http://HOST[:PORT]",
    ),
    ((boto.SSLError,), RegistryError, "check AWS_CA_BUNDLE and the endpoint"),
    (
        (boto.HTTPClientError, boto.ConnectionError),
        TransientError,
        "check the network, the Region and the endpoint",
    ),
    (_NO_CREDENTIALS, CredentialsError, _LOGIN_ADVICE),
    (
        (ResponseParserError,),
        UnexpectedAnswerError,
        "the answer cannot be read; check that the endpoint is ECR's",
    ),
    ((Exception,), RegistryError, ""),
]


def _from_botocore(exc: Exception, call: str, where: _Places) -> RegistryError:
    """A failure on this side of the wire, or on the wire."""
    inner = getattr(exc, "kwargs", {}).get("error")
    if isinstance(inner, UnexpectedAnswerError):
        inner.at(call=call, **where)
        return inner
    if type(exc) is boto.HTTPClientError and isinstance(inner, boto.InvalidProxiesConfigError):
        exc = inner
    elif type(exc) is boto.HTTPClientError and isinstance(
        inner, FileNotFoundError | PermissionError | ssl.SSLError
    ):
        # What it opens are the authorities that it is told to trust.
        return RegistryError(
            f"a file of trusted authorities cannot be read: {inner.strerror}",
            advice="check AWS_CA_BUNDLE and ca_bundle of the profile",
            **{**where, "call": call},
        )
    kind, advice = next((k, a) for types, k, a in _BOTOCORE if isinstance(exc, types))
    return kind(" ".join(str(exc).split()), advice=advice, **{**where, "call": call})
