"""``asyncpush replication`` and ``--wait-for-replication``, across two Regions and two accounts."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from support import (
    ACCOUNT,
    HOST,
    KEY_ID,
    REGION,
    SECRET,
    Served,
    asyncpush,
    environment,
    error_lines,
    moto_client,
    require_program,
    serve,
)

from asyncpush.oci import mediatypes
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter
from asyncpush.replication.actions import WAIT_ON_REGISTRY, WAIT_ON_REPOSITORY
from asyncpush.replication.load import load_replication
from asyncpush.replication.policy import destination_policies

OTHER = "444455556666"
AWAY = "us-east-1"
DESTINATIONS = [(ACCOUNT, AWAY), (OTHER, REGION), (OTHER, AWAY)]
OTHER_KEY_ID = "AKIDREPLICATEDTO0000"
PUSH_KEY = "AKIDPUSHANDNOMORE000"
ASK_KEY = "AKIDMAYASKOFRULES000"
PUSH = [
    "ecr:BatchCheckLayerAvailability",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload",
    "ecr:PutImage",
    "ecr:GetAuthorizationToken",
]


def limited(key_id: str, *actions: str) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": [*PUSH, *actions], "Resource": "*"}
    return {
        "access_key_id": key_id,
        "secret_access_key": "x",
        "account": ACCOUNT,
        "policy": {"Version": "2012-10-17", "Statement": [statement]},
    }


KEYS = [
    {"access_key_id": OTHER_KEY_ID, "secret_access_key": "x", "account": OTHER},
    limited(PUSH_KEY),
    limited(ASK_KEY, *(f"ecr:{action}" for action in WAIT_ON_REGISTRY)),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("replication"), KEYS) as served:
        yield served


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of two images under the tag v1, and an image under v2 that shares a layer."""
    writer = LayoutWriter(tmp_path_factory.mktemp("layouts") / "app")
    shared = writer.blob(os.urandom(50_000), mediatypes.OCI_LAYER)
    members = []
    for architecture in ("amd64", "arm64"):
        own = writer.blob(os.urandom(1_000), mediatypes.OCI_LAYER)
        members.append(writer.image([shared, own], architecture=architecture))
    writer.entry(writer.index(members), "v1")
    writer.entry(writer.image([shared, writer.blob(b"own", mediatypes.OCI_LAYER)]), "v2")
    return writer.close()


def client(server: Served, account: str, region: str) -> Any:
    """A botocore client of one destination."""
    key_id, secret = (KEY_ID, SECRET) if account == ACCOUNT else (OTHER_KEY_ID, "x")
    return boto3.client(
        "ecr",
        region_name=region,
        endpoint_url=server.url,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
    )


def write_rules(folder: Path, *rules: dict[str, Any]) -> Path:
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "registry": HOST, "rules": list(rules)}))
    return path


def to(*destinations: tuple[str, str], prefix: str = "") -> dict[str, Any]:
    rule: dict[str, Any] = {
        "destinations": [{"account": account, "region": region} for account, region in destinations]
    }
    return {**rule, "prefixes": [prefix]} if prefix else rule


def put_rules(server: Served, *rules: dict[str, Any]) -> None:
    """Let the source have these rules, past the commands under test."""
    configuration = {
        "rules": [
            {
                "destinations": [
                    {"registryId": one["account"], "region": one["region"]}
                    for one in rule["destinations"]
                ],
                "repositoryFilters": [
                    {"filter": prefix, "filterType": "PREFIX_MATCH"} for prefix in rule["prefixes"]
                ],
            }
            for rule in rules
        ]
    }
    server.client().put_replication_configuration(replicationConfiguration=configuration)


def rules_of(server: Served) -> list[dict[str, Any]]:
    """The source's rules."""
    answer = server.client().describe_registry()
    rules: list[dict[str, Any]] = answer["replicationConfiguration"]["rules"]
    return rules


def forget_policies(server: Served) -> None:
    for account, region in DESTINATIONS[1:]:
        far = client(server, account, region)
        with contextlib.suppress(far.exceptions.RegistryPolicyNotFoundException):
            far.delete_registry_policy()


