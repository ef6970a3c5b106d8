"""``asyncpush check``: all that keeps a push from succeeding, in one run, and nothing changed."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import yaml
from fleet import ONE, REGISTRIES, TWO, write_layouts
from support import asyncpush, asyncpush_here, environment, error_lines, moto_client

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions, parse_reference
from asyncpush.check.findings import CheckReport
from asyncpush.check.run import check_plan, check_targets
from asyncpush.check.target import targets_of_references
from asyncpush.engine.options import RegistrySettings
from asyncpush.engine.planning import plan_items
from asyncpush.iam.document import dumps
from asyncpush.iam.resource import repository_policy
from asyncpush.localregistry import Key, LocalRegistry, LocalRegistryOptions, RunningRegistry
from asyncpush.registries.base import RepositorySettings
from asyncpush.registries.ecr.session import open_client

pytestmark = pytest.mark.anyio

THREE = "777788889999"
HERE, THERE = "eu-central-1", "us-east-1"
PUSHER = Key("AKIDCHECKPUSHERKEY00", "secret-of-the-pusher", ONE)
FORMER = Key(
    "ASIACHECKEXPIREDKEY0",
    "secret-of-the-expired",
    TWO,
    session_token="token-of-the-expired",
    expires=datetime.now(UTC) - timedelta(hours=1),
)
LATE = Key("AKIDCHECKSKEWEDKEY00", "secret-of-the-skewed", THREE)
OWNER = Key("AKIDCHECKOWNEROWNER0", "secret-of-the-owner", ONE)
ACTIONS = [
    "BatchCheckLayerAvailability",
    "InitiateLayerUpload",
    "UploadLayerPart",
    "CompleteLayerUpload",
    "PutImage",
]


def policy(*denied: dict[str, Any], reads: bool = True) -> dict[str, Any]:
    """What a push takes, reads for foreseeing conflicts, and what is denied all the same."""
    actions = [f"ecr:{action}" for action in ACTIONS]
    if reads:
        actions += ["ecr:DescribeRepositories", "ecr:BatchGetImage"]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": actions, "Resource": "arn:aws:ecr:*:*:repository/*"},
            {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
            *denied,
        ],
    }


def with_policy(key: Key, document: dict[str, Any]) -> Key:
    return Key(key.access_key_id, key.secret_access_key, key.account, policy=document)


@asynccontextmanager
async def serving(
    root: Path, *keys: Key, clock: Callable[[], float] = time.time
) -> AsyncIterator[RunningRegistry]:
    options = LocalRegistryOptions(clock=clock)
    async with LocalRegistry(root, [OWNER, *keys], options).run() as server:
        yield server


def write_credentials(path: Path, **keys: Key) -> dict[str, str]:
    """The environment of a command that finds these keys as profiles."""
    path.write_text(
        "".join(
            f"[{name}]\naws_access_key_id={key.access_key_id}\n"
            f"aws_secret_access_key={key.secret_access_key}\n"
            + (f"aws_session_token={key.session_token}\n" if key.session_token else "")
            for name, key in keys.items()
        )
    )
    return environment(None, "") | {"AWS_SHARED_CREDENTIALS_FILE": str(path)}


async def command(*arguments: str | Path, env: dict[str, str]) -> tuple[int, str, str]:
    done = await anyio.to_thread.run_sync(lambda: asyncpush("check", *arguments, env=env))
    out, err = done.stdout, done.stderr
    assert "Traceback" not in err, err
    for key in (PUSHER, FORMER, LATE):
        assert key.secret_access_key not in out + err
        assert not key.session_token or key.session_token not in out + err
    return done.returncode, out, err


def content(root: Path) -> tuple[list[str], list[str]]:
    """All that a local registry keeps: blobs, open uploads, and what its database has.

    When an image was pulled last is left out: to ask what a tag points to is a pull, as in ECR.
    """
    kept = [p for name in ("blobs", "uploads", "tmp") for p in (root / name).rglob("*")]
    with closing(sqlite3.connect(f"file:{root / 'registry.sqlite3'}?mode=ro", uri=True)) as db:
        copy = sqlite3.connect(":memory:")
        with closing(copy):
            db.backup(copy)
            copy.execute("UPDATE manifests SET pulled = NULL")
            return sorted(map(str, kept)), list(copy.iterdump())


def conclusion(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith(("problem: ", "warning: "))]


async def test_everything_is_found_in_one_run_and_nothing_is_changed(tmp_path: Path) -> None:
    layouts = write_layouts(tmp_path / "layouts", 4, 2)
    names = [layout.name for layout in layouts]
    denied = {
        "Effect": "Deny",
        "Action": "ecr:PutImage",
        "Resource": f"arn:aws:ecr:{HERE}:{ONE}:repository/app001",
    }
    pusher = with_policy(PUSHER, policy(denied))
    env = write_credentials(tmp_path / "credentials", pusher=pusher, former=FORMER, late=LATE)
    async with (
        serving(tmp_path / "store", pusher, FORMER) as server,
        serving(tmp_path / "late", LATE, clock=lambda: time.time() + 1000) as late,
    ):
        for region in (HERE, THERE):
            for name in names:
                # app000 is in one Region only, app003 nowhere.
                if name != "app003" and (name, region) != ("app000", HERE):
                    await server.ensure_repository(ONE, region, name, immutable=name == "app002")
        await push_other_images(server, names[2], tmp_path)
        registries = [
            {"accounts": [ONE], "regions": [HERE, THERE], "profile": "pusher"},
            {"accounts": [TWO], "regions": [HERE], "profile": "former"},
            {"accounts": [THREE], "regions": [HERE], "profile": "late", "endpoint_url": late.url},
        ]
        job = write_job(tmp_path, registries, endpoint=server.url)
        server.calls.clear()
        before = content(tmp_path / "store"), content(tmp_path / "late")
        code, out, err = await command(job, env=env)
        assert (content(tmp_path / "store"), content(tmp_path / "late")) == before
        calls = server.calls.counters
        assert calls.calls["InitiateLayerUpload"] == 0
        assert not any(record.status == 200 for record in server.calls.of("PutImage"))
        assert calls.layer_bytes_acknowledged == 0

        assert (code, err) == (1, "")
        host = f"{ONE}.dkr.ecr.{HERE}.amazonaws.com"
        expected = [
            # The Region is wrong, the account has it elsewhere.
            (f"{host}/app000: the repository does not exist", f"in {THERE}: mend the target's"),
            # It is nowhere.
            (f"{host}/app003: the repository does not exist", "create it (aws ecr create-repos"),
            # A permission lacks.
            (f"{host}/app001: User: ", "perform: ecr:PutImage on resource: arn:aws:ecr:eu-central"),
            # The tags are taken.
            (f"{host}/app002:v0, {host}/app002:v1: the tag is immutable", "under a new tag"),
            # The credentials have expired.
            (f"{TWO}.dkr.ecr.{HERE}", "is expired; check the environment, the profile"),
            # The clock is off.
            (f"{THREE}.dkr.ecr.{HERE}", "s behind the registry's"),
        ]
        lines = conclusion(out)
        for subject, advice in expected:
            (line,) = [x for x in lines if x.startswith(f"problem: {subject}") and advice in x]
            assert "; " in line
        assert any("set this machine's clock" in line for line in lines)
        # The other Region lacks app003, too, and has the same tags.
        assert len([line for line in lines if line.startswith("problem: ")]) == 7
        assert "unknown: " in out
        assert "ecr:InitiateLayerUpload is allowed cannot be known" in out


async def push_other_images(server: RunningRegistry, name: str, folder: Path) -> None:
    """Let the tags v0 and v1 of an immutable repository point to other images."""
    (layout,) = write_layouts(folder / "others", 1, 2)
    aws = AwsOptions(
        access_key_id=OWNER.access_key_id,
        secret_access_key=OWNER.secret_access_key,
        endpoint_url=server.url,
    )
    async with Pusher(PushOptions(aws=aws)) as pusher:
        report = await pusher.push([PushItem(layout, f"{REGISTRIES[0].host}/{name}")])
    assert report.ok


def write_job(
    folder: Path, registries: list[dict[str, Any]], endpoint: str | None = None, **more: Any
) -> Path:
    if endpoint is not None:
        registries = [{"endpoint_url": endpoint, **registry} for registry in registries]
    document = {
        "version": 1,
        "registries": registries,
        "sources": [{"layouts": "layouts/*"}],
        "targets": [{"repository": "{directory}"}],
        **more,
    }
    job = folder / "job.yaml"
    job.write_text(yaml.safe_dump(document))
    return job


async def test_what_is_right_is_said_and_how_long_it_takes(tmp_path: Path) -> None:
    layouts = write_layouts(tmp_path / "layouts", 2, 3)
    env = write_credentials(tmp_path / "credentials", pusher=PUSHER)
    async with serving(tmp_path / "store", PUSHER) as server:
        for layout in layouts:
            await server.ensure_repository(ONE, HERE, layout.name)
        registries = [{"accounts": [ONE], "regions": [HERE], "profile": "pusher"}]
        job = write_job(tmp_path, registries, server.url, quotas={"PutImage": 2})
        code, out, _ = await command(job, env=env)
        assert code == 0
        assert "2 repositories: there, and all that can be known is allowed" in out
        assert "the profile pusher (the credentials file) ...EY00" in out
        assert "3.0 s at least under its quotas (6 PutImage at 2/s)" in out
        assert "0 problems, 0 warnings, 1 unknown; nothing was changed" in out
        code, out, _ = await command(job, "--json", env=env)
        document = json.loads(out)
        assert (code, document["ok"]) == (0, True)
        (registry,) = document["registries"]
        assert registry["actions"] == {"GetAuthorizationToken": "allowed"}
        assert registry["credentials"]["source"] == "the profile pusher (the credentials file)"
        assert abs(registry["clock_skew_seconds"]) < 60
        for repository in document["repositories"]:
            assert repository["exists"]
            assert repository["tags"] == "free"
            outcomes = dict.fromkeys(ACTIONS, "allowed") | {"InitiateLayerUpload": "unknown"}
            assert repository["actions"] == outcomes
        estimate = document["estimate"]["registries"][REGISTRIES[0].host]
        assert estimate["missing_blobs"] == estimate["blobs"]
        assert estimate["calls"]["PutImage"] == 6


async def checked(options: PushOptions, *targets: str, items: Sequence[PushItem] = ()) -> Any:
    """The report of a check within this process."""
    report = CheckReport()
    if items:
        await check_plan(*await plan_items(items, options), options, report)
    else:
        references = [parse_reference(target) for target in targets]
        await check_targets(targets_of_references(references), options, report)
    assert report.complete
    return report.to_dict()


def options_of(key: Key, url: str, **options: Any) -> PushOptions:
    aws = AwsOptions(
        access_key_id=key.access_key_id, secret_access_key=key.secret_access_key, endpoint_url=url
    )
    return PushOptions(aws=aws, retry_base=0.01, **options)


def texts(document: dict[str, Any]) -> list[str]:
    return [f"{f['severity']} {f['subject']}: {f['message']}" for f in document["findings"]]


async def test_without_reads_conflicts_are_unknown_and_never_free(tmp_path: Path) -> None:
    (layout,) = write_layouts(tmp_path / "layouts", 1, 1)
    pusher = with_policy(PUSHER, policy(reads=False))
    async with serving(tmp_path / "store", pusher) as server:
        await server.ensure_repository(ONE, HERE, "app000", immutable=True)
        options = options_of(pusher, server.url, atomic=True, rollback=True)
        items = [PushItem(layout, f"{REGISTRIES[0].host}/app000")]
        document = await checked(options, items=items)
    assert document["ok"]
    assert document["repositories"][0]["tags"] == "unknown"
    assert document["repositories"][0]["actions"]["BatchGetImage"] == "denied"
    told = {(f["severity"], f["action"]): f["advice"] for f in document["findings"]}
    assert "--with check" in told["unknown", "ecr:DescribeRepositories"]
    assert "allow ecr:BatchGetImage" in told["warning", "ecr:BatchGetImage"]


async def test_calls_are_as_many_as_repositories_not_images(tmp_path: Path) -> None:
    layouts = write_layouts(tmp_path / "layouts", 2, 160, layer=10, shared=10)
    async with serving(tmp_path / "store", PUSHER) as server:
        for layout in layouts:
            await server.ensure_repository(ONE, HERE, layout.name, immutable=True)
        items = [PushItem(p, f"{REGISTRIES[0].host}/{p.name}") for p in layouts]
        document = await checked(options_of(PUSHER, server.url), items=items)
        assert document["ok"]
        assert dict(server.calls.counters.calls) == {
            "GetAuthorizationToken": 1,
            # 321 blobs and 160 tags in each, 100 at a time.
            "BatchCheckLayerAvailability": 2 * 4,
            "BatchGetImage": 2 * 2,
            "UploadLayerPart": 2,
            "CompleteLayerUpload": 2,
            "PutImage": 2,
            "DescribeRepositories": 1,
        }


async def test_targets_are_checked_without_sources(tmp_path: Path) -> None:
    async with serving(tmp_path / "store", PUSHER) as server:
        await server.ensure_repository(ONE, THERE, "team/app")
        env = environment(server.url, PUSHER.access_key_id, PUSHER.secret_access_key)
        env["AWS_REGION"] = env["AWS_DEFAULT_REGION"] = THERE
        here, there = (f"{ONE}.dkr.ecr.{region}.amazonaws.com/team" for region in (HERE, THERE))
        code, out, _ = await command(f"{there}/app:v1", env=env)
        assert code == 0
        assert "1 repository: there" in out
        assert "the environment ...EY00" in out
        # The Region of the target is wrong: the configuration names the right one, which is asked.
        code, out, _ = await command(f"{here}/app", f"{here}/db", env=env)
        assert code == 1
        right, other = conclusion(out)
        assert f"{here}/app: the repository does not exist; the account has one of this" in right
        assert f"in {THERE}: mend the target's Region" in right
        assert f"the credentials' default Region is {THERE}" in other


async def test_a_repository_that_is_to_be_created_is_no_problem(tmp_path: Path) -> None:
    async with serving(tmp_path / "store", PUSHER) as server:
        options = options_of(PUSHER, server.url, create=RepositorySettings())
        document = await checked(options, f"{REGISTRIES[0].host}/team/app")
    assert document["ok"]
    assert any("ecr:CreateRepository is allowed cannot be known" in x for x in texts(document))


async def test_a_source_beside_its_target_foresees_conflicts(tmp_path: Path) -> None:
    layouts = write_layouts(tmp_path / "layouts", 1, 2)
    target = f"{REGISTRIES[0].host}/team/app"
    async with serving(tmp_path / "store", PUSHER) as server:
        await server.ensure_repository(ONE, HERE, "team/app", immutable=True)
        await push_other_images(server, "team/app", tmp_path)
        env = environment(server.url, PUSHER.access_key_id, PUSHER.secret_access_key)
        code, out, _ = await command(target, "--source", layouts[0], "-q", env=env)
        assert code == 1
        (line,) = out.splitlines()
        assert f"{target}:v0, {target}:v1: the tag is immutable and points to sha256:" in line


async def test_a_source_that_cannot_be_read_is_a_problem_beside_the_others(tmp_path: Path) -> None:
    layouts = write_layouts(tmp_path / "layouts", 2, 1)
    (layouts[0] / "index.json").write_text("{")
    async with serving(tmp_path / "store", PUSHER) as server:
        await server.ensure_repository(ONE, HERE, "app001")
        items = [PushItem(p, f"{REGISTRIES[0].host}/{p.name}") for p in layouts]
        document = await checked(options_of(PUSHER, server.url), items=items)
    (problem,) = [text for text in texts(document) if text.startswith("problem")]
    assert problem.startswith("problem source: ")
    assert document["repositories"][0]["exists"]


@pytest.mark.parametrize(
    ("key", "secret", "words"),
    [
        ("AKIDNOBODYKNOWSTHIS0", "x", "The security token included in the request is invalid"),
        (PUSHER.access_key_id, "wrong", "does not match the signature you provided"),
    ],
)
async def test_credentials_that_are_not_accepted_are_told(
    tmp_path: Path, key: str, secret: str, words: str
) -> None:
    async with serving(tmp_path / "store", PUSHER) as server:
        options = options_of(Key(key, secret, ONE), server.url)
        document = await checked(options, f"{REGISTRIES[0].host}/team/app")
    (finding,) = document["findings"]
    assert finding["subject"] == "credentials"
    assert words in finding["message"]
    assert "aws sts get-caller-identity" in finding["advice"]
    # What could not be asked is not told.
    assert document["repositories"][0]["exists"] is None
    assert document["repositories"][0]["actions"] == {}


async def test_missing_credentials_have_an_exit_code_of_their_own() -> None:
    env = environment("http://127.0.0.1:1", "")
    code, out, _ = await command(f"{REGISTRIES[0].host}/team/app", env=env)
    (line,) = conclusion(out)
    assert code == 3
    assert "Unable to locate credentials" in line


async def test_a_clock_that_is_a_little_off_is_a_warning(tmp_path: Path) -> None:
    async with serving(tmp_path / "store", PUSHER, clock=lambda: time.time() - 150) as server:
        await server.ensure_repository(ONE, HERE, "team/app")
        options = options_of(PUSHER, server.url)
        document = await checked(options, f"{REGISTRIES[0].host}/team/app")
    assert document["ok"]
    (warning,) = [text for text in texts(document) if text.startswith("warning clock: ")]
    assert "s ahead of the registry's" in warning


async def test_an_endpoint_that_is_no_address_is_told_beside_the_others(tmp_path: Path) -> None:
    async with serving(tmp_path / "store", PUSHER) as server:
        await server.ensure_repository(ONE, HERE, "team/app")
        options = options_of(PUSHER, server.url)
        wrong = RegistrySettings(aws=replace(options.aws, endpoint_url="nonsense"))
        options = replace(options, registries={REGISTRIES[1]: wrong})
        targets = [f"{registry.host}/team/app" for registry in REGISTRIES[:2]]
        document = await checked(options, *targets)
    (problem,) = [text for text in texts(document) if text.startswith("problem")]
    assert problem.startswith("problem endpoint: ")
    assert "nonsense" in problem
    assert [state["reached"] for state in document["registries"]] == [True, None]
    assert document["repositories"][0]["exists"]


async def test_an_endpoint_that_nobody_listens_on_is_told() -> None:
    options = options_of(PUSHER, "http://127.0.0.1:1")
    document = await checked(options, f"{REGISTRIES[0].host}/team/app")
    (finding,) = document["findings"]
    assert finding["subject"] == "endpoint"
    assert "http://127.0.0.1:1" in finding["message"]
    assert document["registries"][0]["reached"] is False


FOREIGN = Key("AKIDCHECKFOREIGNKEY0", "secret-of-the-foreign", "123456789012")


async def test_across_accounts_the_repositorys_policy_is_pointed_to(
    tmp_path: Path, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = f"{ONE}.dkr.ecr.{HERE}.amazonaws.com/team/app"
    # It tells its own account for every key, which is the foreign one's.
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto)
    async with serving(tmp_path / "store", FOREIGN) as server:
        await server.ensure_repository(ONE, HERE, "team/app")
        options = options_of(FOREIGN, server.url)
        document = await checked(options, target)
        credentials = document["registries"][0]["credentials"]
        assert credentials["account"] == FOREIGN.account
        assert credentials["arn"].startswith("arn:aws:sts::")
        (advice,) = [f["advice"] for f in document["findings"] if f["subject"] == "credentials"]
        assert "iam repository-policy prints the latter" in advice
        assert not document["ok"]
        text = dumps(repository_policy([FOREIGN.account]))
        async with open_client(REGISTRIES[0], options_of(OWNER, server.url).aws, 1, "test") as ecr:
            await ecr.set_repository_policy(repositoryName="team/app", policyText=text)
        assert (await checked(options, target))["ok"]


async def test_a_role_is_told_with_its_end(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto)
    role = f"arn:aws:iam::{FOREIGN.account}:role/push"
    options = options_of(PUSHER, moto)
    options = replace(options, aws=replace(options.aws, role_arn=role))
    document = await checked(options, f"{REGISTRIES[0].host}/team/app")
    credentials = document["registries"][0]["credentials"]
    assert credentials["source"] == f"the role {role}"
    assert "assumed-role/push/asyncpush" in credentials["arn"]
    assert datetime.fromisoformat(credentials["expires"]) > datetime.now(UTC)


async def test_an_emulator_that_checks_nothing_is_left_as_it_is(moto: str) -> None:
    client = moto_client(moto)
    client.create_repository(repositoryName="check/moto", registryId=ONE)
    document = await checked(options_of(PUSHER, moto), f"{REGISTRIES[0].host}/check/moto")
    actions = document["repositories"][0]["actions"]
    assert document["ok"]
    assert actions["UploadLayerPart"] == actions["CompleteLayerUpload"] == "allowed"
    # What cannot be told is not told as allowed.
    assert actions["PutImage"] == "unknown"
    assert client.list_images(repositoryName="check/moto", registryId=ONE)["imageIds"] == []


async def test_any_registry_is_reached_or_not(
    tmp_path: Path, docker_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    options = PushOptions(retry_base=0.01)
    document = await checked(options, f"docker://{docker_registry}/team/app")
    assert document["ok"]
    (registry,) = document["registries"]
    assert registry["reached"]
    assert registry["credentials_accepted"]
    # Whether it may be pushed to, no question tells.
    assert document["repositories"][0]["exists"] is None
    assert document["repositories"][0]["actions"] == {}
    async with serving(tmp_path / "store", PUSHER) as server:
        address = server.url.removeprefix("http://")
        document = await checked(options, f"docker://{address}/team/app")
    (finding,) = document["findings"]
    assert finding["subject"] == "credentials"
    assert "the registry wants credentials, and there are none" in finding["message"]
    (finding,) = (await checked(options, "docker://127.0.0.1:1/team/app"))["findings"]
    assert finding["subject"] == "endpoint"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "no ECR reference"),
        ([f"{REGISTRIES[0].host}/a/b", f"{REGISTRIES[0].host}/c/d", "--source", "x"], "one TARGET"),
        ([f"{REGISTRIES[0].host}/a/b", "--only", "x"], "go with JOB.yaml"),
        (["job.yaml", "--source", "x"], "go with TARGET"),
        (["no-such.yaml"], "no-such.yaml"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    done = asyncpush_here(monkeypatch, capsys, "check", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = error_lines(done)
    assert words in line
