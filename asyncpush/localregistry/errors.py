"""Errors as Amazon ECR answers them: a code, a worded message, a status, modelled fields."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer of the JSON API that is an error.

    :param code: the value of ``__type``, as in the service model.
    :param message: worded as AWS words it.
    :param status: HTTP status; AWS answers 400 for whatever is the caller's fault.
    :param fields: further members that the service model gives to this error.
    """

    def __init__(self, code: str, message: str, status: int = 400, **fields: object) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.fields = fields

    def document(self) -> dict[str, Any]:
        """The error as the body of its answer."""
        return {"__type": self.code, "message": self.message, **self.fields}


def invalid_parameter(message: str) -> ApiError:
    """A parameter that the API does not take."""
    return ApiError("InvalidParameterException", message)


def constraint(name: str, rule: str) -> ApiError:
    """A parameter that breaks a constraint of the service model."""
    return invalid_parameter(
        f"Invalid parameter at '{name}' failed to satisfy constraint: '{rule}'"
    )


def serialization(message: str) -> ApiError:
    """A body that is no JSON, or has a value of the wrong JSON type."""
    return ApiError("SerializationException", message)


def repository_not_found(repository: str, account: str) -> ApiError:
    """The repository does not exist."""
    return ApiError(
        "RepositoryNotFoundException",
        f"The repository with name '{repository}' does not exist in the registry with id "
        f"'{account}'",
    )


def upload_not_found(upload_id: str, repository: str, account: str) -> ApiError:
    """The upload session does not exist, has ended, or belongs to another repository."""
    return ApiError(
        "UploadNotFoundException",
        f"The upload with id '{upload_id}' does not exist in the repository with name "
        f"'{repository}' in the registry with id '{account}'",
    )


def layers_not_found(digests: list[str], repository: str, account: str) -> ApiError:
    """Layers that the repository lacks."""
    return ApiError(
        "LayersNotFoundException",
        f"Layers with digests '[{', '.join(digests)}]' do not exist in the repository with name "
        f"'{repository}' in the registry with id '{account}'",
    )


def access_denied(message: str) -> ApiError:
    """The caller's policy does not allow the call."""
    return ApiError("AccessDeniedException", message)


def server_exception() -> ApiError:
    """A failure of this server; what it was stands in its log, not in the answer."""
    return ApiError(
        "ServerException", "These errors are usually caused by a server-side issue.", 500
    )
