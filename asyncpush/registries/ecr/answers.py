"""What a success of ECR's calls looks like (botocore's ecr model), believed only where it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from asyncpush.errors import UnexpectedAnswerError, UnsupportedDigestError
from asyncpush.oci.digest import Digest, parse_digest
from asyncpush.registries.base import PartReceipt, UploadSession

_MOST_SHOWN = 120


def sizes_of(answer: Any, wanted: Sequence[Digest]) -> dict[Digest, int | None]:
    """BatchCheckLayerAvailability: the blobs that are there, with their bytes.

    :raises UnexpectedAnswerError: the answer is not one to this question.
    """
    found: dict[Digest, int | None] = {}
    for layer in _list(answer, "layers"):
        if _text(layer, "layerAvailability") != "AVAILABLE":
            continue
        digest = _digest(layer, "layerDigest")
        size = layer.get("layerSize")
        if digest not in wanted:
            raise _unexpected("names a layer that was not asked for", digest)
        if size is not None and not _is_number(size, 0):
            raise _unexpected("has a layerSize that is not a size", size)
        found[digest] = size
    _list(answer, "failures")
    return found


def session_of(answer: Any) -> UploadSession:
    """InitiateLayerUpload: the session that it opened.

    :raises UnexpectedAnswerError: it opened none.
    """
    size = _member(answer, "partSize")
    if not _is_number(size, 1):
        raise _unexpected("has a partSize that is not a size", size)
    return UploadSession(_text(answer, "uploadId"), size)


def receipt_of(answer: Any, session: UploadSession, offset: int, length: int) -> PartReceipt:
    """UploadLayerPart: what the registry holds after a part.

    :raises UnexpectedAnswerError: it does not acknowledge bytes of this part.
    """
    last = _member(answer, "lastByteReceived")
    if not _is_number(last, offset) or last >= offset + length:
        raise _unexpected(
            f"does not acknowledge the part from byte {offset} to {offset + length - 1}", last
        )
    return PartReceipt(last, session)


def url_of(answer: Any) -> str:
    """GetDownloadUrlForLayer: where the layer is read; the address is a secret while it lives.

    :raises UnexpectedAnswerError: there is none.
    """
    url = _member(answer, "downloadUrl")
    if not isinstance(url, str):
        raise _unexpected("has a downloadUrl that is not text")
    return url


def check_completed(answer: Any, digest: Digest) -> None:
    """CompleteLayerUpload: the layer is there, under the digest that was proven.

    :raises UnexpectedAnswerError: the answer does not say so.
    """
    told = _text(answer, "layerDigest")
    if told != digest:
        raise _unexpected("names another layer", told)


def check_committed(answer: Any, digest: Digest, tag: str | None) -> None:
    """PutImage: the image is there, under its digest and its tag.

    :raises UnexpectedAnswerError: the answer does not say so.
    """
    image = _member(_member(answer, "image"), "imageId")
    told = _text(image, "imageDigest")
    if told != digest:
        raise _unexpected("names another image", told)
    if tag is not None and _text(image, "imageTag") != tag:
        raise _unexpected("names another tag", image["imageTag"])


def tags_of(answer: Any, wanted: Sequence[str]) -> dict[str, Digest]:
    """BatchGetImage of tags: the digest of each that exists.

    :raises UnexpectedAnswerError: the answer is not one to this question.
    """
    found: dict[str, Digest] = {}
    for image in _list(answer, "images"):
        where = _member(image, "imageId")
        tag = _text(where, "imageTag")
        if tag not in wanted:
            raise _unexpected("names a tag that was not asked for", tag)
        found[tag] = _digest(where, "imageDigest")
    return found


def manifest_of(answer: Any) -> tuple[bytes, str] | None:
    """BatchGetImage of one digest: the manifest and its media type; None if there is none.

    :raises UnexpectedAnswerError: the answer is not one to this question.
    """
    images = _list(answer, "images")
    if not images:
        return None
    manifest, kind = _text(images[0], "imageManifest"), _text(images[0], "imageManifestMediaType")
    return manifest.encode(errors="surrogatepass"), kind


def token_of(answer: Any) -> tuple[str, float]:
    """GetAuthorizationToken: the token, and when it ends, in seconds since 1970.

    :raises UnexpectedAnswerError: there is none.
    """
    data = _list(answer, "authorizationData")
    if not data:
        raise _unexpected("holds no authorizationData")
    token, ends = _member(data[0], "authorizationToken"), _member(data[0], "expiresAt")
    if not isinstance(token, str) or not isinstance(ends, datetime):
        # What it holds instead may be a secret.
        raise _unexpected("holds no authorizationToken, or not when it ends")
    return token, ends.timestamp()


def _member(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping) or value.get(name) is None:
        raise _unexpected(f"lacks {name}")
    return value[name]


def _list(value: Any, name: str) -> list[Any]:
    found = value.get(name, []) if isinstance(value, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        raise _unexpected(f"has {name} that are not a list of objects")
    return found


def _text(value: Any, name: str) -> str:
    text = _member(value, name)
    if not isinstance(text, str) or not text:
        raise _unexpected(f"has {name} that is not text", text)
    return text


def _digest(value: Any, name: str) -> Digest:
    text = _text(value, name)
    try:
        return parse_digest(text)
    except UnsupportedDigestError as exc:
        raise _unexpected(f"has {name} that is not a digest", text) from exc


def _is_number(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _unexpected(what: str, value: Any = None) -> UnexpectedAnswerError:
    shown = "" if value is None else f": {str(value)[:_MOST_SHOWN]}"
    return UnexpectedAnswerError(
        f"the answer {what}{shown}",
        advice="check that the endpoint is ECR's, and that no proxy answers in its place",
    )
