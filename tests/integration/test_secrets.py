"""No secret gets out: of pushes that succeed and that fail, everything they write is searched."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import ACCOUNT, HOST, Served, asyncpush, asyncpush_here, environment, serve

from asyncpush.oci import mediatypes
from asyncpush.oci.writer import LayoutWriter

KEY_ID = "AKIDTEMPORARYSECRET0"
SECRET = "hush-access-key"
SESSION = "hush-session-token"
PASSWORD = "hush-password"
# The tokens and signatures that the local registry gives out begin with their access key's id, as
# base64 of ["AKID; ECR's own tokens are base64 of AWS: and one of them.
MARKS = ("hush", "WyJBS0lE", "QVdTO", "signature=", "AWS4-HMAC", "Basic ", "Bearer ")
NOBODY = "127.0.0.1:1"
AWS = "AWS_ENDPOINT_URL_ECR"


@dataclass(frozen=True, slots=True)
class Case:
    """A push: where it goes, what it is told, how it ends; ``{address}`` is the registry's."""

    target: str
    code: int
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    docker: dict[str, object] = field(default_factory=dict)


APP = f"{HOST}/team/app"
ANY = "docker://{address}/team/app"
CASES = {
    "native": Case(APP, 0, ("--verify",)),
    "distribution": Case(APP, 0, ("--transport", "distribution", "--verify")),
    "docker": Case(
        ANY, 0, docker={"auths": {"{address}": {"username": KEY_ID, "password": SECRET}}}
    ),
    "no-repository": Case(f"{HOST}/not/there", 1, ("--transport", "distribution")),
    "wrong-secret": Case(APP, 3, env={"AWS_SECRET_ACCESS_KEY": "hush-wrong"}),
    "wrong-session": Case(APP, 3, env={"AWS_SESSION_TOKEN": "hush-wrong"}),
    "wrong-password": Case(
        ANY, 3, docker={"auths": {"{address}": {"username": "u", "password": PASSWORD}}}
    ),
    "helper-fails": Case(ANY, 3, docker={"credHelpers": {"{address}": "leaky"}}),
    "endpoint-option": Case(APP, 2, ("--endpoint-url", f"http://u:{PASSWORD}@{NOBODY}")),
    "endpoint-variable": Case(APP, 2, env={AWS: f"http://u:{PASSWORD}@{NOBODY}"}),
    "endpoint-broken": Case(APP, 2, env={AWS: f"http://u:{PASSWORD}@no host"}),
    "endpoint-without-scheme": Case(APP, 2, env={AWS: f"u:{PASSWORD}@{NOBODY}"}),
    "proxy": Case(
        APP, 1, env={AWS: "https://api.invalid", "HTTPS_PROXY": f"http://u:{PASSWORD}@{NOBODY}"}
    ),
    "proxy-without-scheme": Case(
        "docker://registry.invalid/app", 1, env={"HTTPS_PROXY": f"u:{PASSWORD}@proxy.invalid:80"}
    ),
    "proxy-without-port": Case(
        "docker://registry.invalid/app",
        1,
        env={"HTTPS_PROXY": f"http://u:{PASSWORD}@proxy.invalid:99999"},
    ),
    "target": Case(f"docker://u:{PASSWORD}@{NOBODY}/app", 2),
    "target-of-aws": Case(f"https://u:{PASSWORD}@{APP}", 2),
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A local registry with a token service and a temporary key."""
    key = {
        "access_key_id": KEY_ID,
        "secret_access_key": SECRET,
        "session_token": SESSION,
        "account": ACCOUNT,
    }
    permanent = {**key, "access_key_id": "AKIDPERMANENTSECRET0"}
    del permanent["session_token"]
    folder = tmp_path_factory.mktemp("guarded")
    extra = ("--auth", "bearer", "--region", "eu-central-1")
    with serve(folder, [key, permanent], *extra) as served:
        served.create("team/app")
        yield served


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout of one small image."""
    writer = LayoutWriter(tmp_path_factory.mktemp("small") / "layout")
    writer.entry(writer.image([writer.blob(b"layer", mediatypes.OCI_LAYER)]), "v1")
    return writer.close()


@pytest.mark.parametrize("name", CASES)
def test_no_secret_is_written_anywhere(
    guarded: Served,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    case = CASES[name]
    address = guarded.url.removeprefix("http://")
    env = environment(guarded.url, KEY_ID, SECRET) | {"AWS_SESSION_TOKEN": SESSION}
    helper = tmp_path / "docker-credential-leaky"
    helper.write_text('#!/bin/sh\necho \'{"Username": "u", "Secret": "hush-helper"}\'\nexit 1\n')
    helper.chmod(0o755)
    env |= {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:{env['PATH']}"} | case.env
    config = json.dumps(case.docker).replace("{address}", address)
    (tmp_path / "config.json").write_text(config.replace(KEY_ID, "AKIDPERMANENTSECRET0"))
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["push", str(small), case.target.replace("{address}", address), *case.options]
    arguments += ["--attempts", "1", "--report", str(out / "report.json"), "--json"]
    arguments += ["--metrics", str(out / "metrics.prom"), "--journal", str(out / "journal")]

    done = asyncpush(*arguments, "--log-format", "json", env=env)
    (out / "stdout").write_text(done.stdout)
    (out / "stderr").write_text(done.stderr)
    if (out / "report.json").exists():
        report = str(out / "report.json")
        shown = asyncpush_here(monkeypatch, capsys, "report", report)
        (out / "shown").write_text(shown.stdout + shown.stderr)
        page = asyncpush_here(monkeypatch, capsys, "report", report, "--html", out / "page.html")
        assert page.returncode == 0

    assert done.returncode == case.code, done.stderr
    assert "Traceback" not in done.stderr
    for file in out.iterdir():
        text = file.read_bytes().decode(errors="replace")
        assert [mark for mark in MARKS if mark in text] == [], file.name


def test_the_journal_is_for_its_owner_alone(guarded: Served, small: Path, tmp_path: Path) -> None:
    env = environment(guarded.url, KEY_ID, SECRET) | {"AWS_SESSION_TOKEN": SESSION}
    journal = tmp_path / "journal"
    asyncpush("push", small, f"{HOST}/not/there", "--journal", journal, env=env)
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
