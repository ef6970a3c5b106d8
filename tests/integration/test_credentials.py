"""Credentials: missing, wrong, expired, from a profile: one line, one exit code, no secret."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
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
    serve,
)

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions
from asyncpush.localregistry import Key, LocalRegistry, LocalRegistryOptions
from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    writer = LayoutWriter(tmp_path / "layout")
    writer.entry(writer.image([writer.blob(b"layer", mediatypes.OCI_LAYER)]), "v1")
    return writer.close()


def test_missing_credentials(registry: Served, layout: Path) -> None:
    done = asyncpush("push", layout, f"{HOST}/a-repository", env=environment(registry.url, ""))

    (line,) = error_lines(done)
    assert "Unable to locate credentials" in line
    assert "--profile" in line
    assert done.returncode == 3


def test_unknown_key(registry: Served, layout: Path) -> None:
    env = environment(registry.url, "AKIDNOBODYKNOWSTHIS0")
    done = asyncpush("push", layout, f"{HOST}/a-repository", env=env)

    (line,) = error_lines(done)
    assert "UnrecognizedClientException" in line
    assert "request id" in line
    assert done.returncode == 3
    assert SECRET not in done.stderr + done.stdout


def test_wrong_secret(registry: Served, layout: Path) -> None:
    env = environment(registry.url, KEY_ID, "a-wrong-secret")
    done = asyncpush("push", layout, f"{HOST}/a-repository", env=env)

    (line,) = error_lines(done)
    assert "call GetAuthorizationToken" in line
    assert done.returncode == 3
    assert "a-wrong-secret" not in done.stderr + done.stdout


def test_expired_credentials(tmp_path: Path, layout: Path) -> None:
    expired = {
        "access_key_id": "ASIATESTSEXPIREDKEY0",
        "secret_access_key": "expired-secret",
        "session_token": "expired-token",
        "account": ACCOUNT,
        "expires": (datetime.now(UTC) - timedelta(hours=1)).isoformat(),
    }
    with serve(tmp_path / "registry", [expired]) as served:
        env = environment(served.url, expired["access_key_id"], "expired-secret")
        env["AWS_SESSION_TOKEN"] = "expired-token"
        done = asyncpush("push", layout, f"{HOST}/a-repository", env=env)

    (line,) = error_lines(done)
    assert "expired" in line
    assert "ExpiredTokenException" in line
    assert done.returncode == 3
    assert "expired-secret" not in done.stderr
    assert "expired-token" not in done.stderr


def test_profile_gives_credentials_and_endpoint(
    registry: Served, layout: Path, tmp_path: Path
) -> None:
    target = registry.create("from/profile")
    config = tmp_path / "config"
    config.write_text(
        f"[profile pusher]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
        f"endpoint_url = {registry.url}\n"
    )
    env = environment(None, "") | {"AWS_CONFIG_FILE": str(config)}

    done = asyncpush("push", layout, target, "--profile", "pusher", env=env)
    missing = asyncpush("push", layout, target, "--profile", "nobody", env=env)

    assert done.returncode == 0, done.stderr
    assert registry.digests("from/profile").keys() == {"v1"}
    (line,) = error_lines(missing)
    assert "nobody" in line
    assert missing.returncode == 3


def test_credential_process_is_asked(registry: Served, layout: Path, tmp_path: Path) -> None:
    target = registry.create("from/process")
    answer = {"Version": 1, "AccessKeyId": KEY_ID, "SecretAccessKey": SECRET}
    (tmp_path / "credentials.json").write_text(json.dumps(answer))
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = cat {tmp_path / 'credentials.json'}\n")
    env = environment(registry.url, "") | {"AWS_CONFIG_FILE": str(config)}

    done = asyncpush("push", layout, target, env=env)

    assert done.returncode == 0, done.stderr


# moto keeps repositories by the caller's account; this is the one of keys that it does not know.
ROLE = "arn:aws:iam::123456789012:role/pusher"


@pytest.fixture
def moto_target(moto: str, request: pytest.FixtureRequest) -> str:
    """A repository at moto's server, which also is an STS that gives out roles."""
    name = request.node.name.replace("_", "-")
    moto_client(moto).create_repository(repositoryName=name, registryId=ACCOUNT)
    return f"{HOST}/{name}"


def at_moto(moto: str, **variables: str) -> dict[str, str]:
    env = environment(moto, "") | {"AWS_ENDPOINT_URL_STS": moto, "AWS_REGION": REGION}
    return env | variables


