"""Who may do what over ``/v2/``: policies, Basic and Bearer, scopes, nobody in particular."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oci_driver import Oci, error_of, log_in, push_blob, push_small_image, serving, start
from registry_driver import (
    ACCOUNT,
    MANIFEST_TYPE,
    NAME,
    REGION,
    SMALL_PARTS,
    connect,
    manifest_text,
    push_image,
    sha256,
    upload,
)
from yarl import URL

from asyncpush.localregistry import (
    DEFAULT_KEY,
    PLAIN_REGISTRY,
    DistributionOptions,
    Fault,
    Key,
    LocalRegistryOptions,
    RunningRegistry,
)
from asyncpush.localregistry.distribution.access import read_basic
from asyncpush.localregistry.identity import Registry

pytestmark = pytest.mark.anyio

BEARER = DistributionOptions(authentication="bearer")
HERE = replace(SMALL_PARTS, default_registry=Registry(ACCOUNT, REGION))
BLOB = b"a blob of no importance"
CHALLENGE = re.compile(r'([a-z]+)="([^"]*)"')


def only(*actions: str) -> dict[str, Any]:
    every = ["ecr:GetAuthorizationToken", *(f"ecr:{action}" for action in actions)]
    return {"Statement": [{"Effect": "Allow", "Action": every, "Resource": "*"}]}


async def status_of(oci: Oci, method: str, path: str, **more: Any) -> int:
    async with oci.request(method, path, **more) as response:
        return response.status


@pytest.mark.parametrize(
    ("needed", "method", "path"),
    [
        (["InitiateLayerUpload"], "POST", "blobs/uploads/"),
        (["InitiateLayerUpload"], "POST", "blobs/uploads/?mount=DIGEST&from=x"),
        (
            ["InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload"],
            "POST",
            "blobs/uploads/?digest=DIGEST",
        ),
        (["UploadLayerPart"], "PATCH", "SESSION"),
        (["UploadLayerPart", "CompleteLayerUpload"], "PUT", "SESSION?digest=DIGEST"),
        (["UploadLayerPart"], "GET", "SESSION"),
        (["UploadLayerPart"], "DELETE", "SESSION"),
        (["BatchCheckLayerAvailability"], "HEAD", "blobs/CONFIG"),
        (["GetDownloadUrlForLayer"], "GET", "blobs/CONFIG"),
        (["PutImage"], "PUT", "manifests/v2"),
        (["BatchGetImage"], "HEAD", "manifests/v1"),
        (["BatchGetImage"], "GET", "manifests/v1"),
    ],
)
async def test_each_call_needs_the_actions_of_its_native_counterpart(
    tmp_path: Path, needed: list[str], method: str, path: str
) -> None:
    keys = [Key("AKIDENOUGHENOUGH0000", "s", policy=only(*needed))]
    for i, left_out in enumerate(needed):
        rest = [action for action in needed if action != left_out]
        keys.append(Key(f"AKIDLACKINGLACKING{i:02}", "s", policy=only("ListImages", *rest)))
    async with serving(tmp_path, keys=(DEFAULT_KEY, *keys)) as (server, ecr, oci):
        await ecr.create_repository(repositoryName=NAME)
        await push_image(ecr, "1", "v1")
        config = sha256("config of 1")
        session = (await start(oci, NAME)).removeprefix(f"/v2/{NAME}/")
        path = path.replace("SESSION", session).replace("CONFIG", config)
        path = f"/v2/{NAME}/{path}".replace("DIGEST", sha256(BLOB))
        body = manifest_text(config, []).encode() if "manifests" in path else BLOB
        more = {} if method in ("GET", "HEAD", "DELETE") else {"data": body}
        if "manifests" in path:
            more["headers"] = {"Content-Type": MANIFEST_TYPE}
        for key in reversed(keys):
            async with connect(server, key) as client, await log_in(client, server.url) as caller:
                status = await status_of(caller, method, path, **more)
                assert status == 403 if key is not keys[0] else status < 300


async def challenge_of(response: aiohttp.ClientResponse) -> dict[str, str]:
    assert await error_of(response) == (401, "UNAUTHORIZED")
    scheme, _, fields = response.headers["WWW-Authenticate"].partition(" ")
    assert scheme == "Bearer"
    return dict(CHALLENGE.findall(fields))


async def get_token(
    server: RunningRegistry, login: str | None, *scopes: str, **query: str
) -> dict[str, Any]:
    """Ask the token service, which is expected to answer."""
    headers = {}
    if login is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    pairs = [("service", "x"), *(("scope", scope) for scope in scopes), *query.items()]
    async with (
        aiohttp.ClientSession(server.url) as nobody,
        nobody.get("/token", params=pairs, headers=headers) as response,
    ):
        assert response.status == 200, await response.text()
        document = await response.json()
        assert document["token"] == document["access_token"]
        return dict(document)


def bearing(server: RunningRegistry, document: dict[str, Any]) -> Oci:
    headers = {"Authorization": f"Bearer {document['token']}"}
    return aiohttp.ClientSession(server.url, headers=headers)


SECRET = f"{DEFAULT_KEY.access_key_id}:{DEFAULT_KEY.secret_access_key}"


async def test_challenge_leads_to_a_token_for_the_scope_that_it_names(tmp_path: Path) -> None:
    async with serving(tmp_path, BEARER, options=HERE) as (server, ecr, basic):
        await ecr.create_repository(repositoryName=NAME)
        await push_image(ecr, "1", "v1")
        async with basic.get("/v2/") as response:
            challenge = await challenge_of(response)
        assert challenge == {
            "realm": f"{server.url}/token",
            "service": server.url.removeprefix("http://"),
        }
        async with basic.post(f"/v2/{NAME}/blobs/uploads/") as response:
            push = (await challenge_of(response))["scope"]
        async with basic.get(f"/v2/{NAME}/manifests/v1") as response:
            pull = (await challenge_of(response))["scope"]
        async with basic.get("/v2/_catalog") as response:
            catalog = (await challenge_of(response))["scope"]
        assert push == f"repository:{NAME}:pull,push"
        assert pull == f"repository:{NAME}:pull"

        token = base64.b64decode(basic.headers["Authorization"].split()[1]).decode()
        for login in (SECRET, token):
            granted = await get_token(server, login, push, catalog)
            assert granted["expires_in"] == 300
            async with bearing(server, granted) as oci:
                assert await status_of(oci, "GET", "/v2/") == 200
                assert await status_of(oci, "GET", "/v2/_catalog") == 200
                await push_small_image(oci, NAME, "2", "v2")
        async with bearing(server, await get_token(server, SECRET, pull)) as oci:
            assert await status_of(oci, "GET", f"/v2/{NAME}/manifests/v2") == 200
            async with oci.post(f"/v2/{NAME}/blobs/uploads/") as response:
                assert (await challenge_of(response))["error"] == "insufficient_scope"
            async with oci.get("/v2/other/tags/list") as response:
                assert (await challenge_of(response))["error"] == "insufficient_scope"
            assert await status_of(oci, "GET", "/v2/_catalog") == 401


async def test_policy_decides_whatever_the_scope_says(tmp_path: Path) -> None:
    reader = Key("AKIDREADERREADER0000", "s", policy=only("BatchGetImage"))
    keys = (DEFAULT_KEY, reader)
    async with serving(tmp_path, BEARER, keys, HERE) as (server, ecr, _):
        await ecr.create_repository(repositoryName=NAME)
        await push_image(ecr, "1", "v1")
        scope = f"repository:{NAME}:pull,push"
        granted = await get_token(server, f"{reader.access_key_id}:s", scope)
        async with bearing(server, granted) as oci:
            assert await status_of(oci, "GET", f"/v2/{NAME}/manifests/v1") == 200
            assert await status_of(oci, "POST", f"/v2/{NAME}/blobs/uploads/") == 403
        (call,) = server.calls.of("v2.GetToken")
        assert call.access_key_id == reader.access_key_id


async def test_token_ends_with_its_time_and_its_key(tmp_path: Path) -> None:
    now = [1000.0]
    options = replace(HERE, clock=lambda: now[0], max_clock_skew=10**10)
    key = Key("AKIDOTHEROTHEROTHER0", "s")
    distribution = replace(BEARER, bearer_lifetime=60)
    async with serving(tmp_path, distribution, (DEFAULT_KEY, key), options) as (server, _, _):
        granted = await get_token(server, f"{key.access_key_id}:s", offline_token="true")
        assert granted["expires_in"] == 60
        async with bearing(server, granted) as oci:
            now[0] += 59
            assert await status_of(oci, "GET", "/v2/") == 200
            now[0] += 2
            assert await status_of(oci, "GET", "/v2/") == 401
    now[0] = 1000.0
    async with serving(tmp_path, distribution, options=options) as (server, _, _):
        async with bearing(server, granted) as oci:
            assert await status_of(oci, "GET", "/v2/") == 401
        form = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"]}
        async with (
            aiohttp.ClientSession(server.url) as nobody,
            nobody.post("/token", data=form) as response,
        ):
            assert await error_of(response) == (401, "UNAUTHORIZED")


async def test_refresh_token_and_password_get_further_tokens(tmp_path: Path) -> None:
    async with serving(tmp_path, BEARER, options=HERE) as (server, ecr, _):
        await ecr.create_repository(repositoryName=NAME)
        scope = f"repository:{NAME}:push"
        forms = [
            {"grant_type": "password", "access_type": "offline"}
            | dict(zip(("username", "password"), SECRET.split(":"), strict=True)),
        ]
        document = await get_token(server, SECRET, offline_token="true")
        forms.append({"grant_type": "refresh_token", "refresh_token": document["refresh_token"]})
        async with aiohttp.ClientSession(server.url) as nobody:
            for form in forms:
                async with nobody.post("/token", data=form | {"scope": scope}) as response:
                    granted = await response.json()
                async with bearing(server, granted) as oci:
                    await push_blob(oci, NAME, BLOB)
            # Each token is good for one purpose.
            granted["refresh_token"] = granted["token"]
            for wrong in (granted["token"], document["refresh_token"] + "x", ""):
                form = {"grant_type": "refresh_token", "refresh_token": wrong}
                assert await status_of(nobody, "POST", "/token", data=form) == 401
            form = {"grant_type": "client_credentials"}
            async with nobody.post("/token", data=form) as response:
                assert await error_of(response) == (400, "UNSUPPORTED")
        async with bearing(server, {"token": document["refresh_token"]}) as oci:
            assert await status_of(oci, "GET", "/v2/") == 401


@pytest.mark.parametrize(
    "login",
    [
        None,
        "AWS:no",
        "nobody:no",
        f"{DEFAULT_KEY.access_key_id}:no",
        f"{DEFAULT_KEY.access_key_id}",
        "ASIATEMPORARY0000000:s",
        "AKIDEXPIREDEXPIRED00:s",
    ],
)
async def test_token_service_turns_strangers_away(tmp_path: Path, login: str | None) -> None:
    temporary = Key("ASIATEMPORARY0000000", "s", session_token="t")
    expired = Key("AKIDEXPIREDEXPIRED00", "s", expires=datetime(2020, 1, 1, tzinfo=UTC))
    async with (
        serving(tmp_path, BEARER, (DEFAULT_KEY, temporary, expired)) as (server, _, _),
        aiohttp.ClientSession(server.url) as nobody,
    ):
        headers = {}
        if login is not None:
            headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        async with nobody.get("/token", headers=headers) as response:
            assert await error_of(response) == (401, "UNAUTHORIZED")
            assert response.headers["WWW-Authenticate"].startswith("Basic ")


async def test_token_for_a_key_takes_the_permission_that_ecrs_own_takes(tmp_path: Path) -> None:
    allow = {"Effect": "Allow", "Action": "ecr:PutImage", "Resource": "*"}
    key = Key("AKIDNOTOKENNOTOKEN00", "s", policy={"Statement": allow})
    async with serving(tmp_path, BEARER, (DEFAULT_KEY, key)) as (_, _, oci):
        login = base64.b64encode(b"AKIDNOTOKENNOTOKEN00:s").decode()
        async with oci.get("/token", headers={"Authorization": f"Basic {login}"}) as response:
            assert await error_of(response) == (403, "DENIED")


async def test_scope_that_says_nothing_is_an_error(tmp_path: Path) -> None:
    headers = {"Authorization": f"Basic {base64.b64encode(SECRET.encode()).decode()}"}
    async with (
        serving(tmp_path, BEARER) as (server, _, _),
        aiohttp.ClientSession(server.url, headers=headers) as caller,
    ):
        for scope in ("x", "repository:", "registry:all:*", "plugin:a:pull"):
            async with caller.get("/token", params={"scope": scope}) as response:
                assert await error_of(response) == (400, "UNSUPPORTED")


async def test_scope_of_the_source_decides_on_a_mount(tmp_path: Path) -> None:
    distribution = replace(BEARER, mounting="on")
    async with serving(tmp_path, distribution, options=HERE) as (server, ecr, _):
        for name in (NAME, "other"):
            await ecr.create_repository(repositoryName=name)
        digest = await upload(ecr, BLOB, 64)
        address = f"/v2/other/blobs/uploads/?mount={digest}&from={NAME}"
        scopes = ["repository:other:pull,push"]
        async with bearing(server, await get_token(server, SECRET, *scopes)) as oci:
            assert await status_of(oci, "POST", address) == 202
        scopes.append(f"repository:{NAME}:pull")
        async with bearing(server, await get_token(server, SECRET, " ".join(scopes))) as oci:
            assert await status_of(oci, "POST", address) == 201


@pytest.mark.parametrize("authentication", ["basic", "bearer"])
async def test_anybody_may_read_and_nobody_write_where_pulling_is_anonymous(
    tmp_path: Path, authentication: Any
) -> None:
    distribution = DistributionOptions(authentication=authentication, anonymous_pull=True)
    async with serving(tmp_path, distribution, options=HERE) as (server, ecr, _):
        await ecr.create_repository(repositoryName=NAME)
        await push_image(ecr, "1", "v1")
        headers = {}
        if authentication == "bearer":
            granted = await get_token(server, None, f"repository:{NAME}:pull,push")
            headers = {"Authorization": f"Bearer {granted['token']}"}
        async with aiohttp.ClientSession(server.url, headers=headers) as nobody:
            assert await status_of(nobody, "GET", f"/v2/{NAME}/manifests/v1") == 200
            assert await status_of(nobody, "HEAD", f"/v2/{NAME}/blobs/{sha256('x')}") == 404
            assert await status_of(nobody, "POST", f"/v2/{NAME}/blobs/uploads/") == 401
            assert await status_of(nobody, "PUT", f"/v2/{NAME}/manifests/v1", data=b"{}") == 401


@pytest.mark.parametrize("authentication", ["basic", "bearer"])
async def test_plain_registry_makes_repositories_for_anybody(
    tmp_path: Path, authentication: Any
) -> None:
    distribution = replace(PLAIN_REGISTRY, authentication=authentication)
    async with serving(tmp_path, distribution, options=HERE) as (server, ecr, _):
        headers = {}
        if authentication == "bearer":
            scopes = [f"repository:{name}:pull,push" for name in ("brand/new", "another")]
            granted = await get_token(server, None, *scopes)
            headers = {"Authorization": f"Bearer {granted['token']}"}
        async with aiohttp.ClientSession(server.url, headers=headers) as nobody:
            layer, image = await push_small_image(nobody, "brand/new", "1", "v1")
            address = f"/v2/another/blobs/uploads/?mount={layer}&from=brand/new"
            assert await status_of(nobody, "POST", address) == 201
            assert await status_of(nobody, "GET", f"/v2/brand/new/manifests/{image}") == 200
        found = await ecr.describe_repositories()
        assert [r["repositoryName"] for r in found["repositories"]] == ["another", "brand/new"]


async def test_creating_on_push_needs_the_permission(tmp_path: Path) -> None:
    pusher = Key("AKIDPUSHERPUSHER0000", "s", policy=only("InitiateLayerUpload"))
    keys = (DEFAULT_KEY, pusher)
    distribution = DistributionOptions(create_on_push=True)
    async with serving(tmp_path, distribution, keys) as (server, ecr, oci):
        async with connect(server, pusher) as client, await log_in(client, server.url) as caller:
            assert await status_of(caller, "POST", f"/v2/{NAME}/blobs/uploads/") == 403
        await start(oci, NAME)
        assert (await ecr.describe_repositories())["repositories"][0]["repositoryName"] == NAME


async def test_calls_count_against_the_rates_of_their_native_counterparts(tmp_path: Path) -> None:
    rates = {"InitiateLayerUpload": 3, "PutImage": 1}
    options = replace(SMALL_PARTS, rates=rates, clock=lambda: 1e9, max_clock_skew=10**10)
    async with serving(tmp_path, options=options) as (_, ecr, oci):
        await ecr.create_repository(repositoryName=NAME)
        await ecr.initiate_layer_upload(repositoryName=NAME)
        await push_blob(oci, NAME, BLOB)
        address = f"/v2/{NAME}/blobs/uploads/"
        assert await status_of(oci, "POST", f"{address}?mount={sha256(BLOB)}&from=x") == 202
        async with oci.post(address) as response:
            assert await error_of(response) == (429, "TOOMANYREQUESTS")
            assert response.headers["Retry-After"] == "1"
        assert await status_of(oci, "PUT", f"/v2/{NAME}/manifests/v1", data=b"{}") == 400
        assert await status_of(oci, "PUT", f"/v2/{NAME}/manifests/v1", data=b"{}") == 429


async def test_calls_meet_the_faults_that_are_made_for_them(tmp_path: Path) -> None:
    met: list[dict[str, Any]] = []

    def fault(call: Any) -> Fault | None:
        if call.action == "v2.PutUpload":
            met.append(dict(call.params) | {"repository": call.repository, "number": call.number})
            return Fault(code="UNAVAILABLE", status=503)
        return None

    async with serving(tmp_path, options=replace(SMALL_PARTS, faults=fault)) as (_, ecr, oci):
        await ecr.create_repository(repositoryName=NAME)
        where = await start(oci, NAME)
        async with oci.put(f"{where}?digest={sha256(BLOB)}", data=BLOB) as response:
            assert await error_of(response) == (503, "UNAVAILABLE")
    (params,) = met
    assert params["digest"] == sha256(BLOB)
    assert (params["repository"], params["number"]) == (NAME, 1)
    assert where.endswith(params["id"])


async def test_no_token_gets_into_the_call_log(tmp_path: Path) -> None:
    options: LocalRegistryOptions = replace(HERE, call_log=tmp_path / "log")
    async with serving(tmp_path / "root", BEARER, options=options) as (server, _, _):
        document = await get_token(server, SECRET, offline_token="true")
        async with bearing(server, document) as oci:
            assert await status_of(oci, "GET", "/v2/") == 200
    log = (tmp_path / "log").read_text()
    assert "v2.GetToken" in log
    for secret in (document["token"], document["refresh_token"], DEFAULT_KEY.secret_access_key):
        assert secret not in log


def test_options_that_cannot_be_meant_are_refused() -> None:
    for wrong in ({"authentication": "digest"}, {"mounting": "yes"}, {"bearer_lifetime": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DistributionOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("authentication", ["basic", "bearer"])
@pytest.mark.parametrize("name", ['a"b', "%00", "a%2f..%2fb", "%c3%a9", "A"])
async def test_strange_names_get_no_further_than_an_error(
    tmp_path: Path, authentication: Any, name: str
) -> None:
    distribution = DistributionOptions(authentication=authentication)
    async with (
        serving(tmp_path, distribution) as (server, _, oci),
        aiohttp.ClientSession(headers=oci.headers) as session,
    ):
        for method, path in (("GET", "tags/list"), ("POST", "blobs/uploads/")):
            url = URL(f"{server.url}/v2/{name}/{path}", encoded=True)
            async with session.request(method, url) as response:
                status, code = await error_of(response)
                assert "scope" not in response.headers.get("WWW-Authenticate", "")
            if authentication == "bearer":
                assert (status, code) == (401, "UNAUTHORIZED")
            else:
                assert (status, code) in {(400, "NAME_INVALID"), (404, "NAME_UNKNOWN")}


async def test_form_that_is_too_large_or_no_text_gets_no_token(tmp_path: Path) -> None:
    async with serving(tmp_path, BEARER) as (_, _, oci):
        for data, status in ((b"grant_type=" + bytes(70_000), 413), (b"\xff\xfe=%ff", 400)):
            assert await status_of(oci, "POST", "/token", data=data) == status


@given(st.text(max_size=40))
def test_any_authorization_header_is_read_as_basic_or_nothing(text: str) -> None:
    for header in (text, f"Basic {text}"):
        user, password = read_basic(header)
        assert isinstance(user, str)
        assert isinstance(password, str)
    encoded = base64.b64encode(f"user:{text}".encode()).decode()
    assert read_basic(f"basic {encoded}") == ("user", text)
