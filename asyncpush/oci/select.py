"""Which entry of a layout is meant: by name, by digest, by platform, or all of them."""

from __future__ import annotations

from collections.abc import Iterator

from asyncpush.errors import EntryNotFoundError, IndexCycleError, ManifestError, UsageError
from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import Descriptor, Platform
from asyncpush.oci.digest import Digest, verify
from asyncpush.oci.layout import Content, read_manifest
from asyncpush.oci.manifest import ImageIndex, parse_manifest

MAX_INDEX_DEPTH = 128
"""Indexes nested, or subjects chained, deeper than this are taken for an attack."""


def parse_platform(text: str) -> Platform:
    """Read ``OS/ARCH[/VARIANT]``.

    :raises UsageError: it reads otherwise.
    """
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise UsageError(f"{text!r} is no platform", advice="a platform reads linux/arm64/v8")
    return Platform(*parts)


def entries_named(layout: Content, name: str) -> list[Descriptor]:
    """The entries whose ``org.opencontainers.image.ref.name`` is this name.

    Where none is, those whose names are references to the same image: docker and skopeo write
    ``docker.io/library/app:latest`` where people write ``app``.

    :raises EntryNotFoundError: there is none.
    """
    found = [entry for entry in layout.entries if entry.ref_name == name]
    if not found:
        whole = whole_reference(name)
        found = [e for e in layout.entries if e.ref_name and whole_reference(e.ref_name) == whole]
    if not found:
        names = sorted({e.ref_name for e in layout.entries if e.ref_name})
        known = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        raise EntryNotFoundError(
            f"the source has no entry named {name!r}",
            advice=f"it has {known}"
            if known
            else "its entries have no names; choose by digest, or as :@0, :@1 and so on",
            file=str(layout.root),
        )
    return found


def whole_reference(name: str) -> str:
    """A reference as docker means it: with its registry, its namespace and a tag."""
    host, slash, path = name.partition("/")
    if not slash or not (set(".:") & set(host) or host == "localhost"):
        host, path = "docker.io", name
    if host == "docker.io" and "/" not in path:
        path = f"library/{path}"
    tagged = ":" in path.rpartition("/")[2] or "@" in path
    return f"{host}/{path}" if tagged else f"{host}/{path}:latest"


def entry_numbered(layout: Content, number: int) -> Descriptor:
    """The entry, or in docker's archives the image, of a number, counted from 0.

    :raises EntryNotFoundError: there are not so many.
    """
    numbered = layout.numbered
    if number >= len(numbered):
        raise EntryNotFoundError(
            f"there is no @{number}",
            advice=f"the source has @0 to @{len(numbered) - 1}" if numbered else "it is empty",
            file=str(layout.root),
        )
    return numbered[number]


def entry_by_digest(layout: Content, digest: Digest) -> Descriptor:
    """The entry of this digest, or the member of a nested index.

    :raises EntryNotFoundError: nothing in the layout's indexes has it.
    """
    for entry in layout.entries:
        if entry.digest == digest:
            return entry
    seen: set[Digest] = set()
    for entry in layout.entries:
        for child in _descend(layout, entry, (), seen):
            if child.digest == digest:
                return child
    raise EntryNotFoundError(
        "no entry of the source, nor a member of its indexes, has this digest",
        digest=digest,
        file=str(layout.root),
    )


def for_platform(layout: Content, entry: Descriptor, platform: Platform) -> Descriptor:
    """The one image of an index that runs on a platform; anything else is its own answer.

    A platform without a variant takes the first image of that system and architecture, as other
    clients do.

    :raises EntryNotFoundError: the index has none.
    """
    if not mediatypes.is_index(entry.media_type):
        return entry
    names: list[str] = []
    for child in _descend(layout, entry, (), set()):
        if child.platform is None:
            continue
        names.append(str(child.platform))
        if runs_on(child.platform, platform):
            return child
    raise EntryNotFoundError(
        f"the index has no image for {platform}",
        advice=f"it has {', '.join(dict.fromkeys(names))}" if names else "it names no platforms",
        digest=entry.digest,
    )


def runs_on(offered: Platform, wanted: Platform) -> bool:
    """Whether an image for one platform is one for another, which may leave the variant open."""
    same = (offered.os, offered.architecture) == (wanted.os, wanted.architecture)
    return same and (wanted.variant is None or offered.variant == wanted.variant)


def _descend(
    layout: Content, entry: Descriptor, above: tuple[Digest, ...], seen: set[Digest]
) -> Iterator[Descriptor]:
    """All members of an index, those of nested indexes behind the index that holds them.

    :param seen: indexes that were read already; each is read once, or indexes that name each other
        twice would take 2 to the power of their depth.
    """
    if not mediatypes.is_index(entry.media_type):
        return
    check_nesting(entry.digest, above)
    if entry.digest in seen:
        return
    seen.add(entry.digest)
    raw = read_manifest(layout.find_manifest(entry))
    verify(raw, entry.digest, entry.size)
    index = parse_manifest(raw, entry.media_type)
    if not isinstance(index, ImageIndex):
        raise ManifestError("an index's media type on a manifest", digest=entry.digest)
    for child in index.manifests:
        yield child
        yield from _descend(layout, child, (*above, entry.digest), seen)


def check_nesting(digest: Digest, above: tuple[Digest, ...]) -> None:
    """Refuse an index that leads back to itself, or nests beyond reason.

    :param above: the digests that led here, outermost first.
    :raises IndexCycleError: it does.
    """
    if digest in above:
        ring = " -> ".join((*above[above.index(digest) :], digest))
        raise IndexCycleError(
            "the index leads back to itself",
            advice=f"one of these digests is false: {ring}",
            digest=digest,
        )
    if len(above) >= MAX_INDEX_DEPTH:
        raise IndexCycleError(
            f"indexes or subjects nest deeper than {MAX_INDEX_DEPTH} levels", digest=digest
        )
