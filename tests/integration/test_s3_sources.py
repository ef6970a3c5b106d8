"""Layouts and archives in moto's S3: planned as on disk, read by ranges, every fault one line."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import boto3
import pytest
from s3proxy import Answer, Cut, Fault, Proxy, Request, proxy_to, upload
from support import HOST, REGION
from tarfiles import archive_of, docker_save

from asyncpush.errors import (
    AccessDeniedError,
    AsyncpushError,
    BlobMissingError,
    ClockError,
    ContentError,
    CredentialsError,
    DigestMismatchError,
    LayoutError,
    LimitError,
    RegistryError,
    SourceNotFoundError,
    TemporarySpaceError,
    ThrottledError,
    TransientError,
    UsageError,
)
from asyncpush.oci.digest import compute
from asyncpush.oci.layout import BlobData, Content, Layout, read_manifest
from asyncpush.oci.remote import RemoteBlob, RemoteContent
from asyncpush.oci.sample import write_sample
from asyncpush.oci.scratch import Scratch
from asyncpush.plan.graph import Plan
from asyncpush.plan.listing import SourceAccess
from asyncpush.plan.planner import Planner
from asyncpush.plan.reference import AnyRegistry, parse_reference
from asyncpush.plan.referrers import ReferrerSearch
from asyncpush.plan.s3 import parse_s3
from asyncpush.plan.sources import Sources
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.sources.opener import FromThread, Opener
from asyncpush.sources.registry import SourceRegistry
from asyncpush.sources.s3 import S3Archive, S3Layout, open_s3_client, open_s3_source

pytestmark = pytest.mark.anyio
AWS = AwsOptions(access_key_id="AKIDREADER", secret_access_key="key-of-the-reader")
BUCKET = "images"
LAYOUT = f"s3://{BUCKET}/team/layout"
ARCHIVE = f"oci-archive:s3://{BUCKET}/team/app.tar"
T = TypeVar("T")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(
        tmp_path_factory.mktemp("s3") / "layout", images=3, base_bytes=1024 * 1024 + 7
    )


@pytest.fixture(scope="module")
def s3(moto: str) -> Any:
    client = boto3.client(
        "s3",
        region_name=REGION,
        endpoint_url=moto,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    return client


@pytest.fixture(scope="module")
def uploaded(s3: Any, layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample in S3 as a layout and as an archive."""
    upload(s3, BUCKET, layout, "team/layout")
    tar = archive_of(layout, tmp_path_factory.mktemp("tar") / "app.tar")
    s3.put_object(Bucket=BUCKET, Key="team/app.tar", Body=tar.read_bytes())
    s3.put_object(Bucket=BUCKET, Key="team/app.tar.gz", Body=gzip.compress(tar.read_bytes(), 1))
    return layout


