"""Lock files: read whole or refused in one line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.errors import DigestMismatchError, EntryNotFoundError, UsageError
from asyncpush.oci.writer import LayoutWriter
from asyncpush.plan.lock import is_lock, lock_schema, read_lock
from asyncpush.plan.sources import Sources

HOST = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
DIGEST = "sha256:" + "a" * 64
IMAGE = {"name": "v1", "source": "oci:/x", "digest": DIGEST, "targets": [f"{HOST}/app:v1"]}


def write(folder: Path, *images: dict[str, Any], **more: Any) -> Path:
    path = folder / "lock.json"
    path.write_text(json.dumps({"lock_version": 1, "images": images, **more}))
    return path


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"digest": "sha256:no"}, "not 64|digest"),
        ({"targets": []}, "at least 1 item"),
        ({"targets": ["no reference"]}, "no ECR reference"),
        ({"targets": [f"{HOST}/app@sha256:{'b' * 64}"]}, "another digest than the image"),
        ({"targets": [3]}, "valid string"),
        ({"name": ""}, "at least 1 character"),
        ({"keep": ["linux/amd64"]}, "keep goes with source_digest"),
        ({"source_digest": DIGEST}, "keep goes with source_digest"),
        ({"keep": ["x"], "source_digest": DIGEST}, "no platform"),
        ({"more": 1}, "not permitted"),
    ],
)
def test_damage_is_one_line_that_says_where(
    tmp_path: Path, image: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_lock(write(tmp_path, IMAGE, IMAGE | image))
    line = str(caught.value)
    assert "the lock is damaged" in line
    assert "images.1" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "lock_version is None"),
        (b'{"lock_version": 2, "images": []}', "lock_version is 2"),
        (b'{"lock_version": 1, "images": []}', "at least 1 item"),
        (b"[" * 100_000, "no JSON"),
    ],
)
def test_what_is_no_lock(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "lock.json").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_lock(tmp_path / "lock.json")


def test_a_lock_that_is_not_there(tmp_path: Path) -> None:
    assert not is_lock(tmp_path / "none")
    assert not is_lock(tmp_path)
    with pytest.raises(UsageError, match="No such file"):
        read_lock(tmp_path / "none")


def test_locks_and_job_files_are_told_apart(tmp_path: Path) -> None:
    assert is_lock(write(tmp_path, IMAGE))
    (tmp_path / "job.json").write_text('{"version": 1, "name": "lock_version"}')
    assert not is_lock(tmp_path / "job.json")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*IMAGE, "keep", "source_digest", "images"]) | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(values)
def test_hostile_locks_are_usage_errors(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lock.json"
        path.write_text(json.dumps({"lock_version": 1, "images": value}))
        with pytest.raises(UsageError):
            read_lock(path)


def layout(folder: Path) -> tuple[str, str]:
    """An index of two platforms; its digest and that of its first image."""
    writer = LayoutWriter(folder / "app")
    images = [
        {**writer.image([], config={"for": a}), "platform": {"os": "linux", "architecture": a}}
        for a in ("amd64", "arm64")
    ]
    index = writer.index(images)
    writer.entry(index, "v1")
    writer.close()
    return index["digest"], images[0]["digest"]


def test_images_go_by_digest_to_each_repository_with_its_tags(tmp_path: Path) -> None:
    index, member = layout(tmp_path)
    source = f"oci:{tmp_path / 'app'}"
    targets = [f"{HOST}/aa:v1", f"{HOST}/aa:latest", "localhost:5000/b:v1", f"{HOST}/cc@{member}"]
    whole = IMAGE | {"source": source, "digest": index}
    one = IMAGE | {"source": source, "digest": member, "targets": targets}
    first, second = read_lock(write(tmp_path, whole, one)).items
    sources = Sources()
    (entry,) = first.resolve(sources)
    assert entry.chosen().digest == index
    goes = {}
    for entry in second.resolve(sources):
        assert entry.chosen().digest == member
        assert entry.name == "v1"
        repository, tags = entry.destination()
        goes[str(repository)] = tags
    assert goes == {f"{HOST}/aa": ("v1", "latest"), "localhost:5000/b": ("v1",), f"{HOST}/cc": ()}


def test_a_source_that_changed_is_no_other_image(tmp_path: Path) -> None:
    index, _ = layout(tmp_path)
    source = f"oci:{tmp_path / 'app'}"
    gone = IMAGE | {"source": source}
    other = IMAGE | {"source": source, "source_digest": index, "keep": ["linux/amd64"]}
    first, second = read_lock(write(tmp_path, gone, other)).items
    with pytest.raises(EntryNotFoundError):
        list(first.resolve(Sources()))
    (entry,) = second.resolve(Sources())
    with pytest.raises(DigestMismatchError, match="the lock has sha256:aaa"):
        entry.chosen()


def test_the_schema_names_all_that_a_lock_has() -> None:
    image = lock_schema()["$defs"]["LockImage"]
    assert set(image["properties"]) == {*IMAGE, "keep", "source_digest"}
    assert set(image["required"]) == set(IMAGE)
