"""What ECR, moto and the network answer, each in this package's terms."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from asyncpush import errors
from asyncpush.oci.digest import compute
from asyncpush.registries.ecr.errors import translating

OURS, THEIRS = compute(b"ours"), compute(b"theirs")
REPOSITORY = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/app"


def raised(exc: Exception, call: str = "PutImage", **where: str) -> errors.RegistryError:
    with (
        pytest.raises(errors.RegistryError) as caught,
        translating(call, repository=REPOSITORY, **where),
    ):
        raise exc
    assert caught.value.where["call"] == call
    assert caught.value.where["repository"] == REPOSITORY
    return caught.value


def answer(
    code: str,
    message: str = "it says why",
    status: int = 400,
    operation: str = "PutImage",
    **more: Any,
) -> boto.ClientError:
    meta = {"HTTPStatusCode": status, "RequestId": "req-1", "HTTPHeaders": {"x": "header-secret"}}
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": meta, **more}
    return boto.ClientError(response, operation)


KINDS = {
    errors.RepositoryNotFoundError: "RepositoryNotFoundException",
    errors.BlobExistsError: "LayerAlreadyExistsException",
    errors.UploadNotFoundError: "UploadNotFoundException",
    errors.BlobsNotFoundError: "LayersNotFoundException",
    errors.ManifestsNotFoundError: "ReferencedImagesNotFoundException",
    errors.BlobRejectedError: "InvalidLayerException",
    errors.RefusedError: "EmptyUploadException InvalidParameterException InvalidParameter",
    errors.PartOutOfOrderError: "InvalidLayerPartException",
    errors.ManifestExistsError: "ImageAlreadyExistsException",
    errors.TagConflictError: "ImageTagAlreadyExistsException",
    errors.RegistryError: "LayerPartTooSmallException ImageDigestDoesNotMatchException"
    " LimitExceededException KmsException SomethingNewException",
    errors.ThrottledError: "ThrottlingException Throttling TooManyRequestsException"
    " RequestLimitExceeded SlowDown",
    errors.TransientError: "ServerException InternalFailure ServiceUnavailable RequestTimeout",
    errors.CredentialsError: "UnrecognizedClientException InvalidSignatureException"
    " ExpiredTokenException ExpiredToken InvalidClientTokenId MissingAuthenticationToken",
    errors.AccessDeniedError: "AccessDeniedException AccessDenied UnauthorizedOperation",
}


@pytest.mark.parametrize(
    ("code", "kind"), [(code, kind) for kind, codes in KINDS.items() for code in codes.split()]
)
def test_each_code_has_its_class(code: str, kind: type[errors.RegistryError]) -> None:
    error = raised(answer(code), digest=OURS, tag="v1")
    assert type(error) is kind
    for part in ("call PutImage", "request id req-1", f"repository {REPOSITORY}", f"error {code}"):
        assert part in str(error)
    assert "{" not in str(error)
    assert isinstance(error.__cause__, boto.ClientError)


@pytest.mark.parametrize(
    ("call", "code", "status", "kind"),
    [
        ("UploadLayerPart", "500", 500, errors.TransientError),
        ("UploadLayerPart", "", 503, errors.TransientError),
        ("UploadLayerPart", "429", 429, errors.ThrottledError),
        ("UploadLayerPart", "403", 403, errors.AccessDeniedError),
        ("UploadLayerPart", "InvalidParameterException", 400, errors.RegistryError),
        ("UploadLayerPart", "405", 405, errors.RegistryError),
        ("PutImage", "405", 405, errors.RefusedError),
        ("PutImage", "SomethingNewException", 500, errors.TransientError),
        ("PutImage", "AccessDeniedException", 500, errors.AccessDeniedError),
    ],
)
def test_an_unknown_code_is_told_by_its_status(
    call: str, code: str, status: int, kind: type[errors.RegistryError]
) -> None:
    error = raised(answer(code, status=status), call)
    assert type(error) is kind
    assert ("(HTTP 500)" in str(error)) == (status == 500)


def test_an_empty_answer_is_still_an_error() -> None:
    assert str(raised(boto.ClientError({}, "PutImage"))).startswith("no message (")


@pytest.mark.parametrize(
    ("message", "tag", "kind"),
    [
        (f"Image with digest '{OURS}' and tag 'v1' already exists", "v1", "ManifestExistsError"),
        (f"Image with digest '{THEIRS}' and tag 'v1' already exists", "v1", "TagConflictError"),
        (f"Image with digest '{THEIRS}' already exists", "", "ManifestExistsError"),
        ("Image already exists", "v1", "ManifestExistsError"),
    ],
)
def test_an_image_that_exists_with_another_digest_is_a_conflict(
    message: str, tag: str, kind: str
) -> None:
    """The second message is moto's way to say that an immutable tag points elsewhere."""
    error = raised(answer("ImageAlreadyExistsException", message), digest=OURS, tag=tag)
    assert type(error).__name__ == kind


