"""Registries under TLS with an authority of one's own, by every transport."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio.to_thread
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support import ACCOUNT, HOST, KEY_ID, REGION, SECRET, asyncpush, environment, error_lines

from asyncpush.localregistry import (
    PLAIN_REGISTRY,
    DistributionOptions,
    Key,
    LocalRegistry,
    LocalRegistryOptions,
    RunningRegistry,
)
from asyncpush.oci.layout import Layout

pytestmark = pytest.mark.anyio

# A name of this machine that is not known to be one, so that it is asked with TLS.
ELSEWHERE = "0.0.0.0"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.now(UTC)
    addresses = [ipaddress.ip_address(text) for text in ("127.0.0.1", ELSEWHERE)]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(map(x509.IPAddress, addresses)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@asynccontextmanager
async def under_tls(server: RunningRegistry, certificate: Path) -> AsyncIterator[int]:
    """A port at which the server is reached under TLS."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection(server.host, server.port)
        await asyncio.gather(pipe(reader, behind[1]), pipe(behind[0], writer))

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    proxy = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with proxy:
        yield proxy.sockets[0].getsockname()[1]


@asynccontextmanager
async def serving(
    store: Path, certificate: Path, distribution: DistributionOptions
) -> AsyncIterator[tuple[RunningRegistry, int]]:
    options = LocalRegistryOptions(distribution=distribution)
    async with LocalRegistry(store, [Key(KEY_ID, SECRET, ACCOUNT)], options).run() as server:
        await server.ensure_repository(ACCOUNT, REGION, "tls/app")
        async with under_tls(server, certificate) as port:
            yield server, port


@pytest.mark.parametrize("transport", ["native", "distribution", "hybrid", "auto"])
async def test_ecr_is_reached_by_both_apis_with_the_authority_of_aws_tools(
    tmp_path: Path, sample: Path, certificate: Path, transport: str
) -> None:
    async with serving(tmp_path, certificate, DistributionOptions()) as (server, port):
        env = environment(f"https://127.0.0.1:{port}") | {"AWS_CA_BUNDLE": str(certificate)}
        push = ["push", sample, f"{HOST}/tls/app", "--transport", transport]
        done = await anyio.to_thread.run_sync(lambda: asyncpush(*push, env=env))
        assert done.returncode == 0, done.stderr
        wanted = {e.ref_name: e.digest for e in Layout(sample).entries}
        assert await server.tags(ACCOUNT, REGION, "tls/app") == wanted
        raw = server.calls.counters.calls["v2.PutUpload"]
        assert (raw > 0) == (transport in ("distribution", "auto"))


async def test_another_registry_is_trusted_by_its_authority_and_not_without(
    tmp_path: Path, sample: Path, certificate: Path
) -> None:
    async with serving(tmp_path, certificate, PLAIN_REGISTRY) as (_, port):
        env = environment(None, "") | {"DOCKER_CONFIG": str(tmp_path)}
        push = ["push", sample, f"docker://{ELSEWHERE}:{port}/tls/app", "--attempts", "2"]
        done = await anyio.to_thread.run_sync(lambda: asyncpush(*push, env=env))
        assert done.returncode == 1
        assert all("no TLS connection" in line for line in error_lines(done))
        assert all("SSL_CERT_FILE" in line for line in error_lines(done))
        env["SSL_CERT_FILE"] = str(certificate)
        # A fresh interpreter: the authorities are read when aiohttp is imported.
        command = [sys.executable, "-m", "asyncpush", *map(str, push), "--verify"]
        fresh = await anyio.run_process(command, env=env, check=False)
        assert fresh.returncode == 0, fresh.stderr.decode()


@pytest.mark.parametrize("transport", ["distribution", "hybrid"])
def test_a_bundle_that_cannot_be_read_is_one_clear_error(
    tmp_path: Path, sample: Path, transport: str
) -> None:
    env = environment("https://127.0.0.1:1") | {"AWS_CA_BUNDLE": str(tmp_path / "absent.pem")}
    push = ["push", f"{sample}:service-01", f"{HOST}/tls/app", "--transport", transport]
    (line,) = error_lines(asyncpush(*push, env=env))
    assert "AWS_CA_BUNDLE cannot be read: No such file" in line
    assert "absent.pem" in line
