"""Every error that asyncpush raises: a flat, typed family; each says what, where and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Self

_USER = re.compile(r"(?<=://)[^/\s]*@")


def printable(text: str) -> str:
    """A text that a terminal shows and does not obey: names in a layout may hold anything."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_user(text: str) -> str:
    """A text without the names and passwords that addresses in it may have."""
    return _USER.sub("***@", text)


class AsyncpushError(Exception):
    """Base of all errors of this package.

    :param message: what is wrong, one clause, no trailing full stop.
    :param advice: what the user can do next; empty where nothing helps.
    :param where: where it went wrong: ``file``, ``digest``, ``repository``, ``reference``,
        ``call``, ``request_id`` and the like. Values that are ``None`` are left out.
    """

    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, advice: str = "", **where: str | None) -> None:
        message = without_user(message)
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.where: dict[str, str] = {k: without_user(v) for k, v in where.items() if v is not None}

    def at(self, **where: str | None) -> AsyncpushError:
        """Add places that the raiser could not know; what is known already is kept, and what has a
        ``source`` has no ``file``.

        :return: this error, so that it can be raised in the same statement.
        """
        for key, value in where.items():
            if value is not None and not (key == "file" and "source" in self.where):
                self.where.setdefault(key, without_user(value))
        return self

    def again(self) -> Self:
        """The same error for another image that meets it: each gets places of its own."""
        error = type(self).__new__(type(self), *self.args)
        error.__dict__.update(self.__dict__, where=dict(self.where))
        error.__cause__ = self.__cause__
        return error

    def __str__(self) -> str:
        places = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in self.where.items())
        line = f"{self.message} ({places})" if places else self.message
        if self.advice:
            line = f"{line}; {self.advice}"
        return printable(" ".join(line.split()))

    def to_dict(self) -> dict[str, object]:
        """The error as JSON-ready data: ``kind``, ``message``, ``where``, ``advice``."""
        return {
            "kind": self.kind,
            "message": self.message,
            "where": dict(self.where),
            "advice": self.advice,
        }


class UnforeseenError(AsyncpushError):
    """What nothing here is made for: a fault of this program, or an answer that none was foreseen
    for. It concerns one image alone; the log has the traceback (level DEBUG)."""

    kind = "unforeseen"


def unforeseen(exc: Exception, **where: str | None) -> AsyncpushError:
    """The typed error of an exception that nothing was made for."""
    while isinstance(exc, ExceptionGroup):
        exc = exc.exceptions[0]
    if isinstance(exc, AsyncpushError):
        return exc
    error = UnforeseenError(
        f"this was not foreseen: {type(exc).__name__}",
        advice="report it with the traceback that the log has (-v), and push again",
        **where,
    )
    error.__cause__ = exc
    return error


# What the user typed.


class UsageError(AsyncpushError):
    """An option or argument that cannot be meant."""

    kind = "usage"


class DocumentError(UsageError):
    """A document that cannot be meant; ``problems`` has every mistake in it."""

    kind = "document"

    def __init__(self, problems: Sequence[UsageError]) -> None:
        first = problems[0]
        super().__init__(first.message, advice=first.advice, **first.where)
        self.problems = list(problems)


class InvalidReferenceError(UsageError):
    """A target that is no ECR reference and no repository ARN."""

    kind = "invalid-reference"


class EntryNotFoundError(UsageError):
    """A layout holds no entry of that name, digest or platform, or more than one."""

    kind = "entry-not-found"


class JournalError(AsyncpushError):
    """A journal that cannot be used: in use, of another job, damaged, or not writable."""

    kind = "journal"


# What the source holds.


class ContentError(AsyncpushError):
    """OCI content that is not what it says it is."""

    kind = "content"


class LayoutError(ContentError):
    """A directory that is no OCI image layout."""

    kind = "layout"


class ManifestError(ContentError):
    """A manifest, index or descriptor that breaks its specification."""

    kind = "manifest"


class BlobMissingError(ContentError):
    """A descriptor names content that the layout does not hold."""

    kind = "blob-missing"


class SourceNotFoundError(ContentError):
    """A repository, tag or digest that a source does not have."""

    kind = "source-not-found"


class DigestMismatchError(ContentError):
    """Content whose size or digest is not the one that its descriptor gives."""

    kind = "digest-mismatch"