@pytest.fixture
def proxy(moto: str, uploaded: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy_to(moto) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("AWS_REGION", REGION)
        monkeypatch.setattr("asyncpush.sources.patience._BASE_SECONDS", 0.001)
        yield proxy


@contextlib.asynccontextmanager
async def opened(text: str, scratch: Scratch | None = None) -> AsyncIterator[Any]:
    async with open_s3_client(AWS) as client:
        yield await open_s3_source(parse_s3(text), client, scratch)


async def on_thread(work: Callable[..., T], *arguments: Any) -> T:
    return await anyio.to_thread.run_sync(work, *arguments)


def plan_of(content: Content) -> Plan:
    planner = Planner()
    repository = parse_reference(f"{HOST}/team/app").repository
    for number, entry in enumerate(content.entries):
        planner.add(content, entry, repository, (f"tag-{number}",))
    return planner.plan


async def bytes_of(blob: Any, offset: int = 0) -> bytes:
    async with blob.origin.read(blob.digest, blob.size, offset) as pieces:
        return b"".join([piece async for piece in pieces])


def once(fault: Answer | Cut, matches: Callable[[Request], bool]) -> Fault:
    left = [fault]
    return lambda request: left.pop() if left and matches(request) else None


def always(answer: Answer | Cut, part: str, method: str = "GET") -> Fault:
    return lambda r: answer if r.method == method and part in r.path else None


def blob_of(content: Any, least: int = 0) -> RemoteBlob:
    """A layer of the sample."""
    graph = next(iter(plan_of(content).repositories.values()))
    source = max(graph.blobs.values(), key=lambda blob: blob.size).source
    assert isinstance(source, RemoteBlob)
    assert source.size >= least
    return source


@pytest.mark.parametrize("text", [LAYOUT, f"{LAYOUT}/", ARCHIVE])
async def test_the_plan_and_the_bytes_are_those_of_the_disk(
    text: str, proxy: Proxy, layout: Path
) -> None:
    async with opened(text) as content:
        plan, expected = await on_thread(plan_of, content), plan_of(Layout(layout))
        assert content.numbered == content.entries
        graph, wanted = (next(iter(p.repositories.values())) for p in (plan, expected))
        assert list(graph.manifests) == list(wanted.manifests)
        assert graph.images == wanted.images
        assert graph.tags == wanted.tags
        for digest, manifest in graph.manifests.items():
            assert isinstance(manifest.source, BlobData)
            assert compute(manifest.source.data) == digest
        assert list(graph.blobs) == list(wanted.blobs)
        for blob in graph.blobs.values():
            assert isinstance(blob.source, RemoteBlob)
            path = Path(wanted.blobs[blob.digest].source.path)
            assert await bytes_of(blob.source) == path.read_bytes()
            half = blob.size // 2
            assert await bytes_of(blob.source, half) == path.read_bytes()[half:]
            assert await bytes_of(blob.source, blob.size) == b""
    gets = [r.headers.get("range") for r in proxy.asked("GET", "blobs/")]
    assert None not in gets[-2 * len(graph.blobs) :] or text == ARCHIVE


async def test_a_layout_costs_a_listing_and_its_manifests(proxy: Proxy, layout: Path) -> None:
    async with opened(LAYOUT) as content:
        graph = next(iter((await on_thread(plan_of, content)).repositories.values()))
        assert len(proxy.asked("GET", "list-type=2")) == 1
        assert not proxy.asked("HEAD")
        # oci-layout, index.json, the listing, and each manifest once.
        assert len(proxy.requests) == 3 + len(graph.manifests)


async def test_manifests_are_fetched_ahead_many_at_once(proxy: Proxy) -> None:
    for text in (LAYOUT, ARCHIVE):
        async with opened(text) as content:
            await content.prefetch(content.entries, nested=True)
            before = len(proxy.requests)
            await on_thread(plan_of, content)
            assert len(proxy.requests) == before


async def test_six_manifests_are_asked_for_side_by_side(proxy: Proxy) -> None:
    together = threading.Barrier(6, timeout=10)

    def wait(request: Request) -> None:
        if "blobs/sha256/" in request.path:
            together.wait()

    async with opened(LAYOUT) as content:
        proxy.fault = wait
        assert len(content.entries) == 6
        await content.prefetch(content.entries, nested=False)
        assert not together.broken
        before = len(proxy.requests)
        for entry in content.entries:
            await on_thread(content.find_manifest, entry)
        assert len(proxy.requests) == before


async def test_a_source_is_one_that_is_fetched_ahead(proxy: Proxy) -> None:
    for text in (LAYOUT, ARCHIVE):
        async with opened(text) as content:
            assert isinstance(content, RemoteContent)
            assert not content.problems


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("denied", [False, True])
async def test_what_a_listing_leaves_out_is_asked_for_alone(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, layout: Path, ahead: bool, denied: bool
) -> None:
    monkeypatch.setattr("asyncpush.sources.s3.bucket.MOST_LISTED", 3)
    monkeypatch.setattr("asyncpush.sources.s3.bucket._PAGE", 3)
    if denied:
        proxy.fault = always(Answer(403, "AccessDenied"), "list-type=2")
    async with opened(LAYOUT) as content:
        assert len(proxy.asked("GET", "list-type=2")) == 1
        if ahead:
            await content.prefetch(content.entries, nested=True)
            before = len(proxy.requests)
        graph = next(iter((await on_thread(plan_of, content)).repositories.values()))
        if ahead:
            assert len(proxy.requests) == before
        heads = [request.path for request in proxy.asked("HEAD")]
        assert len(heads) == len(set(heads)) >= len(graph.blobs) - 3
        expected = next(iter(plan_of(Layout(layout)).repositories.values()))
        assert {d: b.size for d, b in graph.blobs.items()} == {
            d: b.size for d, b in expected.blobs.items()
        }
        assert not await on_thread(content.holds, compute(b"nothing of the sample"))


async def test_a_listing_whose_pages_repeat_is_left(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (
        "<ListBucketResult><IsTruncated>true</IsTruncated>"
        "<NextContinuationToken>same</NextContinuationToken></ListBucketResult>"
    )

    class Page(Answer):
        @property
        def body(self) -> bytes:
            return page.encode()

    proxy.fault = always(Page(200), "list-type=2")
    async with opened(LAYOUT) as content:
        assert len(proxy.asked("GET", "list-type=2")) == 10
        await on_thread(plan_of, content)


async def test_headers_of_an_archive_are_read_ahead(proxy: Proxy) -> None:
    async with opened(ARCHIVE) as content:
        assert isinstance(content, S3Archive)
        size = sum(_length(request) for request in proxy.requests)
        # Five files are longer than what is read ahead, and one read finds the end.
        assert len(proxy.requests) < 10
        assert size < 10 * 256 * 1024
        before = len(proxy.requests)
        blob = await on_thread(blob_of, content, 1024 * 1024)
        assert len(proxy.requests) > before
        assert await bytes_of(blob, blob.size - 3)
        assert _length(proxy.requests[-1]) == 3


def _length(request: Request) -> int:
    first, last = request.headers["range"].removeprefix("bytes=").split("-")
    return int(last) - int(first) + 1


async def test_a_compressed_archive_goes_through_the_temporary_file(
    proxy: Proxy, layout: Path
) -> None:
    async with opened(f"{ARCHIVE}.gz", Scratch()) as content:
        graph = next(iter((await on_thread(plan_of, content)).repositories.values()))
    assert list(graph.blobs) == list(
        next(iter(plan_of(Layout(layout)).repositories.values())).blobs
    )
    with pytest.raises(TemporarySpaceError, match="--temp-space"):
        async with opened(f"{ARCHIVE}.gz", Scratch(1024 * 1024)):
            pass


async def test_archives_share_the_temporary_file(
    proxy: Proxy, s3: Any, layout: Path, tmp_path: Path
) -> None:
    raw = gzip.compress(archive_of(layout, tmp_path / "a.tar").read_bytes(), 1)
    for number in range(3):
        s3.put_object(Bucket=BUCKET, Key=f"packed-{number}.tar.gz", Body=raw)
    scratch, turn, found = Scratch(), anyio.CapacityLimiter(1), list[Content]()
    async with open_s3_client(AWS) as client:

        async def open_one(number: int) -> None:
            text = f"oci-archive:s3://{BUCKET}/packed-{number}.tar.gz"
            found.append(await open_s3_source(parse_s3(text), client, scratch, spooling=turn))

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(open_one, number)
    for content in found:
        graph = next(iter((await on_thread(plan_of, content)).repositories.values()))
        for blob in graph.blobs.values():
            assert compute(read_manifest(blob.source)) == blob.digest


async def test_what_docker_saved_goes_through_the_temporary_file(
    proxy: Proxy, s3: Any, tmp_path: Path
) -> None:
    s3.put_object(Bucket=BUCKET, Key="saved.tar", Body=docker_save(tmp_path / "d.tar").read_bytes())
    async with opened(f"docker-archive:s3://{BUCKET}/saved.tar", Scratch()) as content:
        assert [entry.ref_name for entry in content.entries] == ["app:v1", "app:v2"]
        await on_thread(plan_of, content)


@pytest.mark.parametrize("text", [LAYOUT, ARCHIVE])
async def test_a_connection_that_breaks_ends_one_read(text: str, proxy: Proxy) -> None:
    async with opened(text) as content:
        blob = await on_thread(blob_of, content, 1024 * 1024)
        whole = await bytes_of(blob)
        proxy.fault = once(Cut(700_001), lambda _: True)
        got = bytearray()

        async def read() -> None:
            async with blob.origin.read(blob.digest, blob.size, 0) as pieces:
                async for piece in pieces:
                    got.extend(piece)

        with pytest.raises(TransientError):
            await read()
        assert 0 < len(got) <= 700_001
        assert got + await bytes_of(blob, len(got)) == whole


async def test_what_the_plan_asks_is_tried_again(proxy: Proxy) -> None:
    async with open_s3_client(AWS) as client:
        for fault in (Answer(503, "SlowDown"), Answer(500, "InternalError"), Cut(5)):
            for part in ("/oci-layout", "/index.json", "list-type=2", "blobs/sha256/"):
                proxy.fault = once(fault, lambda r, part=part: part in r.path)  # type: ignore[misc]
                before = len(proxy.asked("GET", part))
                content = await open_s3_source(parse_s3(LAYOUT), client)
                await on_thread(content.find_manifest, content.entries[0])
                assert len(proxy.asked("GET", part)) == before + 2


async def test_throttling_is_told_apart_and_says_when_to_come_back(proxy: Proxy) -> None:
    async with opened(LAYOUT) as content:
        blob = await on_thread(blob_of, content)
        proxy.fault = always(Answer(503, "SlowDown", {"Retry-After": "7"}), "blobs/")
        before = len(proxy.requests)
        with pytest.raises(ThrottledError) as caught:
            await bytes_of(blob)
        assert caught.value.retry_after == 7
        assert len(proxy.requests) == before + 1
        proxy.fault = always(Answer(503, "SlowDown"), "blobs/")
        other = content.entries[0]
        content._manifests._kept.clear()
        with pytest.raises(ThrottledError, match="attempts 5"):
            await on_thread(content.find_manifest, other)


async def test_a_bucket_of_another_region_is_found_once(proxy: Proxy) -> None:
    def elsewhere(request: Request) -> Answer | None:
        if request.region == "ap-south-1":
            return None
        return Answer(301, "PermanentRedirect", {"x-amz-bucket-region": "ap-south-1"})

    proxy.fault = elsewhere
    async with opened(LAYOUT) as content:
        blob = await on_thread(blob_of, content)
        await bytes_of(blob)
    assert [r.region for r in proxy.requests].count(REGION) == 1


async def test_a_region_that_is_nowhere_is_one_line(proxy: Proxy) -> None:
    proxy.fault = lambda _: Answer(301, "PermanentRedirect", {"x-amz-bucket-region": "ap-south-1"})
    with pytest.raises(RegistryError, match=r"in the Region ap-south-1.*set AWS_REGION"):
        async with opened(LAYOUT):
            pass
    assert len(proxy.requests) <= 3


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (
            Answer(403, "AccessDenied"),
            AccessDeniedError,
            "allow s3:GetObject on arn:aws:s3:::images/team/layout/oci-layout",
        ),
        (Answer(403, "InvalidAccessKeyId"), CredentialsError, "aws sts get-caller-identity"),
        (Answer(400, "ExpiredToken"), CredentialsError, "sign in again"),
        (Answer(400, "InvalidToken"), CredentialsError, "sign in again"),
        (Answer(403, "RequestTimeTooSkewed"), ClockError, "clock"),
        (Answer(404, "NoSuchBucket"), SourceNotFoundError, "there is no bucket images"),
        (Answer(404, "NoSuchKey"), LayoutError, "no object oci-layout"),
        (
            Answer(403, "InvalidObjectState", more="<StorageClass>GLACIER</StorageClass>"),
            ContentError,
            r"archived \(GLACIER\).*restore-object --bucket images --key team/layout/oci-layout",
        ),
        (Answer(500, "InternalError"), TransientError, "S3 failed.*attempts 5"),
    ],
)
async def test_every_refusal_is_one_line(
    proxy: Proxy, answer: Answer, kind: type[AsyncpushError], words: str
) -> None:
    proxy.fault = always(answer, "/oci-layout")
    with pytest.raises(kind, match=words) as caught:
        async with opened(LAYOUT):
            pass
    line = str(caught.value)
    assert type(caught.value) is kind
    assert f"s3://{BUCKET}/team/layout" in line
    assert "\n" not in line
    assert "AKIDREADER" not in line
    assert "key-of-the-reader" not in line


