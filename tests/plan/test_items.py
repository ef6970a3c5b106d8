"""What users name: sources that are split, targets that get their tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpush.errors import (
    AsyncpushError,
    EntryNotFoundError,
    InvalidReferenceError,
    LayoutError,
    UsageError,
)
from asyncpush.oci.digest import compute
from asyncpush.oci.writer import LayoutWriter
from asyncpush.plan.items import PushItem, ResolvedEntry, resolve
from asyncpush.plan.sources import Sources, source_name, split_source

TARGET = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/app"


def resolved(source: Path | str, target: str = TARGET, **more: str) -> list[ResolvedEntry]:
    return list(resolve(PushItem(source, target, **more), Sources()))


@pytest.mark.parametrize(
    ("source", "directory", "selector"),
    [
        ("app", "app", None),
        ("oci:app", "app", None),
        ("app:v1", "app", "v1"),
        ("oci:app:v1", "app", "v1"),
        ("app:", "app", ""),
        ("app:registry:5000/app:v1", "app", "registry:5000/app:v1"),
        ("app@sha256:00", "app", "sha256:00"),
        ("app:@1", "app", "@1"),
        ("docker-archive:app:team/app:v1", "app", "team/app:v1"),
        ("odd:name", "odd:name", None),
        ("odd:name:v1", "odd:name", "v1"),
        ("missing:v1:v2", "missing", "v1:v2"),
        ("missing", "missing", None),
        (":v1", ":v1", None),
        ("x" * 300, "x" * 300, None),
    ],
)
def test_a_source_splits_at_the_directory_that_exists(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    directory: str,
    selector: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("app", "odd:name"):
        Path(name).mkdir()
    assert split_source(source) == (directory, selector)
    assert split_source(Path("app")) == ("app", None)


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("v1", ("v1",)),
        ("docker.io/library/alpine:3.20", ("3.20",)),
        (f"registry:5000/alpine:3.20@{compute(b'')}", ("3.20",)),
        (None, ()),
    ],
)
def test_an_entrys_name_gives_its_tag(
    writer: LayoutWriter, name: str | None, tags: tuple[str, ...]
) -> None:
    image = writer.entry(writer.image([]), name)
    (entry,) = resolved(writer.close())
    assert entry.destination()[1] == tags
    assert entry.name == (name or image["digest"])
    assert str(entry.destination()[0]) == TARGET
    (entry,) = resolved(writer.root, f"{TARGET}:chosen")
    assert entry.destination()[1] == ("chosen",)


@pytest.mark.parametrize("name", ["registry:5000/alpine", "docker.io/alpine", "v" * 301, "my app"])
def test_a_name_that_is_no_tag_is_an_error_unless_a_tag_or_digest_is_given(
    writer: LayoutWriter, name: str
) -> None:
    image = writer.entry(writer.image([]), name)
    root = writer.close()
    (entry,) = resolved(root)
    with pytest.raises(UsageError, match="is no tag that ECR takes"):
        entry.destination()[1]
    assert [e.destination()[1] for e in resolved(root, f"{TARGET}:v1")] == [("v1",)]
    assert [e.destination()[1] for e in resolved(f"{root}@{image['digest']}")] == [()]


def test_a_whole_layout_is_meant_without_a_selector(writer: LayoutWriter) -> None:
    for n in range(3):
        writer.entry(writer.image([], config={"n": n}), f"v{n}")
    root = writer.close()
    assert [e.destination()[1] for e in resolved(root)] == [("v0",), ("v1",), ("v2",)]
    assert [e.destination()[1] for e in resolved(f"{root}:v1")] == [("v1",)]
    (second,) = resolved(f"{root}:@1")
    assert (second.entry.ref_name, second.destination()[1]) == ("v1", ())
    with pytest.raises(EntryNotFoundError, match=r"there is no @3.*has @0 to @2"):
        resolved(f"{root}:@3")
    with pytest.raises(UsageError, match="one tag, and 3 entries want it"):
        resolved(root, f"{TARGET}:one")


def test_one_tag_suits_an_image_with_several_names(writer: LayoutWriter) -> None:
    image = writer.image([])
    for name in ("v1", "latest"):
        writer.entry(image, name)
    assert {e.destination()[1] for e in resolved(writer.close(), f"{TARGET}:one")} == {("one",)}


def test_a_digest_in_the_target_chooses_the_entry(writer: LayoutWriter) -> None:
    image, other = (writer.image([], config={"n": n}) for n in range(2))
    writer.entry(writer.index([image]), "index")
    writer.entry(other, "other")
    root, digest = writer.close(), image["digest"]
    for source in (root, f"{root}@{digest}"):
        (entry,) = resolved(source, f"{TARGET}@{digest}")
        assert (entry.entry.digest, entry.destination()[1]) == (digest, ())
    with pytest.raises(UsageError, match="target's digest is not the entry's"):
        resolved(f"{root}:other", f"{TARGET}@{digest}")


def test_a_platforms_image_goes_by_the_indexs_name(writer: LayoutWriter) -> None:
    images = [
        {**writer.image([], architecture=a), "platform": {"os": "linux", "architecture": a}}
        for a in ("amd64", "arm64")
    ]
    writer.entry(writer.index(images), "v1")
    (entry,) = resolved(writer.close(), platform="linux/arm64")
    assert (entry.entry.digest, entry.destination()[1]) == (images[1]["digest"], ("v1",))
    with pytest.raises(EntryNotFoundError, match="linux/s390x"):
        resolved(writer.root, platform="linux/s390x")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("a/app", "app"),
        ("a/app.tar", "app.tar"),
        ("oci-archive:a/app.tar", "app"),
        ("oci-archive:a/app.v1.tar.zst", "app.v1"),
        ("docker-archive:a/app.tgz", "app"),
    ],
)
def test_a_source_goes_by_its_directory_or_file_less_the_ending(source: str, name: str) -> None:
    assert source_name(source) == name


def test_layouts_are_opened_once(writer: LayoutWriter) -> None:
    writer.entry(writer.image([]), "v1")
    root, sources = str(writer.close()), Sources()
    (first,) = resolve(PushItem(root, TARGET), sources)
    (second,) = resolve(PushItem(f"oci:{root}:v1", TARGET), sources)
    assert first.layout is second.layout is sources.open(root)


@pytest.mark.parametrize(
    ("source", "target", "kind", "message"),
    [
        ("{}:v2", TARGET, EntryNotFoundError, "no entry named 'v2'.*it has v1"),
        ("{}@" + compute(b"x"), TARGET, EntryNotFoundError, "no entry of the source"),
        ("{}/missing:v1", TARGET, LayoutError, "does not exist"),
        ("x" * 300, TARGET, LayoutError, "too long"),
        ("{}", "app", InvalidReferenceError, "no ECR reference"),
    ],
)
def test_a_wrong_item_is_told_what_is_wrong(
    writer: LayoutWriter, source: str, target: str, kind: type[AsyncpushError], message: str
) -> None:
    writer.entry(writer.image([]), "v1")
    with pytest.raises(kind, match=message):
        resolved(source.format(writer.close()), target)


def test_a_layout_without_entries_is_an_error(writer: LayoutWriter) -> None:
    with pytest.raises(EntryNotFoundError, match="no entries"):
        resolved(writer.close())
