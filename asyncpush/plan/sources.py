"""What users name as sources, and opening it: layouts, archives, compressed archives."""

from __future__ import annotations

import os

from asyncpush.errors import UsageError
from asyncpush.oci.archive import open_archive
from asyncpush.oci.layout import Content, Layout
from asyncpush.oci.scratch import Scratch
from asyncpush.plan.listing import Remotes

_KINDS = ("oci", "oci-archive", "docker-archive")
_ENDINGS = (".tar", ".tgz", ".tbz2", ".txz", ".tzst")
_COMPRESSED_ENDINGS = (".gz", ".bz2", ".xz", ".zst")


class Sources:
    """Opens sources; one that many images come from is opened once.

    :param scratch: takes what cannot be read in place.
    :param compress_layers: compress the layers of archives of docker save's older form.
    :param remotes: lists and opens images in registries; without it, none can be read.
    """

    def __init__(
        self,
        scratch: Scratch | None = None,
        *,
        compress_layers: bool = False,
        remotes: Remotes | None = None,
    ) -> None:
        self.remotes = remotes
        self._scratch = scratch or Scratch()
        self._compress_layers = compress_layers
        self._opened: dict[str, Content] = {}

    def open(self, source: str | os.PathLike[str]) -> Content:
        """The layout or archive of a source, kept for whoever asks for it again.

        :raises AsyncpushError: it cannot be read.
        """
        kind, _ = source_kind(os.fspath(source))
        path, _ = split_source(source)
        key = f"{kind}:{path}"
        if key not in self._opened:
            self._opened[key] = self.open_once(source)
        return self._opened[key]

    def open_once(self, source: str | os.PathLike[str]) -> Content:
        """As :meth:`open`, for one of very many sources, which cannot all be kept."""
        kind, _ = source_kind(os.fspath(source))
        path, _ = split_source(source)
        if kind == "oci":
            return Layout(path)
        return open_archive(kind, path, self._scratch, compress_layers=self._compress_layers)


def split_source(source: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Split ``[KIND:]PATH[:NAME|:@NUMBER|@DIGEST]`` into path and entry.

    A path may itself hold colons, so the shortest prefix that exists wins; if none does, the split
    is at the first colon, as skopeo does.
    """
    _, text = source_kind(os.fspath(source))
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
    """What a source is (``oci``, ``oci-archive``, ``docker-archive``), and the rest of it."""
    for kind in _KINDS:
        if text.startswith(f"{kind}:"):
            return kind, text[len(kind) + 1 :]
    return "oci", text


def source_name(source: str) -> str:
    """What people call a source: the name of its directory, or of its file less the ending."""
    kind, path = source_kind(source)
    name = os.path.basename(path)  # noqa: PTH119 - text only
    if kind != "oci":
        for endings in (_COMPRESSED_ENDINGS, _ENDINGS):
            for ending in endings:
                name = name.removesuffix(ending)
    return name
