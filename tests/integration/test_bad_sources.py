"""Sources that are bad, each in a whole push: one clear line, other images go on, no tag is set."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import boto3
import pytest
import yaml
from aiohttp import web
from gate import Answer, Gate, cut, gate_before
from s3proxy import Answer as S3Answer
from s3proxy import Cut, Fault, Proxy, proxy_to, upload
from support import HOST, KEY_ID, REGION, SECRET, Served

from asyncpush import AwsOptions, Pusher, PushItem, PushOptions
from asyncpush.engine.journal import NoJournal, open_journal
from asyncpush.engine.results import ImageResult, ImageStatus, PushReport
from asyncpush.job.load import load_job
from asyncpush.oci.layout import Layout, read_manifest
from asyncpush.plan.items import Item

pytestmark = pytest.mark.anyio
REPOSITORY = "team/app"
GOOD = "service-01"
BAD = "service-02"
BUCKET = "bad-sources"
NO_DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials of whoever runs the tests, and no waits."""
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setattr("asyncpush.sources.patience._BASE_SECONDS", 0.001)
    # Nothing but throttling for so long is a failure.
    monkeypatch.setattr("asyncpush.engine.pace._PATIENCE", 0.0)


@pytest.fixture(scope="module")
def layers(sample: Path) -> list[dict[str, Any]]:
    """The descriptors of its config and layers."""
    layout = Layout(sample)
    (entry,) = [e for e in layout.entries if e.ref_name == BAD]
    manifest = json.loads(read_manifest(layout.find_manifest(entry)))
    return [manifest["config"], *manifest["layers"]]


@pytest.fixture
def target(registry: Served, request: pytest.FixtureRequest) -> Iterator[str]:
    """An ECR repository that must stay without tags."""
    name = f"bad/{abs(hash(request.node.name))}"
    yield registry.create(name)
    assert registry.digests(name) == {}


async def pushed(
    registry: Served, items: Iterable[Item], journal: NoJournal | None = None, **options: Any
) -> PushReport:
    aws = AwsOptions(access_key_id=KEY_ID, secret_access_key=SECRET, endpoint_url=registry.url)
    settings = {"aws": aws, "retry_base": 0.0, "attempts": 2, **options}
    with anyio.fail_after(50):
        async with Pusher(PushOptions(**settings)) as pusher:
            return await pusher.push(items, journal)


def the_failure(report: PushReport, *words: str) -> ImageResult:
    """The one image that failed, while others arrived; its error has these words in one line."""
    assert report.complete
    assert report.count(ImageStatus.PUSHED) + report.count(ImageStatus.EXISTS) > 0
    (image,) = report.failed
    line = str(image.error)
    assert "\n" not in line
    assert image.error is not None
    assert image.error.advice, line
    for word in words:
        assert word in line, line
    return image


def _problem(status: int, code: str) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": "no"}]}, status=status)


