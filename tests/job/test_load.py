"""Job files: what they mean, and one clear line for everything that they cannot mean."""

from __future__ import annotations

import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.errors import AsyncpushError, UsageError
from asyncpush.job.document import job_schema
from asyncpush.job.items import Job
from asyncpush.job.load import JobError, load_job
from asyncpush.job.template import IMAGE_NAMES, parse_template
from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter
from asyncpush.plan.sources import Sources

ACCOUNT = "111122223333"
HOST = f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com"
DOCUMENT: dict[str, Any] = {
    "version": 1,
    "registries": [{"name": "prod", "hosts": [HOST]}],
    "sources": [{"layouts": "layouts/*"}],
    "targets": [{"repository": "team/{directory}"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        writer = LayoutWriter(tmp_path / "layouts" / name)
        for tag in ("v1", "v2-debug"):
            layer = writer.blob(f"{name} {tag}".encode(), mediatypes.OCI_LAYER)
            writer.entry(writer.image([layer]), tag)
        writer.close()
    (tmp_path / "layouts" / "README").write_text("no layout")
    return tmp_path


def load(folder: Path, document: dict[str, Any] | str, **settings: str) -> Job:
    path = folder / "job.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return load_job(path, settings, {"SHA": "abc123"})


def destinations(job: Job) -> list[str]:
    found = []
    for item in job.items():
        for entry in item.resolve(Sources()):
            repository, tags = entry.destination()
            found += [f"{repository}:{tag}" for tag in tags] or [f"{repository}@"]
    return sorted(found)


def test_every_entry_of_every_layout_goes_under_its_own_name(folder: Path) -> None:
    assert destinations(load(folder, DOCUMENT)) == [
        f"{HOST}/team/{name}:{tag}" for name in ("one", "two") for tag in ("v1", "v2-debug")
    ]


def test_json_is_read_as_well(folder: Path) -> None:
    job = load(folder, json.dumps(DOCUMENT))
    assert len(destinations(job)) == 4


def test_accounts_and_regions_are_multiplied_with_roles_of_their_own(folder: Path) -> None:
    document = DOCUMENT | {
        "registries": [
            {
                "accounts": [ACCOUNT, "444455556666"],
                "regions": ["eu-central-1", "cn-north-1"],
                "role_arn": "arn:aws:iam::{account}:role/push-{region}",
                "external_id": "{env.SHA}",
                "quotas": {"PutImage": 20},
            }
        ],
        "quotas": {"PutImage": 50, "UploadLayerPart": 9},
    }
    job = load(folder, document)
    settings = {registry.host: s for registry, s in job.registries.items()}
    assert len(settings) == 4
    china = settings["444455556666.dkr.ecr.cn-north-1.amazonaws.com.cn"]
    assert china.aws.role_arn == "arn:aws:iam::444455556666:role/push-cn-north-1"
    assert china.aws.external_id == "abc123"
    assert china.quotas == {"PutImage": 20, "UploadLayerPart": 9}
    assert len(destinations(job)) == 16


def test_registries_that_are_not_ecrs_are_hosts_behind_docker(folder: Path) -> None:
    document = DOCUMENT | {"registries": [{"hosts": ["docker://localhost:5000", HOST]}]}
    found = destinations(load(folder, document))
    assert len(found) == 8
    assert "localhost:5000/team/one:v1" in found
    account = document | {"targets": [{"repository": "{account}/{directory}"}]}
    with pytest.raises(UsageError, match="needs account"):
        destinations(load(folder, account))


def test_templates_entries_and_defaults(folder: Path) -> None:
    document = DOCUMENT | {
        "defaults": {"entries": ["v*"], "tags": ["{set.version}-{tag}-{env.SHA}"]},
        "sources": [{"layouts": ["layouts/one"], "exclude": ["*-debug"], "targets": ["a"]}],
        "targets": [
            {"name": "a", "registries": ["prod"], "repository": "{region}/{{x}}"[:8] + "/app"},
            {"name": "b", "repository": "other"},
        ],
    }
    assert destinations(load(folder, document, version="7")) == [
        f"{HOST}/eu-central-1/app:7-v1-abc123"
    ]


def test_archives_are_sources_behind_their_prefix(folder: Path) -> None:
    for name in ("one", "two"):
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            tar.add(folder / "layouts" / name, arcname=".")
    document = DOCUMENT | {"sources": [{"layouts": "oci-archive:*.tar"}]}
    assert destinations(load(folder, document)) == destinations(load(folder, DOCUMENT))
    with pytest.raises(JobError, match="no match"):
        load(folder, DOCUMENT | {"sources": [{"layouts": "docker-archive:*.tgz"}]})


def test_no_tags_at_all_push_by_digest(folder: Path) -> None:
    document = DOCUMENT | {"targets": [{"repository": "app", "tags": []}]}
    assert destinations(load(folder, document)) == [f"{HOST}/app@"] * 4


def test_digests_and_annotations_make_tags(folder: Path) -> None:
    writer = LayoutWriter(folder / "layouts" / "three")
    layer = writer.blob(b"x", mediatypes.OCI_LAYER)
    descriptor = writer.image([layer])
    writer.entry(descriptor | {"annotations": {"org.example.v": "9"}}, "v1")
    writer.close()
    tags = ["{short_digest}", "{annotations.org.example.v}"]
    document = DOCUMENT | {
        "sources": [{"layouts": "layouts/three"}],
        "targets": [{"repository": "app", "tags": tags}],
    }
    found = destinations(load(folder, document))
    assert f"{HOST}/app:{descriptor['digest'][7:19]}" in found
    assert f"{HOST}/app:9" in found
    other = document | {"sources": [{"layouts": "layouts/one"}]}
    with pytest.raises(UsageError, match="the image has none"):
        destinations(load(folder, other))


def test_selection_looks_at_every_name(folder: Path) -> None:
    job = load(folder, DOCUMENT)
    for pattern in ("one", "one:v1", f"{HOST}/team/one:*", "team/one"):
        found = destinations(job.select([pattern], []))
        assert found
        assert all("/team/one:" in reference for reference in found)
    assert len(destinations(job.select([], ["v1"]))) == 2


def test_options_say_how_archives_are_read(folder: Path) -> None:
    options = {"options": {"temp_space_mib": 64, "compress_layers": True}}
    job = load(folder, DOCUMENT | options)
    assert job.options == {"temp_space": 64 * 2**20, "compress_layers": True}


@pytest.mark.parametrize("pattern", ["a.tar", "*.tar", "./[a-c].t?r"])
def test_names_stand_behind_archives_and_globs_of_them(folder: Path, pattern: str) -> None:
    (folder / "a.tar").touch()
    for behind, selector in (("", None), (":team/app:v1", "team/app:v1"), (":@1", "@1")):
        source = {"layouts": f"docker-archive:{pattern}{behind}"}
        (found,) = load(folder, DOCUMENT | {"sources": [source]}).sources
        assert (found.directory, found.selector) == (
            f"docker-archive:{folder / 'a.tar'}",
            selector,
        )


def test_the_fingerprint_follows_what_goes_where_and_nothing_else(folder: Path) -> None:
    job = load(folder, DOCUMENT).fingerprint()
    options = {"options": {"layers": 3}, "quotas": {"PutImage": 7}, "name": "x"}
    assert load(folder, DOCUMENT | options).fingerprint() == job
    for change in (
        {"targets": [{"repository": "other/{directory}"}]},
        {"sources": [{"layouts": "layouts/one"}]},
        {"registries": [{"hosts": [HOST], "endpoint_url": "http://127.0.0.1:1"}]},
    ):
        assert load(folder, DOCUMENT | change).fingerprint() != job
    template = DOCUMENT | {"targets": [{"repository": "{set.x}"}]}
    assert (
        load(folder, template, x="aa").fingerprint() != load(folder, template, x="bb").fingerprint()
    )


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        ({"sorces": []}, "sorces", "the key sorces is unknown; did you mean sources?"),
        ({"version": 2}, "version", "1"),
        ({"version": "1"}, "version", "1"),
        ({"options": {"layers": "many"}}, "options.layers", "integer"),
        ({"options": {"layers": 0}}, "options.layers", "greater than or equal to 1"),
        ({"quotas": {"PutImag": 1}}, "quotas.PutImag", "there is no quota for PutImag"),
        ({"quotas": {"PutImage": 0}}, "quotas.PutImage", "greater than 0"),
        ({"registries": []}, "registries", "at least 1"),
        (
            {"registries": [{"accounts": [111122223333], "regions": ["x"]}]},
            "registries.0.accounts.0",
            "quote it",
        ),
        (
            {"registries": [{"accounts": ["1"], "regions": ["eu-west-1"]}]},
            "registries.0.accounts.0",
            "12 digits",
        ),
        ({"registries": [{"accounts": [ACCOUNT]}]}, "registries.0", "accounts and regions"),
        ({"registries": [{"hosts": ["docker.io"]}]}, "registries.0.hosts.0", "no ECR"),
        (
            {"registries": [{"hosts": [f"{HOST}/team"]}]},
            "registries.0.hosts.0",
            "is more than a host",
        ),
        (
            {"registries": [{"hosts": ["docker://localhost:5000"], "profile": "x"}]},
            "registries.0",
            "is not ECR's, and takes no AWS credentials",
        ),
        (
            {"registries": [{"hosts": [HOST], "plain_http": True}]},
            "registries.0.plain_http",
            "takes no plain HTTP",
        ),
        (
            {"registries": [{"hosts": [HOST]}, {"hosts": [HOST]}]},
            "registries.1",
            "for the second time",
        ),
        (
            {"registries": [{"hosts": [HOST], "external_id": "x"}]},
            "registries.0",
            "external_id goes with role_arn",
        ),
        (
            {"registries": [{"hosts": [HOST], "role_arn": "role/push"}]},
            "registries.0.role_arn",
            "no role's ARN",
        ),
        ({"sources": [{"layouts": "no/*"}]}, "sources.0.layouts", "no match"),
        ({"sources": [{"layouts": "layouts/R*"}]}, "sources.0.layouts", "none of them"),
        (
            {"sources": [{"layouts": "layouts/*", "platforms": ["arm"]}]},
            "sources.0.platforms.0",
            "no platform",
        ),
        (
            {"sources": [{"layouts": "layouts/*", "targets": ["prd"]}]},
            "sources.0.targets.0",
            "no targets have the name prd",
        ),
        ({"targets": [{"tags": ["a"]}]}, "targets.0", "has no repository"),
        (
            {"targets": [{"repository": "{direktory}"}]},
            "targets.0.repository",
            "did you mean {directory}?",
        ),
        ({"targets": [{"repository": "a{b"}]}, "targets.0.repository", "stands alone"),
        ({"targets": [{"repository": {"directory": None}}]}, "targets.0.repository", "quote it"),
        ({"targets": [{"repository": "{env.NO}"}]}, "targets.0.repository", "environment"),
        ({"targets": [{"repository": "{set.v}"}]}, "targets.0.repository", "--set v=VALUE"),
        (
            {"targets": [{"repository": "a", "registries": ["prd"]}]},
            "targets.0.registries.0",
            "did you mean prod?",
        ),
    ],
)
def test_a_mistake_names_file_line_and_key(
    folder: Path, change: dict[str, Any], line: str, message: str
) -> None:
    with pytest.raises(JobError) as caught:
        load(folder, DOCUMENT | change)
    (problem,) = caught.value.problems
    assert message in str(problem)
    assert problem.where["key"] == line
    name, _, number = problem.where["file"].rpartition(":")
    assert name == str(folder / "job.yaml")
    text = (folder / "job.yaml").read_text().splitlines()[int(number) - 1]
    last = [part for part in line.split(".") if not part.isdigit()][-1]
    assert last in text or text.lstrip().startswith("-")


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    document = DOCUMENT | {
        "targets": [{"repository": "{x}", "tags": ["{y}"]}, {"repository": "{z}"}]
    }
    with pytest.raises(JobError) as caught:
        load(folder, document)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("version: 1\nversion: 1\n", "twice"),
        ("a: [", "no YAML"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("\x00", "no YAML"),
        ("{a: 1}: 2", "a key must be a text"),
        ("- 1\n- 2\n", "a mapping of keys"),
        ("a: &a [*a]", "unfold without end"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n"
                for i in range(9)
            ),
            "unfold without end",
        ),
        ("[" * 100_000, "nests too deeply"),
    ],
)
def test_what_is_no_job_file_is_one_error(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(folder, text)


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_job(tmp_path / "no.yaml", {}, {})


@given(st.text(max_size=200))
def test_no_text_brings_a_traceback(text: str) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(text.encode("utf-8", "surrogatepass"))
        file.flush()
        with pytest.raises(AsyncpushError):
            load_job(Path(file.name), {}, {})


@given(st.text(alphabet="{}ab.envst ", max_size=40))
def test_templates_parse_or_say_why(text: str) -> None:
    try:
        template = parse_template(text, IMAGE_NAMES, {"a": "1"}, {"b": "2"})
    except UsageError:
        return
    if "{" not in text and "}" not in text:
        assert template.render({}) == text


def test_the_example_of_the_docs_is_a_job(folder: Path) -> None:
    docs = Path(__file__).parents[2] / "docs" / "jobs.md"
    text = docs.read_text().partition("<!-- file: job.yaml -->\n```yaml\n")[2].partition("```")[0]
    writer = LayoutWriter(folder / "base" / "alpine")
    writer.entry(writer.image([writer.blob(b"x", mediatypes.OCI_LAYER)]), "3")
    writer.close()
    path = folder / "job.yaml"
    path.write_text(text)
    job = load_job(path, {"build": "7"}, {"EXTERNAL_ID": "x"})
    assert len(job.registries) == 5
    assert [Path(source.directory).name for source in job.sources] == ["one", "two", "alpine"]


def test_the_schema_accepts_what_is_accepted() -> None:
    schema = job_schema()
    assert schema["properties"]["version"]["const"] == 1
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"version", "registries", "sources", "targets"}
