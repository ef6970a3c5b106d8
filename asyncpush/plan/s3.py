"""Where in S3 a source is: its text, read and written, without asking anything."""

from __future__ import annotations

import re
from dataclasses import dataclass

from asyncpush.errors import UsageError, without_user

_SCHEME = "s3://"
_KINDS = ("oci", "oci-archive", "docker-archive")
# botocore's handlers.py, VALID_BUCKET: old buckets have names that no new one may have.
_BUCKET = re.compile(r"[a-zA-Z0-9._-]{1,255}")
# S3 user guide, "Naming Amazon S3 objects": at most 1,024 bytes of UTF-8.
_MOST_KEY_BYTES = 1024
_CUT = re.compile(r"[:@]")
_ESCAPED = re.compile(r"%(25|3[aA]|40)")
_FORM = "write s3://BUCKET/PREFIX[:NAME|@DIGEST] or oci-archive:s3://BUCKET/KEY[:NAME|@DIGEST]"


@dataclass(frozen=True, slots=True)
class S3Source:
    """A source in S3.

    :param kind: ``oci``, ``oci-archive`` or ``docker-archive``.
    :param bucket: the bucket's name, or an access point's alias.
    :param key: an archive's key; of a layout the prefix, without the slash at its end.
    :param selector: what is chosen of it, as behind the path of a local source; None for all.
    """

    kind: str
    bucket: str
    key: str
    selector: str | None = None

    @property
    def name(self) -> str:
        """The address of layout or archive, without what is chosen of it."""
        return f"{_SCHEME}{self.bucket}/{self.key}".removesuffix("/")

    def __str__(self) -> str:
        kind = "" if self.kind == "oci" else f"{self.kind}:"
        key = re.sub("[%:@]", lambda found: f"%{ord(found[0]):02X}", self.key)
        # A digest goes behind either mark; behind the colon anything does.
        selector = "" if self.selector is None else f":{self.selector}"
        return f"{kind}{_SCHEME}{self.bucket}/{key}{selector}"


def is_s3(text: str) -> bool:
    """Whether a source is one in S3."""
    return _split_kind(text)[1].startswith(_SCHEME)


def parse_s3(text: str) -> S3Source:
    """Read ``[KIND:]s3://BUCKET[/KEY][:NAME|:@NUMBER|@DIGEST]``.

    A key ends at the first ``:`` or ``@``. In a key that has these itself they are written ``%3A``
    and ``%40``, and ``%25`` is ``%``; nothing else is escaped.

    :raises UsageError: it is no such source.
    """
    kind, address = _split_kind(text)
    if not address.startswith(_SCHEME):
        raise UsageError("not a source in S3", advice=_FORM, reference=without_user(text))
    path = address.removeprefix(_SCHEME)
    cut = _CUT.search(path)
    place, selector = (path[: cut.start()], path[cut.end() :]) if cut else (path, None)
    bucket, _, key = place.partition("/")
    if bucket == "arn":
        raise UsageError(
            "an access point's ARN cannot be read here",
            advice="write its alias, s3://ALIAS/PREFIX",
            reference=text,
        )
    if cut and "/" in path[cut.end() :] and "/" not in place and path[cut.start()] == "@":
        raise UsageError(
            "the address has a name or a password in it",
            advice="leave it out: calls are signed with AWS credentials",
            reference=without_user(text),
        )
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"invalid bucket name {bucket!r}", advice=_FORM, reference=text)
    key = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), key)
    if kind == "oci":
        key = key.rstrip("/")
    elif not key or key.endswith("/"):
        raise UsageError("the archive's key is missing", advice=_FORM, reference=text)
    # A layout's longest key ends in a digest of sha512.
    if len(key.encode(errors="surrogatepass")) > _MOST_KEY_BYTES:
        raise UsageError(
            f"the key has more than {_MOST_KEY_BYTES:,} bytes, the most in S3", reference=text
        )
    return S3Source(kind, bucket, key, selector or None)


def _split_kind(text: str) -> tuple[str, str]:
    for kind in _KINDS:
        if text.startswith(f"{kind}:"):
            return kind, text[len(kind) + 1 :]
    return "oci", text
