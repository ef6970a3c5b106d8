"""The examples do what they say, against the local registry."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from blocks import ROOT
from chosen import asked_for
from support import require_program
from world import ACCOUNTS, REGIONS, WEB_IDENTITY, World, world, write_layout

EXAMPLES = ROOT / "examples"
SERVICES = ("accounts", "billing", "web")
TAG = "v2.1.0"
NOT_RUN = re.compile(r"^(?:pip install|for service in services|docker) ?")
"""What a pipeline's runner does and this test does not: install from afar, build with Docker."""


def services(reader: World, *names: str) -> None:
    """Layouts of a monorepo's services, as buildx writes them, and their repositories."""
    shutil.copy(EXAMPLES / "monorepo" / "job.yaml", reader.folder)
    for service in names:
        write_layout(reader.folder / "layouts" / service, (TAG,))
        for region in REGIONS:
            reader.ecr.create(f"team/{service}", account=ACCOUNTS[0], region=region)


def run(reader: World, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=reader.folder,
        env=reader.environment | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def passed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def tags(reader: World, *names: str) -> dict[str, dict[str, str]]:
    return {
        f"{service}@{region}": reader.ecr.tags(f"team/{service}", region=region)
        for service in names
        for region in REGIONS
    }


def github_actions(reader: World) -> None:
    services(reader, *SERVICES)
    workflow = yaml.safe_load((EXAMPLES / "github-actions" / "release.yml").read_text())
    steps = [step for step in workflow["jobs"]["release"]["steps"] if "run" in step]

    tried = [step for step in steps if not NOT_RUN.match(step["run"])]
    assert [step["name"] for step in tried] == ["plan", "push", "verify", "report"]
    for step in tried:
        passed(run(reader, "bash", "-e", "-c", step["run"], GITHUB_REF_NAME=TAG))

    assert all(found.keys() == {TAG, "stable"} for found in tags(reader, *SERVICES).values())
    assert (reader.folder / "report.html").exists()
    # The build is told the name under which the entry is found here.
    assert "name=$name:$GITHUB_REF_NAME" in next(s["run"] for s in steps if s["name"] == "build")
    assert workflow["permissions"]["id-token"] == "write"


def gitlab_ci_with_the_pipelines_own_token(reader: World) -> None:
    services(reader, *SERVICES)
    job = yaml.safe_load((EXAMPLES / "gitlab-ci" / "gitlab-ci.yml").read_text())["push"]
    script = [line for line in job["before_script"] + job["script"] if not NOT_RUN.match(line)]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del reader.environment[name]
    variables = {"CI_COMMIT_TAG": TAG, "CI_PROJECT_DIR": str(reader.folder)}
    variables |= {next(iter(job["id_tokens"])): WEB_IDENTITY}
    variables |= {k: expand(v, variables) for k, v in job["variables"].items()}

    for _ in range(2):  # the second finds everything there
        passed(run(reader, "bash", "-eo", "pipefail", "-c", "\n".join(script), **variables))

    assert len(script) == len(job["before_script"] + job["script"]) - 1
    assert all(found.keys() == {TAG, "stable"} for found in tags(reader, *SERVICES).values())


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Text with variables filled in, as a runner does."""
    return re.sub(r"\$(\w+)", lambda found: variables[found[1]], text)


def monorepo_release_moves_all_tags_or_none(reader: World) -> None:
    services(reader, "accounts", "web")
    script = str(EXAMPLES / "monorepo" / "release.sh")

    assert f"released {TAG}" in passed(run(reader, script, TAG))
    assert f"{TAG} was released before" in passed(run(reader, script, TAG))
    before = tags(reader, "accounts", "web")
    assert before["web@us-east-1"].keys() == {TAG, "stable"}

    # A service without a repository: nothing moves, and the report names it.
    write_layout(reader.folder / "layouts" / "billing", (TAG,))
    write_layout(reader.folder / "layouts" / "web", ("rebuilt",))
    done = run(reader, script, "v2.2.0")

    assert done.returncode == 1, done.stderr
    assert tags(reader, "accounts", "web") == before
    assert "team/billing" in done.stdout


def migration_by_two_machines(reader: World) -> None:
    for name in ("job.yaml", "migrate.sh"):
        shutil.copy(EXAMPLES / "migration" / name, reader.folder)
    dump = reader.folder / "dump"
    write_layout(dump / "layouts" / "app", ("v1", "v2"))
    write_layout(reader.folder / "built", ("v7",))
    for form, name in (("oci", "built"), ("docker", "saved")):
        (dump / form).mkdir()
        source = f"oci:{reader.folder / 'built'}:v7"
        target = f"{form}-archive:{dump / form / name}.tar:team/{name}:v7"
        command = [require_program("skopeo"), "copy", "--insecure-policy", source, target]
        passed(run(reader, *command))

    for shard in ("1/2", "2/2"):
        passed(run(reader, "./migrate.sh", shard))
    passed(run(reader, "./migrate.sh"))  # again, all of it: nothing to do
    passed(run(reader, "asyncpush", "verify", "job.yaml"))

    for account in ACCOUNTS[:2]:
        for region in REGIONS:
            at = {"account": account, "region": region}
            assert reader.ecr.tags("migrated/app", **at).keys() == {"v1", "v2"}
            assert reader.ecr.tags("migrated/built", **at).keys() == {"v7"}
    archive = {"account": ACCOUNTS[2], "region": REGIONS[0]}
    assert reader.ecr.tags("migrated/app", **archive).keys() == {"v1", "v2"}
    assert reader.ecr.tags("old/saved", **archive).keys() == {"v7"}
    assert json.loads((reader.folder / "report-1.json").read_text())["outcome"] == "nothing-to-do"


def release_script_is_tested(reader: World) -> None:
    project = reader.folder / "project"
    shutil.copytree(EXAMPLES / "pytest", project, ignore=_leftovers)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=project,
        env={k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PYTEST_"))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert "3 passed" in done.stdout, done.stdout + done.stderr


def _leftovers(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name.startswith((".", "__"))}


EVERY_EXAMPLE: dict[str, Callable[[World], None]] = {
    "github-actions": github_actions,
    "gitlab-ci": gitlab_ci_with_the_pipelines_own_token,
    "migration": migration_by_two_machines,
    "monorepo": monorepo_release_moves_all_tags_or_none,
    "pytest": release_script_is_tested,
}


def run_example(work: Callable[[World], None], folder: Path) -> None:
    with world(folder) as reader:
        shutil.rmtree(reader.folder)
        reader.folder.mkdir()
        work(reader)


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """The examples that were asked for, as many at once as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            name: pool.submit(run_example, EVERY_EXAMPLE[name], tmp_path_factory.mktemp(name))
            for name in asked_for(request.session, test_example_does_what_it_says, "name")
        }


@pytest.mark.parametrize("name", EVERY_EXAMPLE)
def test_example_does_what_it_says(name: str, runs: dict[str, Future[None]]) -> None:
    if name == "migration":
        require_program("skopeo")
    runs[name].result()


def test_every_example_is_tried_and_in_the_list() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    text = (EXAMPLES / "README.md").read_text()

    assert folders == EVERY_EXAMPLE.keys()
    assert [name for name in folders if f"[{name}]" not in text] == []