def test_role_of_a_profile_is_assumed(
    moto: str, moto_target: str, layout: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile base]\naws_access_key_id = a\naws_secret_access_key = b\n"
        "[profile pusher]\nsource_profile = base\n"
        f"role_arn = {ROLE}\nexternal_id = partner\n"
    )
    env = at_moto(moto, AWS_CONFIG_FILE=str(config))

    done = asyncpush("push", layout, moto_target, "--profile", "pusher", env=env)

    assert done.returncode == 0, done.stderr


def test_role_of_a_job_is_assumed_with_its_external_id(
    moto: str, moto_target: str, layout: Path, tmp_path: Path
) -> None:
    job = tmp_path / "job.yaml"
    document = {
        "version": 1,
        "registries": [
            {"hosts": [HOST], "role_arn": ROLE, "external_id": "x1", "endpoint_url": moto}
        ],
        "sources": [{"layouts": str(layout)}],
        "targets": [{"repository": moto_target.partition("/")[2]}],
    }
    job.write_text(json.dumps(document))
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}

    done = asyncpush("run", job, env=at_moto(moto, **keys))
    assert done.returncode == 0, done.stderr

    # Without a key to assume it with: a matter of credentials.
    done = asyncpush("run", job, env=at_moto(moto))
    assert done.returncode == 3
    assert len(error_lines(done)) == 1


def test_web_identity_is_exchanged_for_a_role(
    moto: str, moto_target: str, layout: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("a-token")
    env = at_moto(
        moto,
        AWS_ROLE_ARN=ROLE,
        AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"),
    )

    done = asyncpush("push", layout, moto_target, env=env)
    missing = asyncpush(
        "push", layout, moto_target, env=env | {"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such/token"}
    )

    assert done.returncode == 0, done.stderr
    (line,) = error_lines(missing)
    assert "/no/such/token" in line
    assert missing.returncode == 3


def test_role_that_cannot_be_assumed_is_a_matter_of_credentials(
    layout: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(f"[profile pusher]\nsource_profile = nobody\nrole_arn = {ROLE}\n")
    env = environment("http://127.0.0.1:1", "") | {"AWS_CONFIG_FILE": str(config)}

    done = asyncpush("push", layout, f"{HOST}/a-repository", "--profile", "pusher", env=env)

    (line,) = error_lines(done)
    assert "nobody" in line
    assert done.returncode == 3


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://files.example"])
def test_endpoint_that_is_no_address(layout: Path, url: str) -> None:
    done = asyncpush(
        "push", layout, f"{HOST}/a-repository", "--endpoint-url", url, env=environment(None)
    )

    (line,) = error_lines(done)
    assert url in line
    assert done.returncode == 2


def test_repository_that_does_not_exist(registry: Served, layout: Path) -> None:
    done = asyncpush("push", layout, f"{HOST}/not/there", env=environment(registry.url))

    (line,) = error_lines(done)
    for words in ("'not/there' does not exist", "request id", "create the repository", "not/there"):
        assert words in line
    assert done.returncode == 1


def test_endpoint_that_nobody_listens_on(layout: Path) -> None:
    env = environment("http://127.0.0.1:1")
    done = asyncpush("push", layout, f"{HOST}/a-repository", "--attempts", "2", env=env)

    (line,) = error_lines(done)
    assert "http://127.0.0.1:1" in line
    assert "attempts 2" in line
    assert done.returncode == 1


@pytest.mark.anyio
async def test_ecrs_token_is_shared_and_renewed_when_it_is_refused(
    tmp_path: Path, layout: Path
) -> None:
    ahead = [0.0]
    options = LocalRegistryOptions(clock=lambda: time.time() + ahead[0], max_clock_skew=1e9)
    keys = [Key(KEY_ID, SECRET, ACCOUNT)]
    async with LocalRegistry(tmp_path / "store", keys, options).run() as server:
        names = [f"token/app{i}" for i in range(8)]
        for name in names:
            await server.ensure_repository(ACCOUNT, REGION, name)
        aws = AwsOptions(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=server.url)
        async with Pusher(PushOptions(aws=aws, transport="distribution", images=20)) as pusher:
            for tokens in (1, 2):
                items = [PushItem(layout, f"{HOST}/{name}:round-{tokens}") for name in names]
                report = await pusher.push(items)
                assert report.ok, [str(image.error) for image in report.failed]
                assert server.calls.counters.calls["GetAuthorizationToken"] == tokens
                # The registry's clock goes on by more than a token's life, ours does not.
                ahead[0] += 13 * 3600