def blobs(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Answer:
    async def reply(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        return await answer(request) if "/blobs/" in request.path else None

    return reply


def manifests(method: str, answer: Callable[[web.Request, web.Response], web.Response]) -> Answer:
    """Replaces the registry's own answer to a method on manifests."""

    async def reply(request: web.Request, gate: Gate) -> web.StreamResponse | None:
        if request.method != method or "/manifests/" not in request.path:
            return None
        return answer(request, await gate.fetch(request))

    return reply


async def _gone(request: web.Request) -> web.StreamResponse:
    return _problem(404, "BLOB_UNKNOWN")


async def _denied(request: web.Request) -> web.StreamResponse:
    return _problem(403, "DENIED")


async def _throttled(request: web.Request) -> web.StreamResponse:
    return web.Response(status=429)


async def _nothing(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _wrong(layers: list[dict[str, Any]], more: int = 0) -> Answer:
    """Other bytes than a layer's digest, or of another size."""
    sizes = {layer["digest"]: layer["size"] for layer in layers}

    async def answer(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        size = sizes.get(request.path.rpartition("/")[2])
        return None if size is None else web.Response(body=bytes(size + more))

    return answer


def _vanishing(layers: list[dict[str, Any]]) -> Answer:
    """Promises a layer, and sends nothing of it."""
    sizes = {layer["digest"]: layer["size"] for layer in layers}

    async def answer(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        size = sizes.get(request.path.rpartition("/")[2])
        return None if size is None else await cut(request, size, 0)

    return answer


def _schema_1(_request: web.Request, answer: web.Response) -> web.Response:
    answer.headers["Content-Type"] = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    return answer


def _changed(_request: web.Request, answer: web.Response) -> web.Response:
    body = answer.body
    assert isinstance(body, bytes)
    return web.Response(body=body.replace(b"{", b"{ ", 1), content_type=answer.content_type or "")


def _deleted(_request: web.Request, _answer: web.Response) -> web.Response:
    return _problem(404, "MANIFEST_UNKNOWN")


FAULTS: dict[str, tuple[Callable[[list[dict[str, Any]]], Answer], str, str]] = {
    "blob gone": (lambda _: blobs(_gone), "blob-missing", "the source"),
    "blobs denied": (lambda _: blobs(_denied), "access-denied", "docker login"),
    "blobs throttled": (lambda _: blobs(_throttled), "source", "GET blob"),
    "vanishes in a blob": (_vanishing, "source", "GET blob"),
    "vanishes before a blob": (lambda _: blobs(_nothing), "source", "GET blob"),
    "other bytes": (_wrong, "digest-mismatch", "sha256:"),
    "more bytes": (lambda layers: _wrong(layers, 7), "digest-mismatch", "sha256:"),
    "fewer bytes": (lambda layers: _wrong(layers, -7), "digest-mismatch", "sha256:"),
    "schema 1": (lambda _: manifests("HEAD", _schema_1), "manifest", "docker pull and docker push"),
    "manifest deleted after the plan": (
        lambda _: manifests("GET", _deleted),
        "source-not-found",
        "sha256:",
    ),
    "manifest changed after the plan": (
        lambda _: manifests("GET", _changed),
        "digest-mismatch",
        "sha256:",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("transport", ["native", "distribution"])
async def test_a_bad_image_fails_alone(
    source: str,
    docker_registry: str,
    registry: Served,
    target: str,
    layers: list[dict[str, Any]],
    fault: str,
    transport: str,
) -> None:
    make, kind, words = FAULTS[fault]
    async with gate_before(source, make(layers)) as gate:
        bad = f"docker://{gate.address}/{REPOSITORY}:{BAD}"
        good = f"docker://{source}/{REPOSITORY}:{GOOD}"
        items = [PushItem(bad, target), PushItem(good, f"docker://{docker_registry}/good/app")]
        report = await pushed(registry, items, transport=transport)
    image = the_failure(report, words, f"docker://{gate.address}/{REPOSITORY}")
    assert image.error is not None
    assert image.error.kind == kind, image.error
    if "blob" in fault or "bytes" in fault:
        assert any(str(layer["digest"]) in str(image.error) for layer in layers)


async def test_a_layer_that_another_source_has_too_is_read_there(
    source: str, docker_registry: str, registry: Served, layers: list[dict[str, Any]]
) -> None:
    targets = [registry.create("either/bad"), f"docker://{docker_registry}/either/good"]
    async with gate_before(source, _wrong(layers)) as gate:
        bad = f"docker://{gate.address}/{REPOSITORY}:{BAD}"
        items = [PushItem(bad, targets[0]), PushItem(f"docker://{source}/{REPOSITORY}", targets[1])]
        report = await pushed(registry, items)
        assert gate.count("GET", "/blobs/") > 0
    assert report.ok, [str(image.error) for image in report.failed]


@pytest.mark.parametrize("transport", ["native", "distribution"])
async def test_a_source_that_is_mended_is_not_spoiled_by_what_was_sent_before(
    source: str,
    registry: Served,
    tmp_path: Path,
    layers: list[dict[str, Any]],
    transport: str,
) -> None:
    target = registry.create(f"mended/{transport}")
    async with gate_before(source, _wrong(layers)) as gate:
        items = [PushItem(f"docker://{gate.address}/{REPOSITORY}:{BAD}", target)]
        async with open_journal(tmp_path / "journal", "job", "job") as journal:
            report = await pushed(registry, items, journal, transport=transport)
        assert [image.error.kind for image in report.failed if image.error] == ["digest-mismatch"]
        gate.answer = None
        async with open_journal(tmp_path / "journal", "job", "job") as journal:
            report = await pushed(registry, items, journal, transport=transport)
    assert report.ok, [str(image.error) for image in report.failed]


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (f"{REPOSITORY}:nope", "there is no tag nope in the source repository"),
        (f"{REPOSITORY}@{NO_DIGEST}", f"there is no manifest {NO_DIGEST}"),
        ("team/missing", "does not exist"),
    ],
)
async def test_what_is_not_in_a_registry_fails_alone(
    source: str, docker_registry: str, registry: Served, target: str, reference: str, words: str
) -> None:
    items = [
        PushItem(f"docker://{source}/{reference}", target),
        PushItem(f"docker://{source}/{REPOSITORY}:{GOOD}", f"docker://{docker_registry}/good/app"),
    ]
    report = await pushed(registry, items)
    the_failure(report, words, f"docker://{source}/{reference.partition(':')[0].split('@')[0]}")


async def test_credentials_that_one_source_does_not_take(
    source: str, docker_registry: str, registry: Served, target: str
) -> None:
    async def private(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})

    async with gate_before(source, private) as gate:
        items = [
            PushItem(f"docker://{gate.address}/{REPOSITORY}:{BAD}", target),
            PushItem(
                f"docker://{source}/{REPOSITORY}:{GOOD}", f"docker://{docker_registry}/good/app"
            ),
        ]
        report = await pushed(registry, items)
        image = the_failure(report, gate.address, "docker login")
    assert image.error is not None
    assert image.error.kind == "credentials"


def job_of(folder: Path, *sources: dict[str, Any]) -> Iterable[Item]:
    """Items of a job into the shared ECR."""
    path = folder / "job.yaml"
    job = {
        "version": 1,
        "registries": [{"hosts": [HOST]}],
        "sources": list(sources),
        "targets": [{"repository": f"chosen-{folder.name}/{{source.repository}}"}],
    }
    path.write_text(yaml.safe_dump(job))
    return load_job(path, {}, {}).items()


async def _loops(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
    if not request.path.endswith("/_catalog"):
        return None
    page = 1 - int(request.query.get("page", "0"))
    headers = {"Link": f'</v2/_catalog?page={page}>; rel="next"'}
    return web.json_response({"repositories": [f"team/a{page}"]}, headers=headers)


async def _endless(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
    if not request.path.endswith("/_catalog"):
        return None
    page = int(request.query.get("page", "0")) + 1
    headers = {"Link": f'</v2/_catalog?page={page}>; rel="next"'}
    return web.json_response({"repositories": []}, headers=headers)


def _catalog(status: int) -> Answer:
    async def answer(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
        return web.Response(status=status) if request.path.endswith("/_catalog") else None

    return answer


async def _through(request: web.Request, _gate: Gate) -> web.StreamResponse | None:
    return None


@pytest.mark.parametrize(
    ("answer", "pattern", "words"),
    [
        (_through, "nothing/*", ("no repository matches the pattern", "** crosses them")),
        (_catalog(404), "team/*", ("GET catalog", "name the repositories one by one")),
        (_catalog(401), "team/*", ("GET catalog", "name the repositories one by one")),
        (_catalog(403), "team/*", ("GET catalog", "name the repositories one by one")),
        (_loops, "team/*", ("leads back",)),
        (_endless, "team/*", ("does not end",)),
    ],
)
async def test_a_pattern_that_finds_nothing_fails_alone(
    source: str,
    registry: Served,
    tmp_path: Path,
    answer: Answer,
    pattern: str,
    words: tuple[str, ...],
) -> None:
    registry.create(f"chosen-{tmp_path.name}/{REPOSITORY}")
    async with gate_before(source, answer) as gate:
        items = job_of(
            tmp_path,
            {"images": f"docker://{gate.address}/{pattern}"},
            {"images": f"docker://{source}/{REPOSITORY}:{GOOD}"},
        )
        report = await pushed(registry, items)
        the_failure(report, gate.address, *words)
        assert len(gate.requests) < 200


@pytest.fixture(scope="module")
def bucket(moto: str, sample: Path) -> Any:
    """The sample in S3, as a layout."""
    client = boto3.client(
        "s3",
        region_name=REGION,
        endpoint_url=moto,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    upload(client, BUCKET, sample, "layout")
    return client


@pytest.fixture
def s3(moto: str, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy_to(moto) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        yield proxy


def on_blobs(answer: S3Answer | Cut) -> Fault:
    return lambda r: answer if "blobs/" in r.path and "range" in r.headers else None


def on(answer: S3Answer | Cut, part: str) -> Fault:
    return lambda r: answer if part in r.path else None


class _Zeros(S3Answer):
    @property
    def body(self) -> bytes:
        return bytes(10)


S3_FAULTS: dict[str, tuple[Fault, str, tuple[str, ...]]] = {
    "no such layout": (
        on(S3Answer(404, "NoSuchKey"), "oci-layout"),
        "layout",
        ("there is no OCI layout",),
    ),
    "denied": (
        on(S3Answer(403, "AccessDenied"), "oci-layout"),
        "access-denied",
        ("GetObject", "s3:GetObject"),
    ),
    "another Region": (
        on(S3Answer(400, "IllegalLocationConstraintException", {}), "oci-layout"),
        "registry",
        ("another Region", "AWS_REGION"),
    ),
    "blob missing": (on_blobs(S3Answer(404, "NoSuchKey")), "blob-missing", ("GetObject",)),
    "blobs denied": (on_blobs(S3Answer(403, "AccessDenied")), "access-denied", ("s3:GetObject",)),
    "throttled": (on_blobs(S3Answer(503, "SlowDown")), "source", ("GetObject", "fewer")),
    "vanishes": (on_blobs(Cut(0)), "source", ("GetObject",)),
    "replaced": (on_blobs(S3Answer(412, "PreconditionFailed")), "content", ("changed",)),
    "not what was asked": (on_blobs(_Zeros(200)), "content", ("range",)),
}


@pytest.mark.parametrize("fault", S3_FAULTS)
async def test_what_is_bad_in_s3_fails_alone(
    s3: Proxy, source: str, docker_registry: str, registry: Served, target: str, fault: str
) -> None:
    s3.fault, kind, words = S3_FAULTS[fault]
    items = [
        PushItem(f"s3://{BUCKET}/layout:{BAD}", target),
        PushItem(f"docker://{source}/{REPOSITORY}:{GOOD}", f"docker://{docker_registry}/good/app"),
    ]
    report = await pushed(registry, items)
    image = the_failure(report, f"s3://{BUCKET}/layout", *words)
    assert image.error is not None
    assert image.error.kind == kind, image.error


async def test_an_object_that_is_damaged_fails_alone(
    s3: Proxy,
    bucket: Any,
    sample: Path,
    source: str,
    docker_registry: str,
    registry: Served,
    target: str,
    layers: list[dict[str, Any]],
) -> None:
    layer = layers[-1]
    key = f"damaged/blobs/{layer['digest'].replace(':', '/')}"

    def damage() -> None:
        upload(bucket, BUCKET, sample, "damaged")
        bucket.put_object(Bucket=BUCKET, Key=key, Body=bytes(layer["size"]))

    await anyio.to_thread.run_sync(damage)
    items = [
        PushItem(f"s3://{BUCKET}/damaged:{BAD}", target),
        PushItem(f"docker://{source}/{REPOSITORY}:{GOOD}", f"docker://{docker_registry}/good/app"),
    ]
    report = await pushed(registry, items)
    image = the_failure(report, f"s3://{BUCKET}/damaged", layer["digest"])
    assert image.error is not None
    assert image.error.kind == "digest-mismatch"
