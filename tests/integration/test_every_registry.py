"""The corpus of 15 entries, to each registry with each authentication, and back through skopeo."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import (
    HOST,
    HTPASSWD,
    KEY_ID,
    REGION,
    SECRET,
    Served,
    asyncpush,
    docker_registry_at,
    environment,
    require_program,
    serve,
)
from tokenservice import token_service

from asyncpush.oci.digest import compute
from asyncpush.oci.layout import Layout
from asyncpush.oci.sample import write_sample

LOGIN = "user:secret"
REPOSITORY = "team/corpus"
MIB = 1024 * 1024


@dataclass
class Place:
    """A registry, and the credentials that it wants, if any."""

    address: str
    login: str | None = None
    served: Served | None = None

    def environment(self, folder: Path) -> dict[str, str]:
        """An environment in which docker's configuration holds the credentials."""
        folder.mkdir(exist_ok=True)
        auths = {}
        if self.login is not None:
            auths[self.address] = {"auth": base64.b64encode(self.login.encode()).decode()}
        (folder / "config.json").write_text(json.dumps({"auths": auths}))
        env = environment(None, "")
        env.pop("REGISTRY_AUTH_FILE", None)
        return env | {"DOCKER_CONFIG": str(folder)}

    def skopeo_source(self, file: Path, repository: str, tags: list[str]) -> list[str]:
        """Have skopeo read these tags alone; the list of them goes into a file, which is YAML."""
        source: dict[str, object] = {"tls-verify": False, "images": {repository: tags}}
        if self.login is not None:
            user, _, password = self.login.partition(":")
            source["credentials"] = {"username": user, "password": password}
        file.write_text(json.dumps({self.address: source}))
        return ["--src", "yaml", str(file)]


@contextlib.contextmanager
def local_registry(folder: Path, kind: str) -> Iterator[Place]:
    """The local registry; Basic takes an authorization token, Bearer a key."""
    extra = {"plain": ["--open"], "basic": [], "bearer": ["--auth", "bearer"]}[kind]
    with serve(folder, (), "--region", REGION, *extra) as served:
        address = served.url.removeprefix("http://")
        if kind == "plain":
            yield Place(address, None, served)
            return
        served.create(REPOSITORY)
        login = f"{KEY_ID}:{SECRET}"
        if kind == "basic":
            (data,) = served.client().get_authorization_token()["authorizationData"]
            login = base64.b64decode(data["authorizationToken"]).decode()
        yield Place(address, login, served)


@contextlib.contextmanager
def docker_registry(folder: Path, kind: str) -> Iterator[Place]:
    """Debian's docker-registry."""
    with contextlib.ExitStack() as stack:
        config = ""
        if kind == "basic":
            (folder / "htpasswd").write_text(HTPASSWD)
            config = f"auth: {{htpasswd: {{realm: here, path: '{folder / 'htpasswd'}'}}}}\n"
        elif kind == "bearer":
            config = stack.enter_context(token_service(folder, LOGIN)).config
        address = stack.enter_context(docker_registry_at(folder, config))
        yield Place(address, None if kind == "plain" else LOGIN)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 15 entries of the sample, in small."""
    return write_sample(tmp_path_factory.mktemp("corpus") / "layout", base_bytes=MIB)


def skopeo_sync(*arguments: str) -> None:
    """Let skopeo copy all tags of a repository, or all images of a folder."""
    command = [require_program("skopeo"), "--insecure-policy", "sync", "--all"]
    done = subprocess.run(
        [*command, "--preserve-digests", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def copied_back(place: Place, tags: list[str], folder: Path) -> dict[str, str]:
    """Digest by tag of what skopeo copies out of the repository; it proves the blobs' digests."""
    folder.mkdir()
    source = place.skopeo_source(folder.with_suffix(".yaml"), REPOSITORY, tags)
    skopeo_sync(*source[:2], "--dest", "dir", source[2], str(folder))
    digests = {}
    for image in folder.iterdir():
        tag = image.name.partition(":")[2]
        digests[tag] = str(compute((image / "manifest.json").read_bytes()))
        for file in image.iterdir():
            if len(file.name.partition(".")[0]) == 64:
                assert compute(file.read_bytes()) == f"sha256:{file.name.partition('.')[0]}"
    return digests


def digests_of(layout: Path) -> dict[str, str]:
    return {str(entry.ref_name): str(entry.digest) for entry in Layout(layout).entries}


@pytest.mark.parametrize("kind", ["plain", "basic", "bearer"])
@pytest.mark.parametrize("registry", ["local", "docker-registry"])
def test_corpus_goes_there_and_skopeo_copies_it_back(
    registry: str, kind: str, corpus: Path, tmp_path: Path
) -> None:
    require_program("skopeo")
    folder = tmp_path / "registry"
    folder.mkdir()
    start = local_registry if registry == "local" else docker_registry
    with start(folder, kind) as place:
        env = place.environment(tmp_path / "docker")
        target = f"docker://{place.address}/{REPOSITORY}"
        done = asyncpush("push", corpus, target, "--json", env=env)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["counts"]["pushed"] == 15
        expected = digests_of(corpus)
        assert copied_back(place, list(expected), tmp_path / "back") == expected
        if kind == "plain":
            done = asyncpush("push", corpus, target, "--json", env=env)
            report = json.loads(done.stdout)
            assert (report["counts"]["exists"], report["bytes_sent"]) == (15, 0), done.stderr
        if place.served is not None:
            assert_each_blob_came_once_from_the_right_caller(place.served, kind)


def assert_each_blob_came_once_from_the_right_caller(served: Served, kind: str) -> None:
    calls = served.calls()
    uploads = [call for call in calls if call["action"] == "v2.PutUpload"]
    assert len(uploads) == len({call["upload_id"] for call in uploads}) == 34
    assert {call["access_key_id"] for call in uploads} == {None if kind == "plain" else KEY_ID}
    assert any(call["action"] == "v2.GetToken" for call in calls) == (kind == "bearer")


@pytest.fixture(scope="module")
def folders(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus as skopeo's ``dir:`` folders; it cannot read all of a layout."""
    require_program("skopeo")
    folder = tmp_path_factory.mktemp("folders")
    with local_registry(folder / "registry", "plain") as place:
        target = f"docker://{place.address}/{REPOSITORY}"
        done = asyncpush("push", corpus, target, env=place.environment(folder / "docker"))
        assert done.returncode == 0, done.stderr
        copied_back(place, list(digests_of(corpus)), folder / "back")
    return folder / "back"


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_what_skopeo_pushes_is_there_for_a_push_by_ecrs_own_api(
    kind: str, corpus: Path, folders: Path, tmp_path: Path
) -> None:
    with local_registry(tmp_path / "registry", kind) as place:
        served = place.served
        assert served is not None
        login = ["--dest-tls-verify=false", "--dest-creds", str(place.login)]
        target = f"{place.address}/{REPOSITORY.partition('/')[0]}"
        skopeo_sync("--src", "dir", "--dest", "docker", *login, str(folders), target)
        assert served.digests(REPOSITORY) == digests_of(corpus)

        before = len(served.calls())
        reference = f"{HOST}/{REPOSITORY}"
        done = asyncpush("push", corpus, reference, "--json", env=environment(served.url))
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["counts"]["exists"], report["bytes_sent"]) == (15, 0)
        actions = {call["action"] for call in served.calls()[before:]}
        assert actions == {"GetAuthorizationToken", "BatchGetImage"}