@pytest.mark.parametrize(
    ("message", "points_to"),
    [(f"it points to {THEIRS}, not {OURS}", THEIRS), ("immutable", "another digest")],
)
def test_a_tag_conflict_says_where_the_tag_points(message: str, points_to: str) -> None:
    error = raised(answer("ImageTagAlreadyExistsException", message), digest=OURS, tag="v1")
    assert f"the tag v1 is immutable and points to {points_to}" in str(error)
    assert f"not to {OURS}" in str(error)


@pytest.mark.parametrize("last", [None, -1, 0, 10485759])
def test_a_part_out_of_order_says_where_to_go_on(last: int | None) -> None:
    more = {} if last is None else {"lastValidByteReceived": last}
    error = raised(answer("InvalidLayerPartException", **more), "UploadLayerPart")
    assert isinstance(error, errors.PartOutOfOrderError)
    assert error.last_valid_byte == last


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (boto.EndpointConnectionError(endpoint_url="http://x"), errors.TransientError),
        (boto.ConnectionClosedError(endpoint_url="http://x"), errors.TransientError),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), errors.TransientError),
        (boto.ReadTimeoutError(endpoint_url="http://x"), errors.TransientError),
        (boto.HTTPClientError(error="reset"), errors.TransientError),
        (ResponseParserError("<html>"), errors.UnexpectedAnswerError),
        (boto.SSLError(endpoint_url="http://x", error="self-signed"), errors.RegistryError),
        (boto.NoCredentialsError(), errors.CredentialsError),
        (boto.PartialCredentialsError(provider="env", cred_var="x"), errors.CredentialsError),
        (boto.ProfileNotFound(profile="nobody"), errors.CredentialsError),
        (boto.UnauthorizedSSOTokenError(), errors.CredentialsError),
        (boto.ParamValidationError(report="bad"), errors.RegistryError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_fails_on_this_side_has_its_class(
    exc: Exception, kind: type[errors.RegistryError]
) -> None:
    assert type(raised(exc)) is kind


ARN = "arn:aws:ecr:eu-west-1:111122223333:repository/app"


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("it says nothing", f"allow ecr:PutImage on {ARN} for this principal"),
        (
            f"User: u is not authorized to perform: ecr:TagResource on resource: {ARN}2 because",
            f"allow ecr:TagResource on {ARN}2 for this principal",
        ),
    ],
)
def test_a_denial_says_which_action_on_what_must_be_allowed(message: str, advice: str) -> None:
    assert advice in str(raised(answer("AccessDeniedException", message)))


def test_a_denial_of_what_has_no_resource_says_so() -> None:
    with (
        pytest.raises(errors.AccessDeniedError) as caught,
        translating("GetAuthorizationToken", registry="host"),
    ):
        raise answer("AccessDeniedException")
    assert "allow ecr:GetAuthorizationToken on * for" in str(caught.value)


@pytest.mark.parametrize("words", ["Signature expired: 2015", "Signature not yet current: 2115"])
def test_a_wrong_clock_is_told_from_a_wrong_key(words: str) -> None:
    assert "set this machine's clock" in str(raised(answer("InvalidSignatureException", words)))
    assert "clock" not in str(raised(answer("InvalidSignatureException", "does not match")))


def test_secrets_of_the_request_stay_out_of_errors() -> None:
    canonical = "should have been\n'POST\n/\n\nX-Amz-Security-Token:IQoJ/b3J+pZ2lu==\nhost:x'"
    error = raised(answer("InvalidSignatureException", canonical, 403))
    for text in (str(error), str(error.to_dict())):
        assert "IQoJ" not in text
        assert "header-secret" not in text
    assert "host:x" in str(error)


def test_our_own_errors_and_programming_errors_pass() -> None:
    with (
        pytest.raises(errors.ContentError) as caught,
        translating("UploadLayerPart", digest=OURS),
    ):
        raise errors.ContentError("short", digest=THEIRS)
    assert caught.value.where == {"digest": THEIRS, "call": "UploadLayerPart"}
    with pytest.raises(KeyError), translating("UploadLayerPart"):
        raise KeyError


@pytest.mark.parametrize("operation", ["AssumeRole", "AssumeRoleWithWebIdentity"])
def test_role_that_cannot_be_assumed_is_a_matter_of_credentials(operation: str) -> None:
    error = raised(answer("AccessDenied", operation=operation), "GetAuthorizationToken")
    assert type(error) is errors.CredentialsError
    assert f"{operation}: it says why" in str(error)
    throttled = raised(answer("Throttling", operation=operation), "GetAuthorizationToken")
    assert type(throttled) is errors.ThrottledError


def test_file_that_should_hold_credentials_and_does_not_is_named() -> None:
    error = raised(FileNotFoundError(2, "No such file or directory", "/no/token"))
    assert type(error) is errors.CredentialsError
    assert "No such file or directory: /no/token" in str(error)