def allow(server: Served, policies: list[dict[str, Any]]) -> None:
    """Give the destinations the policies that a plan has printed."""
    for one in policies:
        text = json.dumps(one["policy"])
        client(server, one["account"], one["region"]).put_registry_policy(policyText=text)


def holds(server: Served, account: str, region: str, repository: str, layout: Path) -> bool:
    """Whether a registry has every entry of a layout by digest and tag, with all blobs."""
    far = client(server, account, region)
    source = Layout(layout)
    blobs = {f"sha256:{path.name}" for path in (layout / "blobs" / "sha256").iterdir()}
    for entry in source.entries:
        image_id = {"imageDigest": entry.digest, "imageTag": entry.ref_name}
        (image,) = far.batch_get_image(repositoryName=repository, imageIds=[image_id])["images"]
        raw = (layout / "blobs" / "sha256" / entry.digest.partition(":")[2]).read_bytes()
        assert image["imageManifest"].encode() == raw
        blobs.discard(entry.digest)
        for member in json.loads(raw).get("manifests", ()):
            found = far.batch_get_image(
                repositoryName=repository, imageIds=[{"imageDigest": member["digest"]}]
            )
            assert found["images"], member
            blobs.discard(member["digest"])
    answer = far.batch_check_layer_availability(
        repositoryName=repository, layerDigests=sorted(blobs)
    )
    return all(layer["layerAvailability"] == "AVAILABLE" for layer in answer["layers"])


def test_a_push_waits_until_all_destinations_have_it(
    server: Served, layout: Path, tmp_path: Path
) -> None:
    forget_policies(server)
    target = server.create("whole/app")
    rules = write_rules(tmp_path, to(*DESTINATIONS, prefix="whole/"))
    env = environment(server.url)
    planned = asyncpush("replication", "plan", rules, "--json", env=env)
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert plan["changed"] is True
    # What the plan prints for the other account is all that it needs.
    assert [(p["account"], p["region"]) for p in plan["destination_policies"]] == [
        (OTHER, REGION),
        (OTHER, AWAY),
    ]
    allow(server, plan["destination_policies"])
    applied = asyncpush("replication", "apply", rules, "--yes", env=env)
    assert applied.returncode == 0, applied.stderr
    assert "1 to add" in applied.stdout
    report = tmp_path / "report.json"

    done = asyncpush("push", layout, target, "--wait-for-replication", "--report", report, env=env)

    assert done.returncode == 0, done.stderr
    assert "replication of 2 images: 2 complete" in done.stdout
    for account, region in DESTINATIONS:
        assert holds(server, account, region, "whole/app", layout)
    section = json.loads(report.read_text())["replication"]
    assert section["complete"]
    assert section["ok"]
    for image in section["images"]:
        assert image["status"] == "complete"
        assert [(d["account"], d["region"]) for d in image["destinations"]] == sorted(DESTINATIONS)
        assert all(d["seconds"] >= 0 for d in image["destinations"])
    printed = asyncpush("report", report, env=env)
    assert "replication of 2 images: 2 complete" in printed.stdout
    again = asyncpush("replication", "apply", rules, "--yes", env=env)
    assert again.returncode == 0
    assert "nothing to do, 1 rule as in the file" in again.stdout


