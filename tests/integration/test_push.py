"""The main job: a layout of every kind of entry, into the local registry and into moto's server."""

from __future__ import annotations

import json
import os
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from support import (
    ACCOUNT,
    HOST,
    PUSH_ACTIONS,
    REGION,
    Served,
    asyncpush,
    environment,
    error_lines,
    moto_client,
    serve,
)

from asyncpush.oci import mediatypes
from asyncpush.oci.digest import compute
from asyncpush.oci.layout import Layout
from asyncpush.oci.writer import LayoutWriter

MIB = 1024 * 1024


def expected(sample: Path) -> dict[str, str]:
    return {entry.ref_name or "": entry.digest for entry in Layout(sample).entries}


def test_every_kind_of_entry_arrives_with_its_digest(registry: Served, sample: Path) -> None:
    target = registry.create("kinds/all")

    done = asyncpush("push", sample, target, "--json", env=environment(registry.url))

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    assert report["counts"]["pushed"] == 15
    assert registry.digests("kinds/all") == expected(sample)
    stored = {p.name for p in (sample / "blobs" / "sha256").iterdir()}
    manifests = Layout(sample).entries
    assert report["bytes_sent"] < sum(
        p.stat().st_size for p in (sample / "blobs").rglob("*") if p.is_file()
    )
    assert len(stored) > len(manifests)


def test_second_push_sends_no_layer_byte(registry: Served, sample: Path) -> None:
    target = registry.create("again/immutable", immutable=True)
    env = environment(registry.url)
    assert asyncpush("push", sample, target, env=env).returncode == 0
    before = len(registry.calls())

    done = asyncpush("push", sample, target, "--json", env=env)

    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert report["bytes_sent"] == 0
    assert report["counts"]["exists"] == 15
    again = {call["action"] for call in registry.calls()[before:]}
    assert again == {"GetAuthorizationToken", "BatchGetImage"}


def test_scoped_policy_of_aws_is_enough_and_a_seventh_action_is_asked_for_once(
    tmp_path: Path, sample: Path
) -> None:
    key = {"access_key_id": "AKIDTESTSPUSHSCOPED0", "secret_access_key": "s", "account": ACCOUNT}
    key["policy"] = {  # AWS's policy for pushing to one repository, with its ARN filled in
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "ecr:CompleteLayerUpload",
                    "ecr:UploadLayerPart",
                    "ecr:InitiateLayerUpload",
                    "ecr:BatchCheckLayerAvailability",
                    "ecr:PutImage",
                ],
                "Resource": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/scoped",
            },
            {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
        ],
    }
    with serve(tmp_path, [key]) as served:
        target = served.create("team/scoped")
        other = served.create("team/other")
        env = environment(served.url, key["access_key_id"], "s")

        done = asyncpush("push", sample, target, env=env)
        calls = [c for c in served.calls() if c["access_key_id"] == key["access_key_id"]]
        denied = asyncpush("push", f"{sample}:legacy", other, env=env)

        assert done.returncode == 0, done.stderr
        assert {call["action"] for call in calls if not call["error"]} == PUSH_ACTIONS
        (denial,) = [call for call in calls if call["error"]]
        assert (denial["action"], denial["error"]) == ("BatchGetImage", "AccessDeniedException")
        assert served.digests("team/scoped") == expected(sample)
        (line,) = error_lines(denied)
        assert denied.returncode == 1
        for words in (
            "not authorized to perform: ecr:BatchCheckLayerAvailability",
            f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/other",
            "request id",
            "allow ecr:BatchCheckLayerAvailability",
        ):
            assert words in line


def test_layer_that_100_images_share_is_uploaded_once(registry: Served, tmp_path: Path) -> None:
    target = registry.create("shared/hundred")
    writer = LayoutWriter(tmp_path / "layout")
    shared = writer.blob(os.urandom(50 * MIB), mediatypes.OCI_LAYER)
    for i in range(100):
        own = writer.blob(b"own layer %d" % i, mediatypes.OCI_LAYER)
        writer.entry(writer.image([shared, own]), f"v{i}")
    writer.close()
    before = len(registry.calls())

    done = asyncpush(
        "push",
        tmp_path / "layout",
        target,
        "--images",
        "100",
        "--quota",
        "PutImage=1000",
        env=environment(registry.url),
    )

    assert done.returncode == 0, done.stderr
    assert len(registry.digests("shared/hundred")) == 100
    calls = Counter(call["action"] for call in registry.calls()[before:])
    # The shared layer in 5 parts, and for each image a layer and a config of one part.
    assert calls["UploadLayerPart"] == 5 + 100 + 100
    assert calls["CompleteLayerUpload"] == 1 + 100 + 100
    assert calls["BatchCheckLayerAvailability"] <= 6


@pytest.mark.parametrize(("part_size", "parts"), [(None, 5), ("5", 9), ("20", 3)])
def test_parts_have_the_size_that_the_registry_or_the_user_says(
    registry: Served, tmp_path: Path, part_size: str | None, parts: int
) -> None:
    name = f"parts/of-{part_size or 'default'}"
    target = registry.create(name)
    writer = LayoutWriter(tmp_path / "layout")
    writer.entry(writer.image([writer.blob(os.urandom(45 * MIB), mediatypes.OCI_LAYER)]), "v1")
    writer.close()
    options = ["--part-size", part_size] if part_size else []

    done = asyncpush("push", tmp_path / "layout", target, *options, env=environment(registry.url))

    assert done.returncode == 0, done.stderr
    calls = [c for c in registry.calls() if c["repository"] == name]
    # The layer's parts, and one for the config.
    assert sum(c["action"] == "UploadLayerPart" for c in calls) == parts + 1


