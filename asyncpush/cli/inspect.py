"""``asyncpush inspect``: what a source holds, as a tree with sizes."""

from __future__ import annotations

from typing import Any

import click

from asyncpush.cli.completion import complete_files
from asyncpush.cli.exitcodes import ExitCode
from asyncpush.cli.options import aws_of, aws_options, temp_space_option
from asyncpush.cli.output import print_error, print_json
from asyncpush.errors import AsyncpushError, printable
from asyncpush.oci import mediatypes
from asyncpush.oci.descriptor import Descriptor
from asyncpush.oci.digest import Digest, verify
from asyncpush.oci.layout import Content, read_manifest
from asyncpush.oci.manifest import ImageIndex, parse_manifest
from asyncpush.oci.remote import RemoteContent
from asyncpush.oci.scratch import DEFAULT_LIMIT, MIB, Scratch
from asyncpush.oci.select import check_nesting
from asyncpush.plan.items import choose_entries
from asyncpush.plan.sources import Sources, is_remote, split_source
from asyncpush.text import plural, size


@click.command()
@click.argument("source", shell_complete=complete_files)
@click.option("--json", "as_json", is_flag=True, help="Print the tree as JSON.")
@aws_options
@click.option("--plain-http", is_flag=True, help="Ask a docker:// registry without TLS.")
@temp_space_option
@click.pass_context
def inspect(
    context: click.Context,
    /,
    source: str,
    *,
    as_json: bool,
    plain_http: bool,
    temp_space: int | None,
    **flags: Any,
) -> None:
    """Show what an OCI layout, an archive or a repository holds.

    SOURCE is an OCI layout directory or s3://BUCKET/PREFIX, oci-archive:FILE or
    docker-archive:FILE, where FILE may be s3://BUCKET/KEY, or a registry's repository as
    docker://HOST/REPOSITORY or an ECR reference; :NAME, :@NUMBER or @DIGEST behind it chooses one
    of its entries.
    """
    directory, selector = split_source(source)
    limit = DEFAULT_LIMIT if temp_space is None else temp_space * MIB

    def walk_through(sources: Sources) -> tuple[_Walk, list[dict[str, Any]]]:
        layout = sources.open(source)
        entries = choose_entries(layout, selector)
        sources.prefetch([(layout, entries)])
        walk = _Walk(layout)
        nodes = [walk.node(entry, ()) for entry in entries]
        if isinstance(layout, RemoteContent):
            walk.errors += layout.problems.values()
        return walk, nodes

    if is_remote(source):
        # Importing what asks registries takes longer than to read a layout.
        from asyncpush.cli.remote import with_remote  # noqa: PLC0415
        from asyncpush.engine.options import PushOptions  # noqa: PLC0415

        options = PushOptions(aws=aws_of(flags), plain_http=plain_http, temp_space=limit)
        walk, nodes = with_remote(walk_through, options)
    else:
        walk, nodes = walk_through(Sources(Scratch(limit)))
    totals = {
        "entries": len(nodes),
        "blobs": len(walk.sizes),
        "bytes": sum(walk.sizes.values()),
        "bytes_with_repetition": walk.repeated,
    }
    if as_json:
        print_json({"source": directory, "entries": nodes, "totals": totals})
    else:
        _print_tree(directory, nodes)
        click.echo(
            f"{plural(len(nodes), 'entry').replace('entrys', 'entries')},"
            f" {plural(len(walk.sizes), 'blob')}, {size(totals['bytes'])};"
            f" sharing saves {size(walk.repeated - totals['bytes'])}"
        )
    for error in walk.errors:
        print_error(error)
    context.exit(ExitCode.FAILED if walk.errors else ExitCode.OK)


class _Walk:
    """Descends from entries to blobs; what is broken becomes a node that says so."""

    def __init__(self, layout: Content) -> None:
        self._layout = layout
        self.sizes: dict[Digest, int] = {}
        self.repeated = 0
        self.errors: list[AsyncpushError] = []

    def node(self, descriptor: Descriptor, above: tuple[Digest, ...]) -> dict[str, Any]:
        """One descriptor and all below it, as JSON-ready data."""
        node: dict[str, Any] = {
            "digest": descriptor.digest,
            "media_type": descriptor.media_type,
            "size": descriptor.size,
        }
        if descriptor.ref_name:
            node["name"] = descriptor.ref_name
        if descriptor.platform:
            node["platform"] = str(descriptor.platform)
        try:
            self._fill(node, descriptor, above)
        except AsyncpushError as exc:
            error = exc.at(digest=descriptor.digest)
            self.errors.append(error)
            node["error"] = str(error)
        return node

    def _fill(
        self, node: dict[str, Any], descriptor: Descriptor, above: tuple[Digest, ...]
    ) -> None:
        kind = descriptor.media_type
        if not (mediatypes.is_manifest(kind) or mediatypes.is_index(kind)):
            if descriptor.is_foreign:
                node["foreign"] = True
            else:
                self._layout.find(descriptor)
                self._count(descriptor)
            return
        check_nesting(descriptor.digest, above)
        raw = read_manifest(self._layout.find_manifest(descriptor))
        verify(raw, descriptor.digest, descriptor.size)
        self._count(descriptor)
        manifest = parse_manifest(raw, kind)
        if manifest.artifact_type:
            node["artifact_type"] = manifest.artifact_type
        if manifest.subject:
            node["subject"] = manifest.subject.digest
        inner = (*above, descriptor.digest)
        if isinstance(manifest, ImageIndex):
            node["manifests"] = [self.node(child, inner) for child in manifest.manifests]
        else:
            node["config"] = self.node(manifest.config, inner)
            node["layers"] = [self.node(layer, inner) for layer in manifest.layers]

    def _count(self, descriptor: Descriptor) -> None:
        self.repeated += descriptor.size
        self.sizes[descriptor.digest] = descriptor.size


def _print_tree(title: str, nodes: list[dict[str, Any]]) -> None:
    click.echo(title)
    for i, node in enumerate(nodes):
        _print_node(node, "", "", last=i == len(nodes) - 1)


def _print_node(node: dict[str, Any], role: str, indent: str, *, last: bool) -> None:
    words = [role or node.get("name") or "(no name)", node.get("platform", "")]
    words += [node["digest"][:19], size(node["size"]), node["media_type"]]
    if "artifact_type" in node:
        words.append(f"artifact {node['artifact_type']}")
    if "subject" in node:
        words.append(f"subject {node['subject'][:19]}")
    if "foreign" in node:
        words.append("foreign, not uploaded by default")
    line = printable(" ".join(word for word in words if word))
    if "error" in node:
        line += f" {click.style('broken', fg='red')}"
    click.echo(f"{indent}{'└── ' if last else '├── '}{line}")
    below = [("image", child) for child in node.get("manifests", ())]
    below += [("config", node["config"])] if "config" in node else []
    below += [("layer", layer) for layer in node.get("layers", ())]
    for i, (name, child) in enumerate(below):
        inner = f"{indent}{'    ' if last else '│   '}"
        _print_node(child, name, inner, last=i == len(below) - 1)
