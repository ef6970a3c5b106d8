"""The options of ``asyncpush serve`` that change how ``/v2/`` behaves."""

from __future__ import annotations

import http.client
import json
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from support import KEY_ID, REGION, SECRET, asyncpush, environment, error_lines, serve

from asyncpush.oci.layout import Layout

NAMES = ("team/app", "team/other")


def status_of(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> int:
    request = urllib.request.Request(url, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code


def token_of(url: str, lifetime: int, **form: str) -> dict[str, str]:
    """A token of the token service; the answer names its lifetime in whole seconds."""
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(f"{url}/token", data, timeout=10) as answer:
        document: dict[str, str] = json.load(answer)
    assert document["expires_in"] == lifetime
    assert isinstance(document["expires_in"], int)
    return document


def test_bearer_tokens_have_the_lifetime_that_was_asked_for_and_anybody_may_pull(
    tmp_path: Path, sample: Path
) -> None:
    extra = ["--auth", "bearer", "--bearer-lifetime", "7", "--anonymous-pull"]
    with serve(tmp_path, (), "--region", REGION, "--repository", NAMES[0], *extra) as served:
        assert status_of(f"{served.url}/v2/") == 401
        token = token_of(served.url, 7)["token"]
        assert status_of(f"{served.url}/v2/", headers={"Authorization": f"Bearer {token}"}) == 200

        # Docker keeps a refresh token as what it calls an identity token.
        login = {"username": KEY_ID, "password": SECRET, "access_type": "offline"}
        refresh = token_of(served.url, 7, grant_type="password", **login)["refresh_token"]
        address = served.url.removeprefix("http://")
        config = {"auths": {address: {"identitytoken": refresh}}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        env = environment(None, "") | {"DOCKER_CONFIG": str(tmp_path)}
        done = asyncpush("push", sample, f"docker://{address}/{NAMES[0]}", env=env)
        assert done.returncode == 0, done.stderr
        assert served.digests(NAMES[0]) == {e.ref_name: e.digest for e in Layout(sample).entries}


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        (["--mounting", "on"], 201),
        (["--mounting", "off"], 202),
        ([], 201),
        (["--mounting", "ecr", "--blob-mounting"], 202),  # no manifest references it
    ],
)
def test_mounting_is_what_was_asked_for(tmp_path: Path, extra: list[str], status: int) -> None:
    blob = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    with serve(tmp_path, (), "--region", REGION, "--open", *extra) as served:
        uploads = f"{served.url}/v2/{{}}/blobs/uploads/"
        request = urllib.request.Request(
            uploads.format(NAMES[0]) + f"?digest={blob}", b"{}", method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 201
        mount = uploads.format(NAMES[1]) + f"?mount={blob}&from={NAMES[0]}"
        assert status_of(mount, "POST") == status
        setting = served.client().get_account_setting(name="BLOB_MOUNTING")["value"]
        assert setting == ("ENABLED" if "--blob-mounting" in extra else "DISABLED")


def test_push_to_a_missing_repository_may_lose_its_connection(tmp_path: Path) -> None:
    with serve(tmp_path, (), "--region", REGION, "--auth", "bearer", "--cut-missing") as served:
        scope = f"repository:{NAMES[0]}:push"
        login = {"username": KEY_ID, "password": SECRET, "scope": scope}
        token = token_of(served.url, 300, grant_type="password", **login)["token"]
        headers = {"Authorization": f"Bearer {token}"}
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            status_of(f"{served.url}/v2/{NAMES[0]}/blobs/uploads/", "POST", headers)


def test_store_of_another_format_is_refused_in_one_line(tmp_path: Path) -> None:
    with serve(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "store" / "registry.sqlite3") as connection:
        connection.execute("PRAGMA user_version=1")
    connection.close()
    done = asyncpush(
        "serve", "--root", tmp_path / "store", "--port", "0", env=environment(None, "")
    )
    (line,) = error_lines(done)
    assert "its format is 1" in line
    assert "choose another root" in line
    assert done.returncode == 2


def test_lifetime_of_no_time_is_refused(tmp_path: Path) -> None:
    done = asyncpush("serve", "--bearer-lifetime", "0", env=environment(None, ""))
    assert done.returncode == 2
    assert "--bearer-lifetime" in done.stderr
