"""What was pushed, for other programs: references by digest, and locks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asyncpush.engine.results import ImageResult, ImageStatus, PushReport
from asyncpush.errors import UsageError
from asyncpush.plan.lock import LOCK_VERSION
from asyncpush.report.file import write_whole

_THERE = (ImageStatus.PUSHED, ImageStatus.EXISTS)


def image_refs(images: Iterable[ImageResult]) -> list[str]:
    """``HOST/REPOSITORY@DIGEST`` of each image that is there, each once, in order.

    As crane and ko write them (``--image-refs``): without a tag, one a line. ko also has a line for
    each image of an index; here as with crane the index stands for them.
    """
    found = (f"{_repository(i)}@{i.digest}" for i in images if i.status in _THERE)
    return sorted(dict.fromkeys(found))


def lock_document(images: Iterable[ImageResult]) -> dict[str, Any]:
    """The lock of what is there: sources, digests and targets, in an order that does not change."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for image in images:
        origin = image.origin
        if image.status not in _THERE or origin is None:
            continue
        trimmed = origin.digest != image.digest
        key = (origin.source, image.name, image.digest, origin)
        entry = found.setdefault(
            key,
            {
                "name": image.name,
                "source": origin.source,
                "digest": image.digest,
                **(
                    {"source_digest": str(origin.digest), "keep": list(origin.keep)}
                    if trimmed
                    else {}
                ),
                "targets": [],
            },
        )
        repository = _repository(image)
        entry["targets"] += [f"{repository}:{tag.tag}" for tag in image.tags] or [
            f"{repository}@{image.digest}"
        ]
    ordered = sorted(found, key=lambda key: tuple(map(str, key)))
    entries = [found[key] for key in ordered]
    for entry in entries:
        entry["targets"] = sorted(set(entry["targets"]))
    return {"lock_version": LOCK_VERSION, "images": entries}


def write_image_refs(path: Path, report: PushReport) -> None:
    """Write :func:`image_refs` of a push, whole or not at all.

    :raises UsageError: it cannot be written.
    """
    _write(path, "".join(f"{line}\n" for line in image_refs(report.images)))


def write_lock(path: Path, report: PushReport) -> bool:
    """Write the lock of a push, whole or not at all; a push that is not whole has none.

    :return: whether it was written.
    :raises UsageError: it cannot be written.
    """
    if not report.ok or report.count(ImageStatus.REFUSED):
        return False
    _write(path, json.dumps(lock_document(report.images), indent=2) + "\n")
    return True


def _write(path: Path, text: str) -> None:
    try:
        with write_whole(path) as file:
            file.write(text)
    except OSError as exc:
        raise UsageError(f"cannot be written: {exc.strerror}", file=str(path)) from exc


def _repository(image: ImageResult) -> str:
    """The repository that an image's reference is in."""
    reference = image.reference.partition("@")[0]
    head, slash, name = reference.rpartition("/")
    return f"{head}{slash}{name.partition(':')[0]}"
