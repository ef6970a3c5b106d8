"""What users name as sources, and opening it: layouts, archives, registries, S3."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from asyncpush.errors import InvalidReferenceError, UsageError
from asyncpush.oci.archive import open_archive
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import Content, Layout
from asyncpush.oci.referrers import Found
from asyncpush.oci.scratch import Scratch
from asyncpush.plan.listing import AS_ANY, Catalog, FindTags, SourceAccess
from asyncpush.plan.reference import (
    DistributionRegistry,
    Reference,
    Repository,
    is_ecr,
    parse_reference,
    without_password,
)
from asyncpush.plan.s3 import is_s3, parse_s3

_KINDS = ("oci", "oci-archive", "docker-archive")
_ENDINGS = (".tar", ".tgz", ".tbz2", ".txz", ".tzst")
_COMPRESSED_ENDINGS = (".gz", ".bz2", ".xz", ".zst")


REGISTRY = "registry"
"""The kind of a source that is a repository of a registry."""
S3 = "s3"
"""The kind of a source that is a layout or an archive in S3."""
_REMOTE = frozenset({REGISTRY, S3})
_PUBLIC_ECR = "public.ecr.aws/"
_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


class Remote(Protocol):
    """Opens what is not on this machine; its calls wait for other machines."""

    def open_ahead(self, wanted: Sequence[tuple[str, SourceAccess]]) -> None:
        """Open sources, many at once; what fails is raised by :meth:`open`."""
        ...

    def open(self, source: str, access: SourceAccess) -> Content:
        """A source, opened once however often it is asked for."""
        ...

    def prefetch(
        self, wanted: Sequence[tuple[Content, Sequence[Descriptor]]], *, nested: bool
    ) -> None:
        """Fetch manifests, many at once; ``nested``: also those that indexes name, and subjects."""
        ...

    def referrers(self, wanted: Sequence[tuple[Content, Digest]]) -> Sequence[Found]:
        """What registries name as referring to manifests of theirs, in the order of these."""
        ...


class Sources:
    """Opens sources; one that many images come from is opened once.

    :param scratch: takes what cannot be read in place.
    :param compress_layers: compress the layers of archives of docker save's older form.
    :param remote: opens what is not on this machine; None for those who read nothing else.
    :param catalog: lists registries, and opens what they list; None for those who list nothing.
    :param find_tags: what tags of a target point to, for tags that never move; None where targets
        are not to be asked.
    """

    def __init__(
        self,
        scratch: Scratch | None = None,
        *,
        compress_layers: bool = False,
        remote: Remote | None = None,
        catalog: Catalog | None = None,
        find_tags: FindTags | None = None,
    ) -> None:
        self.catalog = catalog
        self.find_tags = find_tags
        self._scratch = scratch or Scratch()
        self._compress_layers = compress_layers
        self._remote = remote
        self._opened: dict[str, Content] = {}

    def open(self, source: str | os.PathLike[str], access: SourceAccess = AS_ANY) -> Content:
        """The layout, archive or repository of a source, kept for those who ask for it again.

        :param access: how a source on another machine is asked, where that is not as usual.
        :raises AsyncpushError: it cannot be read.
        """
        kind, _ = source_kind(os.fspath(source))
        if kind in _REMOTE:
            return self.open_once(source, access)
        path, _ = split_source(source)
        key = f"{kind}:{path}"
        if key not in self._opened:
            self._opened[key] = self.open_once(source)
        return self._opened[key]

    def open_once(self, source: str | os.PathLike[str], access: SourceAccess = AS_ANY) -> Content:
        """As :meth:`open`, for one of very many sources, which cannot all be kept."""
        kind, _ = source_kind(os.fspath(source))
        if kind in _REMOTE:
            if self._remote is None:
                raise UsageError(
                    "the source must be on this machine here",
                    advice="give a layout or an archive",
                    source=os.fspath(source),
                )
            return self._remote.open(os.fspath(source), access)
        path, _ = split_source(source)
        if kind == "oci":
            return Layout(path)
        return open_archive(kind, path, self._scratch, compress_layers=self._compress_layers)

    def open_ahead(self, wanted: Sequence[tuple[str, SourceAccess]]) -> None:
        """Open the remote ones of some sources, many at once."""
        if self._remote is not None:
            remote = [(text, access) for text, access in wanted if is_remote(text)]
            if remote:
                self._remote.open_ahead(remote)

    def prefetch(
        self, wanted: Sequence[tuple[Content, Sequence[Descriptor]]], *, nested: bool = True
    ) -> None:
        """Fetch manifests that will be asked for, where they are remote.

        :param nested: also those that indexes name, and subjects.
        """
        if self._remote is not None:
            self._remote.prefetch(wanted, nested=nested)

    def referrers(self, wanted: Sequence[tuple[Content, Digest]]) -> Sequence[Found]:
        """What registries name as referring to manifests, many asked at once.

        :param wanted: content of registries, and digests in it.
        """
        assert self._remote is not None, "it has opened the content"
        return self._remote.referrers(wanted)


def split_source(source: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Split ``[KIND:]PATH[:NAME|:@NUMBER|@DIGEST]`` into path and entry.

    A path may itself hold colons, so the shortest prefix that exists wins; if none does, the split
    is at the first colon, as skopeo does. Of a registry's reference the tag is the entry, or else
    the digest. What is in S3 keeps its kind, as that is a part of its address.
    """
    kind, text = source_kind(os.fspath(source))
    if kind == S3:
        found = parse_s3(text)
        return str(replace(found, selector=None)), found.selector
    if kind == REGISTRY:
        reference = parse_remote(text)
        return f"docker://{reference.repository}", reference.tag or reference.digest
    if not text:
        raise UsageError("the source is empty", advice="give an OCI layout directory")
    # os.path answers False where Path raises: no permission, a name too long.
    if os.path.exists(text):  # noqa: PTH110
        return text, None
    cuts = [i for i, character in enumerate(text) if character in ":@" and i > 0]
    for cut in cuts:
        if os.path.exists(text[:cut]):  # noqa: PTH110
            return text[:cut], text[cut + 1 :]
    return (text[: cuts[0]], text[cuts[0] + 1 :]) if cuts else (text, None)