def test_another_client_pulls_what_was_replicated(
    server: Served, layout: Path, tmp_path: Path
) -> None:
    skopeo = require_program("skopeo")
    forget_policies(server)
    target = server.create("pulled/app")
    loaded = load_replication(write_rules(tmp_path, to(*DESTINATIONS, prefix="pulled/")))
    allow(server, [p.to_dict() for p in destination_policies(loaded.registry, loaded.rules)])
    put_rules(server, to(*DESTINATIONS, prefix="pulled/"))
    env = environment(server.url)
    done = asyncpush("push", f"{layout}:v2", target, "--wait-for-replication", env=env)
    assert done.returncode == 0, done.stderr
    for account, region in DESTINATIONS:
        (data,) = client(server, account, region).get_authorization_token()["authorizationData"]
        login = base64.b64decode(data["authorizationToken"]).decode()
        address = server.url.removeprefix("http://")
        folder = tmp_path / f"{account}-{region}"
        subprocess.run(
            [
                skopeo,
                "copy",
                "--insecure-policy",
                "--preserve-digests",
                "--src-tls-verify=false",
                f"--src-creds={login}",
                f"docker://{address}/pulled/app:v2",
                f"oci:{folder}:v2",
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
        (pulled,) = Layout(folder).entries
        assert pulled.digest == next(e.digest for e in Layout(layout).entries if e.ref_name == "v2")


def test_a_failed_destination_is_told_with_its_code(
    server: Served, layout: Path, tmp_path: Path
) -> None:
    forget_policies(server)
    target = server.create("denied/app")
    put_rules(server, to((ACCOUNT, AWAY), (OTHER, REGION), prefix="denied/"))
    env = environment(server.url)

    done = asyncpush("push", f"{layout}:v2", target, "--wait-for-replication", "--json", env=env)

    assert done.returncode == 1
    (line,) = error_lines(done)
    assert f"replication to {OTHER} in {REGION} failed: AccessDeniedException" in line
    assert "registry policy must allow ecr:ReplicateImage" in line
    document = json.loads(done.stdout)
    assert document["ok"], "the push itself succeeded"
    (image,) = document["replication"]["images"]
    assert image["status"] == "failed"
    assert {d["region"]: (d["status"], d["failure_code"]) for d in image["destinations"]} == {
        AWAY: ("complete", None),
        REGION: ("failed", "AccessDeniedException"),
    }
    # Asked again it says the same, without a push.
    waited = asyncpush("replication", "wait", f"{target}:v2", env=env)
    assert waited.returncode == 1
    assert "failed: AccessDeniedException" in waited.stderr
    assert "1 failed" in waited.stdout


def test_what_no_rule_covers_is_said_and_not_waited_for(
    server: Served, layout: Path, tmp_path: Path
) -> None:
    target = server.create("alone/app")
    put_rules(server, to((ACCOUNT, AWAY), prefix="elsewhere/"))
    env = environment(server.url)
    done = asyncpush("push", f"{layout}:v2", target, "--wait-for-replication", env=env)
    assert done.returncode == 0, done.stderr
    assert f"no replication rule covers {target}:v2" in done.stderr
    assert "1 covered by no rule" in done.stdout
    asked = [c for c in server.calls() if c["action"] == "DescribeImageReplicationStatus"]
    assert not [c for c in asked if c["repository"] == "alone/app"]


@pytest.mark.parametrize(
    ("key", "missing"),
    [(PUSH_KEY, *WAIT_ON_REGISTRY), (ASK_KEY, *WAIT_ON_REPOSITORY)],
)
def test_a_push_that_may_not_ask_pushes_and_says_that_it_does_not_know(
    server: Served, layout: Path, tmp_path: Path, key: str, missing: str
) -> None:
    name = f"blind-{missing.lower()}/app"
    target = server.create(name)
    put_rules(server, to((ACCOUNT, AWAY), prefix="blind"))

    limited_env = environment(server.url, key, "x")
    done = asyncpush("push", layout, target, "--wait-for-replication", env=limited_env)

    assert done.returncode == 5
    assert server.digests(name), "it was pushed"
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert [w for w in warnings if f"allow ecr:{missing}" in w], done.stderr
    assert len(warnings) == 1, "what is true of all images is said once"
    assert "2 unknown" in done.stdout


def test_waiting_ends_in_time_and_goes_on_after_an_interruption_and_a_killed_server(
    layout: Path, tmp_path: Path
) -> None:
    with serve(tmp_path, KEYS, "--replication-delay", "3600") as served:
        target = served.create("slow/app")
        put_rules(served, to((ACCOUNT, AWAY), prefix="slow/"))
        env = environment(served.url)
        late = asyncpush(
            *("push", f"{layout}:v2", target, "--wait-for-replication"),
            *("--replication-timeout", "5"),
            env=env,
        )
        assert late.returncode == 1
        assert "has not ended" in late.stderr
        assert "1 not ended" in late.stdout
        before = times_asked(served)
        command = [sys.executable, "-m", "asyncpush", "push", f"{layout}:v1", target]
        with subprocess.Popen(
            [*command, "--wait-for-replication", "--json"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            until_asked(served, times=before + 2)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=30)
        assert process.returncode == 130, errors
        document = json.loads(output)
        assert document["ok"], "the push had ended"
        assert document["replication"]["complete"] is False
        assert document["replication"]["images"][0]["status"] == "in-progress"
        served.process.kill()
        served.process.wait()
    with serve(tmp_path, KEYS) as served:
        env = environment(served.url)
        waited = asyncpush("replication", "wait", f"{target}:v1", f"{target}:v2", env=env)
        assert waited.returncode == 0, waited.stderr
        assert "2 complete" in waited.stdout
        assert holds(served, ACCOUNT, AWAY, "slow/app", layout)


def times_asked(served: Served) -> int:
    return sum(c["action"] == "DescribeImageReplicationStatus" for c in served.calls())


def until_asked(served: Served, times: int) -> None:
    deadline = time.monotonic() + 60
    while times_asked(served) < times:
        assert time.monotonic() < deadline, "nobody asks about replication"
        time.sleep(0.1)


def test_a_job_waits_for_all_its_images(server: Served, layout: Path, tmp_path: Path) -> None:
    for name in ("job/one", "job/two"):
        server.create(name)
    put_rules(server, to((ACCOUNT, AWAY), prefix="job/one"))
    env = environment(server.url)
    job = tmp_path / "job.yaml"
    document = {
        "version": 1,
        "registries": [{"hosts": [HOST]}],
        "sources": [{"layouts": str(layout)}],
        "targets": [{"repository": "job/one"}, {"repository": "job/two"}],
    }
    job.write_text(yaml.safe_dump(document))
    ran = asyncpush("run", job, "--wait-for-replication", env=env)
    assert ran.returncode == 0, ran.stderr
    assert "replication of 4 images: 2 complete, 2 covered by no rule" in ran.stdout
    waited = asyncpush("replication", "wait", job, "--json", env=env)
    assert waited.returncode == 0, waited.stderr
    assert json.loads(waited.stdout)["counts"] == {"complete": 2, "not-covered": 2}


def test_moto_takes_and_gives_back_the_same_rules(moto: str, tmp_path: Path) -> None:
    env = environment(moto)
    host = f"123456789012.dkr.ecr.{REGION}.amazonaws.com"
    path = tmp_path / "rules.yaml"
    rules = [to((OTHER, AWAY), ("123456789012", AWAY), prefix="team/")]
    path.write_text(yaml.safe_dump({"version": 1, "registry": host, "rules": rules}))
    applied = asyncpush("replication", "apply", path, "--yes", env=env)
    assert applied.returncode == 0, applied.stderr
    shown = asyncpush("replication", "show", host, "--json", env=env)
    assert json.loads(shown.stdout)["replicationConfiguration"] == {
        "rules": [
            {
                "destinations": [
                    {"region": AWAY, "registryId": "123456789012"},
                    {"region": AWAY, "registryId": OTHER},
                ],
                "repositoryFilters": [{"filter": "team/", "filterType": "PREFIX_MATCH"}],
            }
        ]
    }
    path.write_text(yaml.safe_dump({"version": 1, "registry": host, "rules": []}))
    removed = asyncpush("replication", "apply", path, "--yes", env=env)
    assert "1 to remove" in removed.stdout
    assert moto_client(moto).describe_registry()["replicationConfiguration"] == {"rules": []}


def test_a_plan_shows_what_changes_and_what_destinations_need(
    server: Served, tmp_path: Path
) -> None:
    first = [to((ACCOUNT, AWAY), prefix="kept/"), to((ACCOUNT, AWAY), prefix="moved/")]
    put_rules(server, *first)
    second = write_rules(
        tmp_path,
        to((ACCOUNT, AWAY), prefix="kept/"),
        to((OTHER, AWAY), prefix="moved/"),
        to((ACCOUNT, "eu-west-1")),
    )
    done = asyncpush("replication", "plan", second, env=environment(server.url))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[:6] == [
        f"{HOST}: 1 to add, 1 to change, 0 to remove, 1 as in the file",
        f"    kept/* -> {ACCOUNT} in {AWAY}",
        f"  ~ moved/* -> {OTHER} in {AWAY}",
        f"      - {ACCOUNT} in {AWAY}",
        f"      + {OTHER} in {AWAY}",
        f"  + all repositories -> {ACCOUNT} in eu-west-1",
    ]
    assert f"the registry of account {OTHER} in {AWAY} must allow this" in lines[6]
    policy = json.loads("\n".join(lines[7:]))
    assert policy["Statement"][0]["Resource"] == [f"arn:aws:ecr:{AWAY}:{OTHER}:repository/moved/*"]
    assert len(rules_of(server)) == len(first), "a plan changes nothing"


def test_nothing_is_applied_unless_somebody_agrees(server: Served, tmp_path: Path) -> None:
    env = environment(server.url)
    put_rules(server)
    rules = write_rules(tmp_path, to((ACCOUNT, AWAY), prefix="asked/"))
    nobody = asyncpush("replication", "apply", rules, env=env)
    assert nobody.returncode == 2
    assert "--yes" in error_lines(nobody)[0]
    assert at_a_terminal(["replication", "apply", str(rules)], "n\n", env) == 1
    assert not rules_of(server)
    assert at_a_terminal(["replication", "apply", str(rules)], "y\n", env) == 0
    shown = asyncpush("replication", "show", HOST, env=env)
    assert shown.stdout.splitlines() == [f"{HOST}: 1 rule", f"  asked/* -> {ACCOUNT} in {AWAY}"]


def at_a_terminal(arguments: list[str], typed: str, env: dict[str, str]) -> int:
    """Run a command whose standard input is a terminal; its exit code."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed.encode())
        done = subprocess.run(
            [sys.executable, "-m", "asyncpush", *arguments],
            env=env,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert f"apply this to {HOST}?" in done.stderr
        return done.returncode
    finally:
        os.close(ours)
        os.close(theirs)


def test_rules_of_another_account_are_not_taken_for_ones_own(
    server: Served, tmp_path: Path
) -> None:
    env = environment(server.url, OTHER_KEY_ID, "x")
    rules = write_rules(tmp_path, to((OTHER, AWAY)))
    done = asyncpush("replication", "apply", rules, "--yes", env=env)
    assert done.returncode == 1
    (line,) = error_lines(done)
    assert f"the credentials are of account {OTHER}" in line
    assert f"use credentials of account {ACCOUNT}" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "docker://example.com"], "is not ECR's"),
        (["wait", f"{HOST}/team/app"], "give it a tag or a digest"),
    ],
)
def test_bad_input_is_one_line(
    server: Served, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = asyncpush("replication", *arguments, env=environment(server.url))
    assert done.returncode == 2
    (line,) = error_lines(done)
    assert message in line


def test_every_mistake_of_a_file_is_told(server: Served, tmp_path: Path) -> None:
    rules = write_rules(tmp_path, to(("1", "nowhere")))
    done = asyncpush("replication", "apply", rules, "--yes", env=environment(server.url))
    assert done.returncode == 2
    assert len(error_lines(done)) == 2


def test_an_image_that_is_not_there_is_a_failure(server: Served, tmp_path: Path) -> None:
    target = server.create("empty/app")
    env = environment(server.url)
    put_rules(server, to((ACCOUNT, AWAY), prefix="empty/"))
    done = asyncpush("replication", "wait", f"{target}:v1", env=env)
    assert done.returncode == 1
    assert "ImageNotFoundException" in done.stderr
