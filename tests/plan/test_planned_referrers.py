"""Referrers: how they are named, how they are planned, and what a layout says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpush.oci.digest import Digest
from asyncpush.oci.layout import Layout
from asyncpush.oci.referrers import (
    cosign_tags,
    is_wanted,
    listed_subject,
    names_referrers,
    referrers_tag,
)
from asyncpush.oci.writer import JsonDescriptor, LayoutWriter
from asyncpush.plan.planner import Planner
from asyncpush.plan.reference import Repository, parse_reference
from asyncpush.plan.referrers import ReferrerSearch
from asyncpush.plan.sources import Sources

HEX = "0123456789abcdef" * 4
SBOM = "application/spdx+json"


def repository(name: str) -> Repository:
    return parse_reference(f"111122223333.dkr.ecr.eu-central-1.amazonaws.com/{name}").repository


def test_tags_name_referrers() -> None:
    digest = Digest(f"sha256:{HEX}")
    assert referrers_tag(digest) == f"sha256-{HEX}"
    assert cosign_tags(digest) == tuple(f"sha256-{HEX}.{e}" for e in ("sig", "att", "sbom"))
    assert all(names_referrers(tag) for tag in (referrers_tag(digest), *cosign_tags(digest)))
    assert not any(names_referrers(t) for t in ("latest", f"sha256-{HEX}.tar", f"sha256-{HEX}a"))
    assert listed_subject(referrers_tag(digest)) == digest
    assert listed_subject(cosign_tags(digest)[0]) is None
    # The tag of a longer digest is cut off.
    assert referrers_tag(Digest(f"sha512:{HEX}{HEX}")) == f"sha512-{HEX}"


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [((), True), ((SBOM,), True), (("application/*",), True), (("text/*",), False)],
)
def test_types_are_patterns(patterns: tuple[str, ...], wanted: bool) -> None:
    assert is_wanted((SBOM,), patterns) is wanted


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An image, an SBOM of it, and an entry that is damaged."""
    writer = LayoutWriter(tmp_path / "layout")
    image = writer.entry(writer.image([writer.layer({"a": b"a"})]), "app")
    sbom = writer.artifact(SBOM, [writer.blob(b"{ }", SBOM)], subject=image)
    writer.entry(sbom, "sbom")
    writer.close()
    return Layout(writer.root)


def test_a_referrers_subject_is_read_only_where_it_must_be_pushed(layout: Layout) -> None:
    app, sbom = layout.entries
    planner = Planner()
    with_it, without, alone = (repository(name) for name in ("with", "without", "alone"))
    planner.add(layout, app, with_it, ("app",))
    first = planner.add(layout, sbom, with_it, (), follow_subject=False)
    second = planner.add(layout, sbom, without, (), follow_subject=False)
    third = planner.add(layout, sbom, alone, ())
    # Where the subject is planned, it comes first; where it is there, it is left alone.
    assert first.manifests == (app.digest, sbom.digest)
    assert second.manifests == (sbom.digest,)
    assert set(planner.plan.repositories[without].blobs) == set(
        planner.plan.repositories[without].manifests[sbom.digest].blobs
    )
    # An entry that is pushed for itself brings its subject, whatever was planned before.
    assert third.manifests == (app.digest, sbom.digest)


def test_what_is_planned_or_there_is_known(layout: Layout) -> None:
    app, sbom = layout.entries
    planner = Planner()
    place = repository("known")
    assert not planner.has(place, app.digest, ())
    image = planner.add(layout, app, place, ("app",))
    assert planner.has(place, app.digest, ())
    assert planner.has(place, app.digest, ("app",))
    assert not planner.has(place, app.digest, ("app", "other"))
    assert not planner.has(place, sbom.digest, ())
    other = Planner()
    other.leave(image)
    assert other.has(place, app.digest, ())
    assert other.has(place, app.digest, ("app",))
    assert not other.has(repository("else"), app.digest, ("app",))


def test_an_entry_that_cannot_be_read_is_told_of_once(layout: Layout, tmp_path: Path) -> None:
    app, sbom = layout.entries
    path = tmp_path / "layout" / "blobs" / "sha256" / sbom.digest.removeprefix("sha256:")
    path.write_bytes(b"{}" + b" " * (sbom.size - 2))
    warnings: list[str] = []
    search = ReferrerSearch(Sources(), warnings.append)
    for _ in range(2):
        result = search.search([(layout, (), [app.digest])])
        assert result.of(layout, (), [app.digest]) == []
        assert result.problems == []
    (warning,) = warnings
    assert "1 of 2 entries" in warning
    assert sbom.digest in warning


def test_a_list_in_a_layout_names_what_is_no_entry(tmp_path: Path) -> None:
    """As regctl writes layouts."""
    writer = LayoutWriter(tmp_path / "layout")
    image = writer.entry(writer.image([writer.layer({"a": b"a"})]), "app")

    def artifact(text: bytes) -> JsonDescriptor:
        return writer.artifact(SBOM, [writer.blob(text, SBOM)], subject=image)

    listed = [artifact(b"1"), artifact(b"2")]
    writer.entry(writer.index(listed), image["digest"].replace(":", "-"))
    writer.close()
    content = Layout(writer.root)
    root = content.entries[0].digest
    result = ReferrerSearch(Sources(), pytest.fail).search([(content, (), [root])])
    assert [d.digest for d in result.of(content, (), [root])] == [d["digest"] for d in listed]
