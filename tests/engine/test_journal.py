"""The journal: what it keeps, whom it serves, and how it says no."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from asyncpush.engine.journal import (
    OpenUpload,
    default_path,
    fingerprint,
    open_journal,
    remove_journal,
)
from asyncpush.errors import JournalError
from asyncpush.oci.digest import Digest
from asyncpush.plan.items import PushItem
from asyncpush.plan.reference import parse_reference
from asyncpush.registries.base import UploadSession

pytestmark = pytest.mark.anyio

REPOSITORY = parse_reference("111122223333.dkr.ecr.eu-west-1.amazonaws.com/app").repository
OTHER = parse_reference("111122223333.dkr.ecr.eu-west-1.amazonaws.com/other").repository
DIGEST = "sha256:" + "0" * 64
SESSION = UploadSession("an-upload", 10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "journal"


async def test_what_is_noted_is_there_when_it_is_opened_again(path: Path) -> None:
    async with open_journal(path, "job", "title") as journal:
        assert await journal.open_upload(REPOSITORY, DIGEST) is None
        await journal.note_upload(REPOSITORY, DIGEST, SESSION, 0)
        await journal.note_upload(REPOSITORY, DIGEST, SESSION, 30)
        await journal.note_manifest(REPOSITORY, DIGEST, None)
        await journal.note_manifest(REPOSITORY, DIGEST, "v1")
        await journal.note_manifest(REPOSITORY, DIGEST, "v1")
    async with open_journal(path, "job", "title") as journal:
        assert await journal.open_upload(REPOSITORY, DIGEST) == OpenUpload(SESSION, 30)
        assert await journal.open_upload(OTHER, DIGEST) is None
        assert await journal.is_committed(REPOSITORY, DIGEST, None)
        assert await journal.is_committed(REPOSITORY, DIGEST, "v1")
        assert not await journal.is_committed(REPOSITORY, DIGEST, "v2")
        assert not await journal.is_committed(OTHER, DIGEST, "v1")
        await journal.end_upload(REPOSITORY, DIGEST)
        assert await journal.open_upload(REPOSITORY, DIGEST) is None


async def test_tag_that_moved_on_is_no_longer_committed_where_it_was(path: Path) -> None:
    newer = "sha256:" + "1" * 64
    async with open_journal(path, "job", "title") as journal:
        await journal.note_manifest(REPOSITORY, DIGEST, "v1")
        await journal.note_manifest(REPOSITORY, DIGEST, None)
        await journal.note_manifest(OTHER, DIGEST, "v1")
        await journal.note_manifest(REPOSITORY, newer, "v1")
        assert await journal.is_committed(REPOSITORY, newer, "v1")
        assert not await journal.is_committed(REPOSITORY, DIGEST, "v1")
        assert await journal.is_committed(REPOSITORY, DIGEST, None)
        assert await journal.is_committed(OTHER, DIGEST, "v1")


OLD, NEW, THEIRS = (Digest("sha256:" + digit * 64) for digit in "123")


async def test_what_a_tag_pointed_to_is_what_the_job_found_before_it_moved_it(path: Path) -> None:
    roots = dict.fromkeys(("moved", "created", "kept"), NEW)
    found = {"moved": OLD, "created": None, "kept": NEW}
    async with open_journal(path, "job", "title") as journal:
        assert await journal.note_previous(REPOSITORY, found, roots) == found
    # Killed when all had moved.
    async with open_journal(path, "job", "title") as journal:
        everywhere = dict.fromkeys(found, NEW)
        assert await journal.note_previous(REPOSITORY, everywhere, roots) == found


async def test_what_others_have_made_of_a_tag_since_is_what_it_is_returned_to(path: Path) -> None:
    roots = {"v1": NEW, "v2": NEW}
    async with open_journal(path, "job", "title") as journal:
        await journal.note_previous(REPOSITORY, {"v1": OLD, "v2": OLD}, roots)
    async with open_journal(path, "job", "title") as journal:
        found = {"v1": THEIRS, "v2": None}
        assert await journal.note_previous(REPOSITORY, found, roots) == found
        assert await journal.note_previous(REPOSITORY, roots, roots) == found


async def test_a_tag_that_was_returned_is_forgotten(path: Path) -> None:
    async with open_journal(path, "job", "title") as journal:
        await journal.note_previous(REPOSITORY, {"v1": OLD}, {"v1": NEW})
        await journal.note_manifest(REPOSITORY, NEW, "v1")
        await journal.note_manifest(REPOSITORY, NEW, None)
        await journal.forget_tag(REPOSITORY, "v1")
        assert not await journal.is_committed(REPOSITORY, NEW, "v1")
        assert await journal.is_committed(REPOSITORY, NEW, None)
        # Moved by hand meanwhile: that is what it is before the next run.
        assert await journal.note_previous(REPOSITORY, {"v1": NEW}, {"v1": NEW}) == {"v1": NEW}


async def test_two_runs_exclude_each_other(path: Path) -> None:
    async with open_journal(path, "job", "title"):
        with pytest.raises(JournalError, match="another run has the journal open"):
            async with open_journal(path, "job", "title"):
                pass
    async with open_journal(path, "job", "title") as journal:
        assert await journal.open_upload(REPOSITORY, DIGEST) is None


async def test_another_jobs_journal_is_refused_by_its_title(path: Path) -> None:
    async with open_journal(path, "job", "layouts to app"):
        pass
    with pytest.raises(JournalError, match="another job: layouts to app"):
        async with open_journal(path, "another", "title"):
            pass


async def test_another_versions_journal_is_refused(path: Path) -> None:
    async with open_journal(path, "job", "title"):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE job SET format=99")
    connection.close()
    with pytest.raises(JournalError, match="format 99"):
        async with open_journal(path, "job", "title"):
            pass


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be read" * 9])
async def test_damaged_journal_is_told_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(JournalError, match="this is no journal, or a damaged one"):
        async with open_journal(path, "job", "title"):
            pass
    assert path.read_bytes() == content


async def test_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be used"):
        async with open_journal(tmp_path / "file" / "journal", "job", "title"):
            pass


async def test_full_disk_is_told(path: Path) -> None:
    async with open_journal(path, "job", "title") as journal:
        journal._db.execute("PRAGMA max_page_count=1")

        async def fill() -> None:
            for n in range(1000):
                await journal.note_manifest(REPOSITORY, DIGEST, f"v{n}")

        with pytest.raises(JournalError, match="database or disk is full"):
            await fill()


async def test_removed_journal_leaves_nothing(path: Path) -> None:
    async with open_journal(path, "job", "title") as journal:
        await journal.note_upload(REPOSITORY, DIGEST, SESSION, 0)
    remove_journal(path)
    assert list(path.parent.iterdir()) == []
    remove_journal(path)


def test_fingerprint_is_that_of_sources_targets_and_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layout").mkdir()
    items = [PushItem("layout:v1", "target")]
    base = fingerprint(items, "http://one")

    assert base == fingerprint([PushItem(tmp_path / "layout:v1", "target")], "http://one")
    others = [
        fingerprint(items, "http://two"),
        fingerprint([PushItem("layout:v2", "target")], "http://one"),
        fingerprint([PushItem("layout:v1", "elsewhere")], "http://one"),
        fingerprint([PushItem("layout:v1", "target", "linux/arm64")], "http://one"),
        fingerprint(items * 2, "http://one"),
    ]
    assert base not in others
    assert len(set(others)) == len(others)


def test_default_place_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path("a" * 64) == tmp_path / "asyncpush" / ("a" * 32 + ".journal")