def test_dry_run_tells_what_is_missing_and_sends_nothing(registry: Served, sample: Path) -> None:
    target = registry.create("dry/run")
    env = environment(registry.url)
    assert asyncpush("push", f"{sample}:service-01", target, env=env).returncode == 0
    before = len(registry.calls())

    done = asyncpush("push", sample, target, "--dry-run", "--json", env=env)

    assert done.returncode == 0, done.stderr
    preview = {image["name"]: image for image in json.loads(done.stdout)["images"]}
    assert preview["service-01"]["missing_blobs"] == 0
    assert preview["service-02"]["missing_blobs"] == 2
    assert {call["action"] for call in registry.calls()[before:]} == {
        "GetAuthorizationToken",
        "BatchCheckLayerAvailability",
        "BatchGetImage",
    }
    assert registry.digests("dry/run").keys() == {"service-01"}


def test_platform_takes_one_image_of_the_index(registry: Served, sample: Path) -> None:
    target = registry.create("platform/one")
    source = f"{sample}:gateway"

    done = asyncpush(
        "push", source, f"{target}:arm", "--platform", "linux/arm64", env=environment(registry.url)
    )
    wrong = asyncpush(
        "push", source, target, "--platform", "windows/amd64", env=environment(registry.url)
    )

    assert done.returncode == 0, done.stderr
    layout = Layout(sample)
    index = next(entry for entry in layout.entries if entry.ref_name == "gateway")
    document = json.loads((sample / "blobs" / index.digest.replace(":", "/")).read_text())
    arm = next(m for m in document["manifests"] if m["platform"]["architecture"] == "arm64")
    assert registry.digests("platform/one") == {"arm": arm["digest"]}
    (line,) = error_lines(wrong)
    assert "no image for windows/amd64" in line
    assert "it has linux/amd64, linux/arm64" in line
    assert wrong.returncode == 2


def test_foreign_layer_is_left_out_unless_asked_for(registry: Served, tmp_path: Path) -> None:
    target = registry.create("foreign/layer")
    writer = LayoutWriter(tmp_path / "layout")
    foreign = writer.blob(b"from elsewhere", mediatypes.DOCKER_FOREIGN_LAYER)
    foreign["urls"] = ["https://example.com/layer"]
    writer.entry(writer.image([foreign], docker=True), "v1")
    writer.close()
    env = environment(registry.url)
    client = registry.client()

    def there() -> str:
        answer = client.batch_check_layer_availability(
            repositoryName="foreign/layer", layerDigests=[foreign["digest"]]
        )
        return str(answer["layers"][0]["layerAvailability"] if answer["layers"] else "missing")

    first = asyncpush("push", tmp_path / "layout", target, env=env)
    without = there()
    second = asyncpush("push", tmp_path / "layout", target, "--include-foreign", env=env)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert without != "AVAILABLE"
    assert there() == "AVAILABLE"


def test_immutable_tag_that_points_elsewhere_is_a_conflict(
    registry: Served, tmp_path: Path
) -> None:
    target = registry.create("immutable/conflict", immutable=True)
    env = environment(registry.url)
    digests = []
    for text in (b"first", b"second"):
        writer = LayoutWriter(tmp_path / text.decode())
        image = writer.image([writer.blob(text, mediatypes.OCI_LAYER)])
        digests.append(image["digest"])
        writer.entry(image, "v1")
        writer.close()
    assert asyncpush("push", tmp_path / "first", target, env=env).returncode == 0

    done = asyncpush("push", tmp_path / "second", target, env=env)

    (line,) = error_lines(done)
    assert done.returncode == 1
    assert "the tag v1 is immutable and points to" in line
    assert digests[1] in line
    assert registry.digests("immutable/conflict") == {"v1": digests[0]}


def test_artifact_that_is_refused_fails_alone_or_warns(tmp_path: Path, sample: Path) -> None:
    with serve(tmp_path, (), "--refuse-artifacts") as served:
        target = served.create("no/artifacts")
        env = environment(served.url)

        failing = asyncpush("push", sample, target, env=env)
        warning = asyncpush("push", sample, target, "--on-refused", "warn", env=env)

        (line,) = error_lines(failing)
        assert "service-01.sbom" in line
        assert "--on-refused warn" in line
        assert failing.returncode == 1
        assert warning.returncode == 0
        assert "warning: service-01.sbom" in warning.stderr
        wanted = expected(sample)
        del wanted["service-01.sbom"]
        assert served.digests("no/artifacts") == wanted


def test_moto_takes_every_kind_of_entry_and_has_the_same_layer_bytes(
    moto: str, sample: Path
) -> None:
    client = moto_client(moto)
    client.create_repository(repositoryName="team/moto", registryId=ACCOUNT)

    done = asyncpush("push", sample, f"{HOST}/team/moto", "--json", env=environment(moto))
    again = asyncpush("push", sample, f"{HOST}/team/moto", "--json", env=environment(moto))

    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout)["counts"]["pushed"] == 15
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["bytes_sent"] == 0
    for entry in Layout(sample).entries:
        (image,) = client.batch_get_image(
            registryId=ACCOUNT,
            repositoryName="team/moto",
            imageIds=[{"imageTag": entry.ref_name}],
        )["images"]
        assert compute(image["imageManifest"].encode()) == entry.digest


def test_pull_without_a_token_is_refused(registry: Served) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{registry.url}/v2/", timeout=10)
    with refused.value as answer:
        assert answer.code == 401