async def test_a_policy_that_names_more_is_quoted(proxy: Proxy) -> None:
    proxy.fault = always(
        Answer(
            403,
            "AccessDenied",
            message="User: u is not authorized to perform: kms:Decrypt on resource:"
            ' "arn:aws:kms:eu:1:key/2" because no policy allows it',
        ),
        "/oci-layout",
    )
    with pytest.raises(AccessDeniedError, match="allow kms:Decrypt on arn:aws:kms:eu:1:key/2 for"):
        async with opened(LAYOUT):
            pass


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"s3://{BUCKET}/nowhere", "no OCI layout below this prefix"),
        ("s3://no-such-bucket/team", "there is no bucket no-such-bucket"),
        (f"oci-archive:s3://{BUCKET}/nowhere.tar", "the archive is not there"),
        (f"oci-archive:s3://{BUCKET}/team/layout/index.json", "this is no whole tar file"),
        (f"oci-archive:s3://{BUCKET}/empty", "the archive is empty"),
    ],
)
async def test_what_is_not_there_is_one_line(proxy: Proxy, s3: Any, text: str, words: str) -> None:
    s3.put_object(Bucket=BUCKET, Key="empty", Body=b"")
    with pytest.raises((LayoutError, SourceNotFoundError), match=words):
        async with opened(text):
            pass