def source_kind(text: str) -> tuple[str, str]:
    """What a source is (``oci``, ``oci-archive``, ``docker-archive``), and the rest of it.

    ``registry`` and ``s3`` are kinds, too, and the rest is all of it: ``docker://HOST/REPOSITORY``,
    and where no path of that name exists ECR's hosts and ARNs; ``[KIND:]s3://BUCKET/KEY``.
    """
    if is_s3(text):
        return S3, text
    if is_repository(text):
        return REGISTRY, text
    for kind in _KINDS:
        if text.startswith(f"{kind}:"):
            return kind, text[len(kind) + 1 :]
    return "oci", text


def is_remote(text: str) -> bool:
    """Whether a source is on another machine: in a registry or in S3."""
    return source_kind(text)[0] in _REMOTE


def is_repository(text: str) -> bool:
    """Whether a source is a registry's repository."""
    if text.startswith("docker://"):
        return True
    if not (is_ecr(text) or text.startswith(_PUBLIC_ECR)):
        return False
    cuts = [i for i, character in enumerate(text) if character in ":@"]
    return not any(os.path.exists(text[:cut]) for cut in (*cuts, len(text)))  # noqa: PTH110


def parse_remote(text: str) -> Reference:
    """Read a source that is a registry's repository, with a tag, a digest, both or neither.

    :raises InvalidReferenceError: it is none.
    """
    if text.startswith(_PUBLIC_ECR):
        text = f"docker://{text}"
    if "/" not in text.removeprefix("docker://"):
        raise InvalidReferenceError(
            "the source names no repository",
            advice="write docker://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]",
            reference=without_password(text),
        )
    reference = parse_reference(text)
    repository = reference.repository
    if repository.registry.host in _DOCKER_HUB:
        # What people call nginx is library/nginx there.
        name = repository.name if "/" in repository.name else f"library/{repository.name}"
        return replace(reference, repository=Repository(DistributionRegistry("docker.io"), name))
    return reference


def source_identity(source: str) -> tuple[str, str]:
    """What makes a source the same source when a command is given again: its kind, and the real
    path of what is on this machine."""
    kind, rest = source_kind(source)
    return kind, rest if kind in _REMOTE else os.path.realpath(rest)


def source_name(source: str) -> str:
    """What people call a source: the last part of its repository's name, the name of its directory,
    or of its file less the ending. A layout at a bucket's root goes by the bucket's name."""
    kind, path = source_kind(source)
    if kind == REGISTRY:
        return parse_remote(source).repository.name.rpartition("/")[2]
    if kind == S3:
        found = parse_s3(source)
        kind, path = found.kind, found.key or found.bucket
    name = os.path.basename(path)  # noqa: PTH119 - text only
    if kind != "oci":
        for endings in (_COMPRESSED_ENDINGS, _ENDINGS):
            for ending in endings:
                name = name.removesuffix(ending)
    return name
