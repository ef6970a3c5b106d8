"""Repositories of registries as sources, against Debian's docker-registry and the local one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from aiohttp import web
from gate import Answer, Gate, cut, gate_before
from support import HOST, Served, asyncpush, environment, error_lines, serve

from asyncpush import Pusher, PushItem, PushOptions
from asyncpush.engine.results import ImageResult, PushReport
from asyncpush.oci.layout import Layout

pytestmark = pytest.mark.anyio
NOWHERE = {"DOCKER_CONFIG": "/nonexistent"}
REPOSITORY = "team/app"


def env_of(registry: Served | None = None) -> dict[str, str]:
    env = environment(registry.url if registry else None, *(() if registry else ("",)))
    env.pop("REGISTRY_AUTH_FILE", None)
    return env | NOWHERE


def names(layout: Path) -> dict[str, str]:
    return {entry.ref_name or "": entry.digest for entry in Layout(layout).entries}


async def push(
    source: str, target: str, monkeypatch: pytest.MonkeyPatch, **options: object
) -> PushReport:
    """Push in this process; retries do not wait."""
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    settings = {"retry_base": 0.0, "attempts": 3, **options}
    with anyio.fail_after(50):
        async with Pusher(PushOptions(**settings)) as pusher:  # type: ignore[arg-type]
            return await pusher.push([PushItem(source, target)])


def failures(report: PushReport) -> dict[str, str]:
    """The errors of what failed, by name; a failure without one fails the test."""
    return {image.name: str(image.error) for image in report.failed}


def the_failure(report: PushReport) -> ImageResult:
    (image,) = report.failed
    assert image.error is not None
    return image


async def test_all_tags_go_with_one_head_each_and_one_get_for_each_manifest(
    source: str, sample: Path, docker_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gate_before(source) as gate:
        report = await push(
            f"docker://{gate.address}/{REPOSITORY}",
            f"docker://{docker_registry}/all/app",
            monkeypatch,
        )
        assert report.ok, failures(report)
        tags = {image.reference.rpartition(":")[2]: image.digest for image in report.images}
        # docker-registry has no referrers API, so that there is one more tag.
        assert names(sample).items() <= tags.items()
        assert gate.count("HEAD", "/manifests/") == len(report.images)
        assert gate.count("GET", "/tags/list") == 1
        fetched = Counter(path for method, path in gate.requests if method == "GET")
        assert [path for path, times in fetched.items() if times > 1] == []
        assert all("sha256:" in path for path in fetched if "/manifests/" in path)
        done = await anyio.to_thread.run_sync(
            lambda: asyncpush(
                "verify", sample, f"docker://{docker_registry}/all/app", "--deep", env=env_of()
            )
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("transport", ["native", "distribution", "auto"])
def test_ecr_takes_what_another_registry_has(
    source: str, sample: Path, registry: Served, transport: str
) -> None:
    target = registry.create(f"from-docker-{transport}")
    command = ["copy", f"docker://{source}/{REPOSITORY}", target, "--transport", transport]
    done = asyncpush(*command, "--verify", env=env_of(registry))
    assert done.returncode == 0, done.stderr
    assert names(sample).items() <= registry.digests(f"from-docker-{transport}").items()


def test_ecr_is_a_source_by_host_and_by_arn(
    registry: Served, sample: Path, docker_registry: str
) -> None:
    host = registry.create("source")
    done = asyncpush("push", sample, host, env=env_of(registry))
    assert done.returncode == 0, done.stderr
    account, region = HOST.split(".")[0], HOST.split(".")[3]
    target = f"docker://{docker_registry}/from-ecr"
    done = asyncpush("push", host, target, "--verify", env=env_of(registry))
    assert done.returncode == 0, done.stderr
    assert "15 images: 15 pushed" in done.stdout
    arn = f"arn:aws:ecr:{region}:{account}:repository/source"
    digest = names(sample)["gateway"]
    command = ["push", f"{arn}:service-02", f"docker://{host}@{digest}", target, "--json"]
    done = asyncpush(*command, env=env_of(registry))
    assert done.returncode == 0, done.stderr
    found = {image["reference"] for image in json.loads(done.stdout)["images"]}
    place = target.removeprefix("docker://")
    assert found == {f"{place}:service-02", f"{place}@{digest}"}


def test_a_path_of_that_name_wins(
    sample: Path, docker_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / HOST).mkdir()
    (tmp_path / HOST / "app").symlink_to(sample)
    monkeypatch.chdir(tmp_path)
    done = asyncpush("inspect", f"{HOST}/app:gateway", env=env_of())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{HOST}/app\n")


def test_a_tag_may_be_pinned_to_a_digest(source: str, sample: Path, docker_registry: str) -> None:
    digest = names(sample)["service-02"]
    text = f"docker://{source}/{REPOSITORY}:service-01@{digest}"
    done = asyncpush("push", text, f"docker://{docker_registry}/pinned", "--json", env=env_of())
    assert done.returncode == 0, done.stderr
    (image,) = json.loads(done.stdout)["images"]
    assert image["reference"].endswith("/pinned:service-01")
    assert image["digest"] == digest


def test_every_command_takes_registries_as_sources(
    source: str, sample: Path, docker_registry: str, tmp_path: Path
) -> None:
    text, env = f"docker://{source}/{REPOSITORY}", env_of()
    shown = asyncpush("inspect", text, "--json", env=env)
    assert shown.returncode == 0, shown.stderr
    document = json.loads(shown.stdout)
    assert {entry["name"]: entry["digest"] for entry in document["entries"]}.items() >= names(
        sample
    ).items()
    assert document["totals"]["bytes"] > 30 * 2**20
    job = tmp_path / "job.yaml"
    job.write_text(
        json.dumps(
            {
                "version": 1,
                "registries": [{"hosts": [f"docker://{docker_registry}"]}],
                "sources": [
                    {"images": text, "tags": {"exclude": ["sha256-*"]}},
                    {"images": f"{text}:gateway"},
                ],
                "targets": [{"repository": "job/{directory}", "tags": ["{tag}"]}],
            }
        )
    )
    planned = asyncpush("plan", job, "--json", env=env)
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["bytes"] > 0
    told = asyncpush("iam", "policy", "--job", job, env=env)
    assert "127.0.0.1" in told.stdout + told.stderr, told.stderr
    checked = asyncpush("check", job, "--json", env=env)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = asyncpush("run", job, "--atomic", "--verify", env=env)
    assert done.returncode == 0, done.stderr
    assert "16 images" in done.stdout
    target = f"docker://{docker_registry}/job/app"
    assert asyncpush("verify", text + ":gateway", target, "--deep", env=env).returncode == 0
    dry = asyncpush("push", text, target, "--dry-run", "--json", env=env)
    assert dry.returncode == 0, dry.stderr
    one = asyncpush("check", target, "--source", text, "--json", env=env)
    assert one.returncode == 0, one.stdout


Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


def faulty(times: int, fault: Fault) -> Answer:
    """Answers the first requests of each path with a fault."""
    seen: Counter[str] = Counter()

    async def answer(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        key = f"{request.method} {request.path}"
        seen[key] += 1
        return await fault(request) if seen[key] <= times else None

    return answer


async def _throttled(_request: web.Request) -> web.StreamResponse:
    return web.json_response({}, status=429, headers={"Retry-After": "0"})


async def _failing(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=503)


async def _cut(request: web.Request) -> web.StreamResponse | None:
    # Blobs are read on where they broke; that is for another test.
    return await cut(request) if request.method == "GET" and "/blobs/" not in request.path else None


@pytest.mark.parametrize("fault", [_throttled, _failing, _cut])
async def test_what_may_pass_is_tried_again(
    source: str,
    docker_registry: str,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    async with gate_before(source, faulty(1, fault)) as gate:
        report = await push(
            f"docker://{gate.address}/{REPOSITORY}",
            f"docker://{docker_registry}/fault{fault.__name__}",
            monkeypatch,
        )
        assert report.ok, failures(report)
        assert report.retries + report.throttles >= len(report.images)
        assert (report.throttles > 0) == (fault is _throttled)


def _problem(status: int, code: str, message: str = "no") -> web.Response:
    errors = {"errors": [{"code": code, "message": message}]}
    return web.json_response(errors, status=status)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (_problem(403, "DENIED"), "access-denied", "docker login"),
        (_problem(401, "UNAUTHORIZED"), "credentials", "docker login"),
        (_problem(404, "NAME_UNKNOWN"), "source-not-found", "does not exist"),
        (_problem(418, "TEAPOT", "short and stout"), "registry", "short and stout"),
        (web.Response(text="<html>"), "registry", "no JSON object"),
        (web.json_response({"tags": "v1"}), "registry", "no list of tags"),
        (web.json_response({"tags": None}), "source-not-found", "has no tags"),
        (web.json_response({"tags": ["../../etc"]}), "registry", "which is no tag"),
    ],
)
async def test_what_a_list_of_tags_may_answer_is_one_error(
    source: str,
    docker_registry: str,
    monkeypatch: pytest.MonkeyPatch,
    answer: web.Response,
    kind: str,
    words: str,
) -> None:
    async def reply(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        if not request.path.endswith("/tags/list"):
            return None
        return web.Response(
            status=answer.status, body=answer.body, content_type=answer.content_type
        )

    async with gate_before(source, reply) as gate:
        text = f"docker://{gate.address}/{REPOSITORY}"
        report = await push(text, f"docker://{docker_registry}/no", monkeypatch)
        image = the_failure(report)
        assert image.name == text
        assert image.error is not None
        assert image.error.kind == kind
        assert words in str(image.error)
        assert text in str(image.error)


@pytest.mark.parametrize("loop", ["back", "on", "empty"])
async def test_a_list_that_never_ends_is_given_up(
    source: str, docker_registry: str, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    async def reply(request: web.Request, gate: Gate) -> web.StreamResponse | None:
        if not request.path.endswith("/tags/list"):
            return None
        number = int(request.query.get("page", "0"))
        following = 1 - number if loop == "back" else number + 1
        tags = {"back": [f"v{number}"], "on": ["v1", "v2"], "empty": []}[loop]
        link = f'<http://elsewhere.example{request.path}?page={following}>; rel="next"'
        return web.json_response({"tags": tags}, headers={"Link": link})

    async with gate_before(source, reply) as gate:
        text = f"docker://{gate.address}/{REPOSITORY}"
        report = await push(text, f"docker://{docker_registry}/no", monkeypatch)
        words = "does not end" if loop == "empty" else "leads back"
        assert words in str(the_failure(report).error)
        assert len(gate.requests) < 200


async def test_a_list_of_ever_more_tags_is_given_up(
    source: str, docker_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reply(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        if not request.path.endswith("/tags/list"):
            return None
        number = int(request.query.get("page", "0")) + 1
        tags = [f"v{number}-{i}" for i in range(10)]
        link = f'<{request.path}?page={number}>; rel="next"'
        return web.json_response({"tags": tags}, headers={"Link": link})

    monkeypatch.setattr("asyncpush.sources.opener._MOST_TAGS", 100)
    async with gate_before(source, reply) as gate:
        text = f"docker://{gate.address}/{REPOSITORY}"
        report = await push(text, f"docker://{docker_registry}/no", monkeypatch)
        assert "more than 100 tags" in str(the_failure(report).error)
        assert len(gate.requests) < 20


async def test_lists_come_in_pages(
    source: str, sample: Path, docker_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reply(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        if not request.path.endswith("/tags/list"):
            return None
        every = sorted(names(sample))
        last = request.query.get("last")
        begin = every.index(last) + 1 if last else 0
        page = every[begin : begin + 4]
        headers = {}
        if begin + 4 < len(every):
            headers["Link"] = f'<{request.path}?n=4&last={page[-1]}>; rel="next"'
        return web.json_response({"tags": page}, headers=headers)

    async with gate_before(source, reply) as gate:
        report = await push(
            f"docker://{gate.address}/{REPOSITORY}",
            f"docker://{docker_registry}/pages",
            monkeypatch,
        )
        assert report.ok, failures(report)
        assert {image.name for image in report.images} == set(names(sample))
        assert gate.count("GET", "/tags/list") == 4


def manifests(
    change: Callable[[web.Request, web.Response], web.Response | None], *methods: str
) -> Answer:
    """Changes what is answered of manifests."""

    async def answer(request: web.Request, gate: Gate) -> web.StreamResponse | None:
        if "/manifests/" not in request.path or request.method not in methods:
            return None
        return change(request, await gate.fetch(request))

    return answer


def _without(*headers: str) -> Callable[[web.Request, web.Response], web.Response]:
    def change(_request: web.Request, answer: web.Response) -> web.Response:
        for header in headers:
            answer.headers.popall(header, None)
        return answer

    return change


def _not_allowed(_request: web.Request, _answer: web.Response) -> web.Response:
    return web.Response(status=405)


def _plain(_request: web.Request, answer: web.Response) -> web.Response:
    answer.headers["Content-Type"] = "text/plain; charset=utf-8"
    return answer


@pytest.mark.parametrize(
    "answer",
    [
        manifests(_without("Docker-Content-Digest"), "HEAD", "GET"),
        manifests(_without("Docker-Content-Digest", "Content-Type"), "HEAD", "GET"),
        manifests(_not_allowed, "HEAD"),
        manifests(_plain, "HEAD", "GET"),
    ],
    ids=["no digest", "nothing at all", "no HEAD", "another type"],
)
async def test_registries_that_say_little_are_asked_by_get(
    source: str,
    sample: Path,
    docker_registry: str,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    request: pytest.FixtureRequest,
) -> None:
    async with gate_before(source, answer) as gate:
        name = request.node.callspec.id.replace(" ", "-").lower()
        report = await push(
            f"docker://{gate.address}/{REPOSITORY}",
            f"docker://{docker_registry}/little/{name}",
            monkeypatch,
        )
        assert report.ok, failures(report)
        pushed = {image.name: image.digest for image in report.images}
        assert names(sample).items() <= pushed.items()
        # What was fetched by its tag is not fetched again by its digest.
        tags = len(report.images)
        assert gate.count("HEAD", "/manifests/") == tags
        assert gate.count("GET", "/manifests/") <= tags + 3


def _wrong_bytes(_request: web.Request, answer: web.Response) -> web.Response:
    assert isinstance(answer.body, bytes)
    answer.body = answer.body[:-1] + b"?"
    return answer


def _wrong_size(_request: web.Request, answer: web.Response) -> web.Response:
    assert isinstance(answer.body, bytes)
    answer.body = answer.body + b" "
    return answer


def _huge(_request: web.Request, _answer: web.Response) -> web.Response:
    return web.Response(body=bytes(5 * 2**20))


def _other_digest(_request: web.Request, answer: web.Response) -> web.Response:
    answer.headers["Docker-Content-Digest"] = "sha256:" + "1" * 64
    return answer


def _gone(_request: web.Request, _answer: web.Response) -> web.Response:
    return _problem(404, "MANIFEST_UNKNOWN", "manifest unknown")


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (_wrong_bytes, "digest-mismatch", "has the digest"),
        (_wrong_size, "digest-mismatch", "has the digest"),
        (_other_digest, "digest-mismatch", "answers with the manifest sha256:1111"),
        (_huge, "limit", "more than 4194304 bytes"),
        (_gone, "source-not-found", "does not have it"),
    ],
)
async def test_a_manifest_that_is_not_what_it_was_said_to_be_fails_alone(
    source: str,
    docker_registry: str,
    monkeypatch: pytest.MonkeyPatch,
    sample: Path,
    change: Callable[[web.Request, web.Response], web.Response],
    kind: str,
    words: str,
) -> None:
    bad = names(sample)["service-05"]

    def only(request: web.Request, answer: web.Response) -> web.Response | None:
        return change(request, answer) if request.path.endswith(bad) else None

    async with gate_before(source, manifests(only, "GET")) as gate:
        report = await push(
            f"docker://{gate.address}/{REPOSITORY}",
            f"docker://{docker_registry}/bad/{change.__name__.strip('_')}",
            monkeypatch,
        )
        image = the_failure(report)
        assert image.name == "service-05"
        assert image.error is not None
        assert (image.error.kind, image.error.where["source"]) == (
            kind,
            f"docker://{gate.address}/{REPOSITORY}@{bad}",
        )
        assert words in str(image.error)
        assert len(report.images) > 10


async def test_a_tag_that_fails_fails_alone(
    source: str, docker_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reply(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        schema_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
        if request.path.endswith("/service-01"):
            return web.Response(status=404)
        if request.path.endswith("/service-02"):
            return web.Response(headers={"Content-Type": schema_1}, body=b"{}")
        if request.path.endswith("/service-03"):
            return web.Response(headers={"Docker-Content-Digest": "md5:1"}, body=b"{}")
        return None

    async with gate_before(source, reply) as gate:
        report = await push(
            f"docker://{gate.address}/{REPOSITORY}",
            f"docker://{docker_registry}/alone",
            monkeypatch,
        )
        failed = failures(report)
        assert set(failed) == {"service-01", "service-02", "service-03"}
        assert "there is no tag service-01" in failed["service-01"]
        assert "schema 1" in failed["service-02"]
        assert "docker pull and docker push" in failed["service-02"]
        assert "digest" in failed["service-03"]
        assert all(gate.address in text for text in failed.values())
        assert not any(digest.startswith("md5") for digest in failed.values())


async def test_what_says_nothing_of_itself_is_refused(
    source: str, docker_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reply(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        return web.json_response({}) if "/manifests/" in request.path else None

    async with gate_before(source, reply) as gate:
        text = f"docker://{gate.address}/{REPOSITORY}:gateway"
        report = await push(text, f"docker://{docker_registry}/what", monkeypatch)
        error = the_failure(report).error
        assert error is not None
        assert error.kind == "manifest"
        assert "nor the document says what it is" in str(error)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (f"{REPOSITORY}:nope", "there is no tag nope in the source repository"),
        (f"{REPOSITORY}@sha256:{'0' * 64}", "there is no manifest sha256:000"),
        ("team/missing", "does not exist"),
        ("team/missing:v1", "does not exist"),
    ],
)
async def test_what_is_not_there_is_one_line(
    source: str,
    docker_registry: str,
    monkeypatch: pytest.MonkeyPatch,
    reference: str,
    words: str,
) -> None:
    text = f"docker://{source}/{reference}"
    report = await push(text, f"docker://{docker_registry}/no", monkeypatch)
    error = the_failure(report).error
    assert error is not None
    assert error.kind == "source-not-found"
    assert words in str(error)
    if reference.endswith("nope"):
        assert "service-01" in error.advice


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("docker://host", "names no repository"),
        ("docker://user:secret@host/app", "without name and password"),
        ("docker://host/App", "takes no repository named 'App'"),
        ("docker://host/app:", "takes no tag ''"),
        ("docker://host/app@sha256:1", "64 lower-case hex digits"),
    ],
)
async def test_a_reference_that_is_none_is_one_line(
    docker_registry: str, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    report = await push(text, f"docker://{docker_registry}/no", monkeypatch)
    error = the_failure(report).error
    assert error is not None
    assert error.kind == "invalid-reference"
    assert words in str(error)
    assert "secret" not in str(error)


async def test_two_images_of_an_index_are_fetched_at_once_and_one_that_is_missing_is_named(
    source: str, docker_registry: str, monkeypatch: pytest.MonkeyPatch, sample: Path
) -> None:
    index = json.loads(
        (sample / "blobs/sha256" / names(sample)["gateway"].partition(":")[2]).read_bytes()
    )
    child = index["manifests"][0]["digest"]

    def only(request: web.Request, _answer: web.Response) -> web.Response | None:
        return web.Response(status=404) if request.path.endswith(child) else None

    async with gate_before(source, manifests(only, "GET", "HEAD")) as gate:
        text = f"docker://{gate.address}/{REPOSITORY}:gateway"
        report = await push(text, f"docker://{docker_registry}/half", monkeypatch)
        error = the_failure(report).error
        assert error is not None
        assert error.kind == "blob-missing"
        assert child in str(error)


def test_sources_have_credentials_of_their_own(sample: Path, tmp_path: Path) -> None:
    other = "444455556666"
    theirs = {"access_key_id": "AKIDOFTHEOTHERONE000", "secret_access_key": "x" * 40}
    with serve(tmp_path / "registry", [{**theirs, "account": other}]) as served:
        config = tmp_path / "config"
        config.write_text(
            f"[profile other]\naws_access_key_id = {theirs['access_key_id']}\n"
            f"aws_secret_access_key = {theirs['secret_access_key']}\n"
        )
        env = env_of(served) | {"AWS_CONFIG_FILE": str(config)}
        source = f"{other}.dkr.ecr.eu-central-1.amazonaws.com/from"
        done = asyncpush(
            "push", sample, source, "--profile", "other", "--create-repositories", env=env
        )
        assert done.returncode == 0, done.stderr
        command = ["copy", f"{source}:gateway", served.create("to")]
        refused = asyncpush(*command, env=env)
        assert refused.returncode == 1
        (line,) = error_lines(refused)
        assert f"docker://{source}" in line
        done = asyncpush(*command, "--source-profile", "other", env=env)
        assert done.returncode == 0, done.stderr
        assert served.digests("to") == {"gateway": names(sample)["gateway"]}


async def test_discovery_ends_when_it_is_cancelled(
    source: str, docker_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = anyio.Event()

    async def reply(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        if request.method == "HEAD":
            stuck.set()
            await anyio.sleep(30)
        return None

    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    async with gate_before(source, reply) as gate, Pusher(PushOptions()) as pusher:
        item = PushItem(f"docker://{gate.address}/{REPOSITORY}", f"docker://{docker_registry}/x")
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pusher.push, [item])
                await stuck.wait()
                tasks.cancel_scope.cancel()
        assert tasks.cancel_scope.cancelled_caught
        gate.answer = None
        # And the same pusher goes on.
        assert (await pusher.push([item])).ok


async def test_a_pusher_sees_what_a_tag_has_become(
    source: str, sample: Path, docker_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = ["service-01"]

    async def reply(request: web.Request, gate: Gate) -> web.StreamResponse | None:
        if not request.path.endswith("/manifests/moving"):
            return None
        url = f"http://{source}/v2/{REPOSITORY}/manifests/{asked[0]}"
        headers = {"Accept": request.headers["Accept"]}
        async with gate.session.request(request.method, url, headers=headers) as answer:
            kept = ("Content-Type", "Docker-Content-Digest", "Content-Length")
            return web.Response(headers={k: answer.headers[k] for k in kept})

    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    async with gate_before(source, reply) as gate, Pusher(PushOptions()) as pusher:
        text = f"docker://{gate.address}/{REPOSITORY}:moving"
        target = f"docker://{docker_registry}/moving"
        for name in ("service-01", "service-02"):
            asked[:] = [name]
            report = await pusher.push([PushItem(text, target)])
            assert report.ok, failures(report)
            assert [image.digest for image in report.images] == [names(sample)[name]]
