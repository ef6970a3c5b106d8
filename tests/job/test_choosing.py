"""What goes of a job's sources: tags of registries, entries of layouts, platforms of indexes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from memory_catalog import MemoryCatalog

from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    SourceNotFoundError,
    UsageError,
)
from asyncpush.job.items import Job
from asyncpush.job.load import JobError, load_job
from asyncpush.oci.writer import LayoutWriter
from asyncpush.plan.choose import TagInfo
from asyncpush.plan.listing import NAME_THEM, SourceAccess
from asyncpush.plan.planner import Planner
from asyncpush.plan.sources import Sources

HOST = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
FROM = "docker://ghcr.io"
NOW = datetime.now(UTC)


def load(folder: Path, *sources: dict[str, Any], **more: Any) -> Job:
    document = {
        "version": 1,
        "registries": [{"hosts": [HOST]}],
        "sources": sources,
        "targets": [{"repository": "{source.repository}"}],
        **more,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_job(path, {}, {})


def run(job: Job, catalog: MemoryCatalog | None = None) -> tuple[list[str], list[AsyncpushError]]:
    """Where images would go, and what fails of it; each as the engine asks for it."""
    goes, fails = [], []
    sources = Sources(catalog=catalog)
    for item in job.items():
        try:
            for entry in item.resolve(sources):
                try:
                    entry.chosen()
                    repository, tags = entry.destination()
                    goes += [f"{repository.name}:{tag}" for tag in tags] or [f"{repository.name}@"]
                except AsyncpushError as exc:
                    fails.append(exc)
        except AsyncpushError as exc:
            fails.append(exc)
    return goes, fails


def tags(*names: str, days: int | None = None) -> list[TagInfo]:
    pushed = None if days is None else NOW - timedelta(days=days)
    return [TagInfo(name, pushed_at=pushed, pulled_at=pushed) for name in names]


@pytest.fixture
def catalog(tmp_path: Path) -> MemoryCatalog:
    return MemoryCatalog(
        tmp_path / "registry",
        {
            "other/app": tags("v1"),
            "team/api": tags("v1.0.0", "v1.2.0", "v2.0.0", "latest", days=1),
            "team/deep/er": tags("v1"),
            "team/web": [*tags("v1.1.0", days=100), *tags("v1.3.0-rc.1", "v1.4.0", days=5)],
        },
    )


def test_globs_over_repositories_and_choices_of_tags(
    tmp_path: Path, catalog: MemoryCatalog
) -> None:
    job = load(
        tmp_path,
        {
            "images": f"{FROM}/team/*",
            "tags": {"semver": ">=1.1 <2", "exclude": ["*-rc*"], "newer_than": "90d"},
        },
    )
    assert run(job, catalog) == (["team/api:v1.2.0", "team/web:v1.4.0"], [])
    assert job.notes.lines() == [
        "ghcr.io/team/api: semver >=1.1 <2 leaves out 2 (v1.0.0, v2.0.0)",
        "ghcr.io/team/api: semver >=1.1 <2 (no version) leaves out 1 (latest)",
        "ghcr.io/team/web: newer_than 90d leaves out 1 (v1.1.0)",
        "ghcr.io/team/web: exclude *-rc* leaves out 1 (v1.3.0-rc.1)",
    ]
    assert job.notes.to_dict()["choices"][0]["taken"] == 1


def test_double_stars_cross_slashes_and_newest_counts_for_each_repository(
    tmp_path: Path, catalog: MemoryCatalog
) -> None:
    job = load(tmp_path, {"images": [f"{FROM}/team/**"], "tags": {"newest": 1, "include": ["v*"]}})
    assert run(job, catalog)[0] == ["team/api:v2.0.0", "team/deep/er:v1", "team/web:v1.4.0"]


def test_single_images_and_single_repositories_need_no_catalog(
    tmp_path: Path, catalog: MemoryCatalog
) -> None:
    catalog.catalog = AccessDeniedError("denied", advice=NAME_THEM)
    digest = "sha256:" + "a" * 64
    job = load(
        tmp_path,
        {"images": [f"{FROM}/team/api:v7", f"{FROM}/team/web@{digest}", f"{FROM}/other/app"]},
        {"images": f"{FROM}/team/*"},
    )
    goes, fails = run(job, catalog)
    assert goes == ["team/api:v7", "team/web@", "other/app:v1"]
    assert [str(error) for error in fails] == [f"denied; {NAME_THEM}"]


def test_a_listing_is_read_as_far_as_images_are_asked_for(tmp_path: Path) -> None:
    many = {f"team/r{i:04}": tags("v1") for i in range(1000)}
    catalog = MemoryCatalog(tmp_path / "registry", dict(many))
    job = load(tmp_path, {"images": f"{FROM}/team/*"})
    (item,) = job.items()
    resolved = item.resolve(Sources(catalog=catalog))
    for _ in range(4):
        next(resolved)
    # 2 pages of 3 repositories, and a page of tags for each of 4: two images are opened ahead.
    assert catalog.pages == 6


def test_what_fails_fails_alone(tmp_path: Path, catalog: MemoryCatalog) -> None:
    catalog.content["team/api"] = AccessDeniedError("ListTags denied", call="ListTags")
    catalog.content["team/bad"] = tags("v1")
    catalog.broken.add("team/bad")
    job = load(
        tmp_path,
        {"images": f"{FROM}/team/*"},
        {"images": f"{FROM}/none/*"},
        {"images": f"{FROM}/other/*", "tags": {"include": ["z*"]}},
        {"images": f"{FROM}/other/app"},
    )
    goes, fails = run(job, catalog)
    assert goes == ["team/web:v1.1.0", "team/web:v1.3.0-rc.1", "team/web:v1.4.0", "other/app:v1"]
    denied, broken, nothing, no_tag = fails
    assert str(denied) == "ListTags denied (call ListTags, repository ghcr.io/team/api)"
    assert "gone" in str(broken)
    assert isinstance(nothing, SourceNotFoundError)
    assert "no repository matches the pattern (images ghcr.io/none/*)" in str(nothing)
    assert NAME_THEM in str(nothing)
    assert isinstance(no_tag, SourceNotFoundError)
    assert "no tag of 1 repository is chosen: include z* leaves out v1" in str(no_tag)
    # A job file is right that names what a registry lacks; what else it names still goes.
    assert not any(isinstance(error, UsageError) for error in fails)


def test_rules_about_times_need_a_registry_that_lists_them(
    tmp_path: Path, catalog: MemoryCatalog
) -> None:
    catalog.push_times = catalog.pull_times = False
    job = load(
        tmp_path,
        {"images": f"{FROM}/team/*", "tags": {"newer_than": "90d"}},
        {"images": f"{HOST}/team/*", "tags": {"pulled_within": "90d"}},
    )
    pushes, pulls = run(job, catalog)[1]
    assert "newer_than needs times of pushes, and ghcr.io lists none" in str(pushes)
    assert f"pulled_within needs times of pulls, and {HOST} lists none" in str(pulls)


def test_templates_know_the_source(tmp_path: Path, catalog: MemoryCatalog) -> None:
    writer = LayoutWriter(tmp_path / "app")
    writer.entry(writer.image([]), "v1")
    writer.close()
    target = {"repository": "m/{source.registry}/{source.repository}/{directory}"}
    job = load(tmp_path, {"images": f"{FROM}/other/app"}, {"layouts": "app"}, targets=[target])
    goes, (error,) = run(job, catalog)
    assert goes == ["m/ghcr.io/other/app/app:v1"]
    assert "needs source.registry, and the image comes from no registry" in str(error)


def test_each_source_has_an_access_of_its_own(tmp_path: Path, catalog: MemoryCatalog) -> None:
    role = "arn:aws:iam::{account}:role/read-{region}"
    job = load(
        tmp_path,
        {"images": f"{HOST}/team/*", "role_arn": role, "external_id": "x", "profile": "p"},
        {"images": f"{FROM}/other/*", "plain_http": True, "referrers": True},
        {"images": f"{FROM}/other/*", "referrers": ["application/spdx+json"]},
    )
    run(job, catalog)
    assert catalog.asked == [
        (HOST, SourceAccess("p", "arn:aws:iam::111122223333:role/read-eu-west-1", "x")),
        ("ghcr.io", SourceAccess(plain_http=True)),
        ("ghcr.io", SourceAccess()),
    ]
    assert [s.referrers for s in job.sources] == [None, (), ("application/spdx+json",)]


def test_immutable_tags_of_a_target_reach_its_images(
    tmp_path: Path, catalog: MemoryCatalog
) -> None:
    target = {"repository": "a", "immutable_tags": ["v*"]}
    job = load(tmp_path, {"images": f"{FROM}/other/app"}, targets=[target])
    (item,) = job.items()
    assert [e.immutable_tags for e in item.resolve(Sources(catalog=catalog))] == [("v*",)]


def test_registries_are_not_read_where_nothing_can_read_them(tmp_path: Path) -> None:
    (error,) = run(load(tmp_path, {"images": f"{FROM}/team/*"}))[1]
    assert "images in registries cannot be read here" in str(error)


def layout(folder: Path, *names: str, created: dict[str, str] | None = None) -> None:
    writer = LayoutWriter(folder)
    for name in names:
        built = writer.image([], config={"name": name})
        time = (created or {}).get(name)
        notes = {"annotations": {"org.opencontainers.image.created": time}} if time else {}
        writer.entry(built | notes, name)
    writer.close()


def test_layouts_are_chosen_from_by_names_versions_and_times(tmp_path: Path) -> None:
    new = NOW.isoformat().replace("+00:00", "Z")
    times = {"v1.0.0": "2020-01-01T00:00:00Z", "v1.1.0": new, "v1.2.0": "not a time"}
    layout(tmp_path / "app", "v1.0.0", "v1.1.0", "v1.2.0", "main", created=times)
    targets = [{"repository": "app"}]

    def goes(**choice: Any) -> list[str]:
        job = load(tmp_path, {"layouts": "app", "tags": choice}, targets=targets)
        found, fails = run(job)
        assert fails == []
        return found

    assert goes(semver="^1.1") == ["app:v1.1.0", "app:v1.2.0"]
    assert goes(semver="*", newest=1) == ["app:v1.2.0"]
    assert goes(include=["m*"]) == ["app:main"]
    assert goes(newer_than="90d") == ["app:v1.1.0"]
    assert goes(newest=1) == ["app:v1.1.0"]


def test_layouts_without_times_say_so(tmp_path: Path) -> None:
    layout(tmp_path / "app", "v1")
    job = load(tmp_path, {"layouts": "app", "tags": {"newer_than": "90d"}})
    (error,) = run(job)[1]
    assert "newer_than needs the annotation org.opencontainers.image.created" in str(error)
    job = load(tmp_path, {"layouts": "app", "tags": {"include": ["z"]}})
    (error,) = run(job)[1]
    assert "none of the layout's 1 entries is asked for" in str(error)


def test_a_smaller_index_goes_under_its_own_digest_and_is_told_of(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "app")
    images = [
        {
            **writer.image([], config={"for": name}),
            "platform": {"os": "linux", "architecture": name},
        }
        for name in ("amd64", "arm64", "s390x")
    ]
    index = writer.index(images)
    writer.entry(index, "v1")
    writer.close()
    job = load(
        tmp_path,
        {"layouts": "app", "platforms": {"keep": ["linux/amd64", "linux/arm64"]}},
        targets=[{"repository": "one"}, {"repository": "two", "tags": ["{short_digest}"]}],
    )
    planner = Planner()
    (item,) = job.items()
    for entry in item.resolve(Sources()):
        planner.add(entry.layout, entry.chosen(), *entry.destination())
    planned = list(planner.plan.images())
    (root,) = {image.root for image in planned}
    assert root != index["digest"]
    assert [len(image.manifests) for image in planned] == [3, 3]
    assert planned[1].tags == (root.removeprefix("sha256:")[:12],)
    (line,) = job.notes.lines()
    assert line == (
        "app:v1: the index keeps linux/amd64, linux/arm64 and leaves out linux/s390x;"
        f" its digest is {root} instead of {index['digest']}"
    )


@pytest.mark.parametrize(
    ("source", "key", "message"),
    [
        ({"images": f"{FROM}/a", "tags": ["v*"]}, "tags", "templates of tags belong to a target"),
        ({"images": f"{FROM}/a", "tags": "v*"}, "tags", "templates of tags belong to a target"),
        ({"images": f"{FROM}/a", "tags": {"newest": 0}}, "tags.newest", "greater than"),
        (
            {"images": f"{FROM}/a", "tags": {"semver": "new"}},
            "tags.semver",
            "invalid version range",
        ),
        ({"images": f"{FROM}/a", "tags": {"newer_than": "9"}}, "newer_than", "invalid duration"),
        ({"images": f"{FROM}/a", "tags": {"neewest": 1}}, "tags.neewest", "did you mean newest"),
        ({"images": f"{FROM}/a*:v1"}, "images", "no tag and no digest"),
        ({"images": [f"{FROM}/a", "docker://u:secret@h/a"]}, "images.1", "without name and pass"),
        ({"images": f"{FROM}/a", "layouts": "x"}, "sources.0", "give layouts or images"),
        ({"targets": ["x"]}, "sources.0", "give layouts or images"),
        ({"images": f"{FROM}/a", "entries": ["v*"]}, "sources.0", "choose from images with"),
        ({"images": f"{FROM}/a", "external_id": "x"}, "sources.0", "goes with role_arn"),
        ({"images": f"{FROM}/a", "profile": "x"}, "sources.0", "takes no AWS credentials"),
        ({"images": f"{HOST}/app", "role_arn": "x"}, "role_arn", "no role's ARN"),
        ({"images": f"{FROM}/a", "platforms": {"keep": []}}, "platforms.keep", "at least 1"),
        ({"images": f"{FROM}/a", "platforms": {"kep": ["a/b"]}}, "kep", "unknown"),
        ({"images": f"{FROM}/a", "platforms": {"keep": ["x"]}}, "keep.0", "no platform"),
        ({"images": f"{FROM}/a", "referrers": 3}, "referrers", "valid boolean"),
        (
            {"images": f"{FROM}/a", "tags": {"pulled_within": "90d"}},
            "tags.pulled_within",
            "does not record pulls",
        ),
        ({"layouts": "app", "tags": {"pulled_within": "9d"}}, "pulled_within", "nothing records"),
    ],
)
def test_mistakes_have_their_line_and_key(
    tmp_path: Path, source: dict[str, Any], key: str, message: str
) -> None:
    layout(tmp_path / "app", "v1")
    with pytest.raises(JobError) as caught:
        load(tmp_path, source)
    found = [error for error in caught.value.problems if message in str(error)]
    assert found, [str(error) for error in caught.value.problems]
    assert key in found[0].where["key"]
    assert "job.yaml:" in found[0].where["file"]
    assert "secret" not in str(found[0])


def test_choices_are_part_of_what_makes_a_job_the_same_job(tmp_path: Path) -> None:
    layout(tmp_path / "app", "v1")
    plain = load(tmp_path, {"layouts": "app"}).fingerprint()
    assert load(tmp_path, {"layouts": "app", "tags": {}}).fingerprint() == plain
    others = [
        {"layouts": "app", "tags": {"newest": 2}},
        {"layouts": "app", "platforms": {"keep": ["a/b"]}},
        {"layouts": "app", "referrers": True},
        {"images": f"{FROM}/app"},
    ]
    prints = [load(tmp_path, source).fingerprint() for source in others]
    assert len({plain, *prints}) == 5