class SourceError(ContentError):
    """A source that does not give its content, after all retries. ``where`` has source and digest.

    It is no :class:`TransientError`, which would let a call to the target be tried again.
    """

    kind = "source"


class UnsafePathError(ContentError):
    """A path or symbolic link that leads out of the layout."""

    kind = "unsafe-path"


class UnsupportedDigestError(ContentError):
    """A digest whose algorithm is unknown, or that the target registry does not take."""

    kind = "unsupported-digest"


class IndexCycleError(ContentError):
    """An index that leads back to itself."""

    kind = "index-cycle"


class LimitError(ContentError):
    """Content larger than the target registry takes."""

    kind = "limit"


class TemporarySpaceError(AsyncpushError):
    """A temporary file that cannot take what must be unpacked: its bound, or a full disk."""

    kind = "temporary-space"


# What the registry answers.


class RegistryError(AsyncpushError):
    """A call that a registry did not answer as hoped. ``where`` has call and request id."""

    kind = "registry"


class CredentialsError(RegistryError):
    """Credentials that are missing, expired or not accepted."""

    kind = "credentials"


class ClockError(CredentialsError):
    """A signature whose date is too far from the registry's clock."""

    kind = "clock"


class AccessDeniedError(RegistryError):
    """An action that a policy does not allow."""

    kind = "access-denied"


class RepositoryNotFoundError(RegistryError):
    """The target repository does not exist."""

    kind = "repository-not-found"


class TagConflictError(RegistryError):
    """An immutable tag that points to another digest."""

    kind = "tag-conflict"


class RefusedError(RegistryError):
    """Valid content that this registry does not take; it concerns one image alone."""

    kind = "refused"


class BlobRejectedError(RegistryError):
    """The registry received a blob whose content is not what its digest says."""

    kind = "blob-rejected"


class PartOutOfOrderError(RegistryError):
    """A part that does not follow the last one that the registry holds.

    :param last_valid_byte: offset of the last byte that the registry holds, -1 for none.
    """

    kind = "part-out-of-order"

    def __init__(
        self,
        message: str,
        *,
        last_valid_byte: int | None,
        advice: str = "",
        **where: str | None,
    ) -> None:
        super().__init__(message, advice=advice, **where)
        self.last_valid_byte = last_valid_byte


class UploadNotFoundError(RegistryError):
    """An upload session that the registry does not know, or no longer knows."""

    kind = "upload-not-found"


class BlobExistsError(RegistryError):
    """The registry has the blob already; a success for whoever asked for it."""

    kind = "blob-exists"


class ManifestExistsError(RegistryError):
    """The registry has this manifest under this tag already; a success."""

    kind = "manifest-exists"


class BlobsNotFoundError(RegistryError):
    """A manifest names blobs that the repository lacks."""

    kind = "blobs-not-found"


class ManifestsNotFoundError(RegistryError):
    """An index names manifests that the repository lacks."""

    kind = "manifests-not-found"


class VerificationError(RegistryError):
    """A registry does not hold what it should hold."""

    kind = "verification"


class ReplicationError(RegistryError):
    """An image that is not, or not yet, where its registry's rules replicate it to."""

    kind = "replication"


class TransientError(RegistryError):
    """A failure that may pass: a lost connection, a time-out, a server's own error.

    ``retry_after`` are the seconds after which the registry wants to be asked again, where it says.
    """

    kind = "transient"
    retry_after: float | None = None


class UnexpectedAnswerError(TransientError):
    """An answer that is neither a success nor an error as the API defines them.

    Something on the way may have answered in the registry's place, so the call is tried again; that
    the call has not acted is not known.
    """

    kind = "unexpected-answer"


class ThrottledError(TransientError):
    """The registry asks for fewer calls."""

    kind = "throttled"


class PullLimitError(RegistryError):
    """A registry that allows no more pulls before its window has passed."""

    kind = "pull-limit"


class UploadBrokenError(UploadNotFoundError):
    """An upload that broke off where the registry cannot resume it; a new session starts over.

    ``retry_after`` is that of the failure.
    """

    kind = "upload-broken"
    retry_after: float | None = None

    @classmethod
    def of(cls, error: RegistryError) -> UploadBrokenError:
        """The error that a failure is to an upload that cannot be resumed."""
        broken = cls(error.message, advice=error.advice, **error.where)
        broken.retry_after = getattr(error, "retry_after", None)
        return broken