async def test_an_index_that_is_too_large_is_not_read(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncpush.sources.s3.layout.MAX_INDEX_BYTES", 100)
    with pytest.raises(LimitError, match="at most 100"):
        async with opened(LAYOUT):
            pass


async def test_an_endpoint_that_ignores_ranges_is_not_believed(proxy: Proxy, s3: Any) -> None:
    async with opened(LAYOUT) as content:
        blob = await on_thread(blob_of, content)

        class Whole(Answer):
            @property
            def body(self) -> bytes:
                return b"x" * blob.size

        shifted = {"Content-Range": f"bytes 0-{blob.size - 1}/{blob.size}"}
        for answer in (Whole(200), Whole(206, headers=shifted)):
            proxy.fault = always(answer, "blobs/")
            with pytest.raises(ContentError, match="does not give the range"):
                await bytes_of(blob, 5)


class TestOneLayout:
    """Tests that change a layout, which is their own."""

    @pytest.fixture
    def root(self, layout: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(layout, tmp_path / "layout"))

    async def test_objects_that_are_replaced_are_not_read(
        self, proxy: Proxy, s3: Any, layout: Path, tmp_path: Path
    ) -> None:
        upload(s3, BUCKET, layout, "changing")
        async with opened(f"s3://{BUCKET}/changing") as content:
            blob = await on_thread(blob_of, content)
            key = f"changing/blobs/sha256/{blob.digest.removeprefix('sha256:')}"
            s3.put_object(Bucket=BUCKET, Key=key, Body=b"y" * blob.size)
            with pytest.raises(ContentError, match="changed while it was read"):
                await bytes_of(blob)
        tar = archive_of(layout, tmp_path / "a.tar")
        s3.put_object(Bucket=BUCKET, Key="changing.tar", Body=tar.read_bytes())
        async with opened(f"oci-archive:s3://{BUCKET}/changing.tar") as content:
            blob = await on_thread(blob_of, content)
            s3.put_object(Bucket=BUCKET, Key="changing.tar", Body=tar.read_bytes() + bytes(512))
            for work in (bytes_of(blob), on_thread(content.find_manifest, content.entries[0])):
                content._manifests._kept.clear()
                with pytest.raises(ContentError, match="changed while it was read"):
                    await work

    async def test_blobs_that_are_missing_or_damaged(
        self, proxy: Proxy, s3: Any, root: Path
    ) -> None:
        entries = json.loads((root / "index.json").read_text())["manifests"]
        blobs = root / "blobs/sha256"
        missing, damaged = (entries[i]["digest"].removeprefix("sha256:") for i in (0, 1))
        (blobs / missing).unlink()
        raw = (blobs / damaged).read_bytes()
        (blobs / damaged).write_bytes(raw.replace(b"sha256", b"sha255", 1))
        layer = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
        layer.write_bytes(layer.read_bytes()[:-1])
        upload(s3, BUCKET, root, "damaged")
        async with opened(f"s3://{BUCKET}/damaged") as content:
            assert isinstance(content, S3Layout)
            await content.prefetch(content.entries, nested=True)
            with pytest.raises(BlobMissingError, match="does not hold this blob"):
                await on_thread(content.find_manifest, content.entries[0])
            with pytest.raises(DigestMismatchError, match="damaged"):
                await on_thread(content.find_manifest, content.entries[1])
            with pytest.raises(DigestMismatchError, match="its descriptor says"):
                await on_thread(plan_of, _With(content, content.entries[2]))


class _With:
    """A layout with one entry."""

    def __init__(self, content: S3Layout, entry: Any) -> None:
        self.content, self.entries = content, (entry,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.content, name)


async def test_a_plan_that_is_cancelled_lets_go_of_s3(proxy: Proxy) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(request: Request) -> None:
        if "blobs/sha256" in request.path:
            asked.set()
            go_on.wait(20)

    async with opened(LAYOUT) as content:
        proxy.fault = slow
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(on_thread, plan_of, content)
                while not asked.is_set():
                    await anyio.sleep(0.01)
                group.cancel_scope.cancel()
        assert not go_on.is_set()
        go_on.set()


async def test_the_ecr_endpoint_is_not_s3s(proxy: Proxy) -> None:
    aws = AwsOptions(access_key_id="a", secret_access_key="b", endpoint_url="http://127.0.0.1:1")
    async with open_s3_client(aws) as client:
        content = await open_s3_source(parse_s3(LAYOUT), client)
        assert content.entries


async def test_a_profile_that_is_not_there_and_an_endpoint_that_is_none(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CredentialsError, match="nobody"):
        async with open_s3_client(AwsOptions(profile="nobody")):
            pass
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "ftp://127.0.0.1")
    with pytest.raises(UsageError, match="address"):
        async with open_s3_client(AWS):
            pass
    with pytest.raises(UsageError, match="not a source in S3"):
        parse_s3("layouts/app")


async def test_a_role_reads_the_bucket(
    proxy: Proxy, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto)
    aws = AwsOptions(
        access_key_id="AKIDREADER",
        secret_access_key="b",
        role_arn="arn:aws:iam::111122223333:role/reader",
    )
    async with open_s3_client(aws) as client:
        content = await open_s3_source(parse_s3(LAYOUT), client)
        assert content.entries
    signed = {r.headers["authorization"].split("Credential=")[1][:10] for r in proxy.requests}
    assert "AKIDREADER" not in signed


async def test_referrers_are_found_in_a_layout_and_in_an_archive(s3: Any, proxy: Proxy) -> None:
    """The sample's artifact is the referrer of its first image."""

    def unused(text: str) -> None:
        raise AssertionError(text)

    async def never(_registry: AnyRegistry, _access: SourceAccess) -> SourceRegistry:
        raise AssertionError("no registry is a source here")

    async def no_client(_access: SourceAccess) -> object:
        raise AssertionError("it is open")

    for place in (LAYOUT, ARCHIVE):
        async with opened(place) as content:
            opener = Opener(never, no_client, Scratch())
            search = ReferrerSearch(Sources(remote=FromThread(opener)), unused)
            roots = [entry.digest for entry in content.entries]
            before = len(proxy.requests)
            result = await on_thread(search.search, [(content, (), roots)])
            named = {entry.ref_name: entry.digest for entry in content.entries}
            assert result.problems == []
            found = result.of(content, (), [named["service-01"]])
            assert [referrer.digest for referrer in found] == [named["service-01.sbom"]]
            assert found[0].ref_name is None
            assert result.of(content, (), [named["service-02"]]) == []
            types = ("application/else",)
            other = await on_thread(search.search, [(content, types, roots)])
            assert other.of(content, types, roots) == []
            # Each entry is read once, however often it is looked at.
            assert len(proxy.requests) - before <= len(content.entries)
