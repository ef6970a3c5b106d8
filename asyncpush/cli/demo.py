"""``asyncpush demo``: the whole of it on one machine, without an AWS account."""

from __future__ import annotations

import hashlib
import shlex
import tempfile
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import click

from asyncpush.cli.exitcodes import ExitCode
from asyncpush.cli.options import Output
from asyncpush.cli.output import print_summary
from asyncpush.cli.run import run
from asyncpush.cli.watch import Watch
from asyncpush.engine.options import PushOptions
from asyncpush.engine.pusher import Pusher
from asyncpush.errors import DigestMismatchError, RegistryError, UsageError
from asyncpush.localregistry import DEFAULT_KEY, LocalRegistry
from asyncpush.oci.layout import Layout
from asyncpush.oci.manifest import ImageIndex, parse_manifest
from asyncpush.oci.sample import write_sample
from asyncpush.plan.items import PushItem
from asyncpush.plan.limits import MIB
from asyncpush.plan.reference import Reference, Registry, parse_reference
from asyncpush.registries.ecr.options import AwsOptions
from asyncpush.registries.ecr.session import open_client
from asyncpush.text import plural, size

_REGION = "us-east-1"
_TARGET = f"{DEFAULT_KEY.account}.dkr.ecr.{_REGION}.amazonaws.com/demo/services"


@click.command()
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep layout and registry there; default: a temporary directory that goes again.",
)
@click.pass_context
def demo(context: click.Context, root: Path | None) -> None:
    """Push a sample layout to a local registry and read it back by digest.

    Needs neither an AWS account nor a network.
    """
    with ExitStack() as stack:
        folder = root or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        click.echo("writing a layout of 12 images that share layers, an index and an artifact")
        try:
            layout = write_sample(folder / "layout")
        except OSError as exc:
            raise UsageError(
                f"the sample layout cannot be written: {exc.strerror or exc}",
                advice="choose another --root",
                file=exc.filename,
            ) from exc
        code: list[ExitCode] = []

        async def work() -> None:
            code.append(await _push_and_read_back(layout, folder / "registry"))

        ended = run(work)
    if not ended:
        context.exit(ExitCode.INTERRUPTED)
    if code[0] is ExitCode.OK:
        _print_next(root)
    context.exit(code[0])


async def _push_and_read_back(layout: Path, store: Path) -> ExitCode:
    reference = parse_reference(_TARGET)
    async with LocalRegistry(store, [DEFAULT_KEY]).run() as server:
        click.echo(f"local registry listens on {server.url}")
        aws = AwsOptions(
            access_key_id=DEFAULT_KEY.access_key_id,
            secret_access_key=DEFAULT_KEY.secret_access_key,
            endpoint_url=server.url,
        )
        token = await _prepare(reference, aws)
        watch = Watch(Output())
        with watch.shown():
            async with watch.running(), Pusher(PushOptions(aws=aws), on_event=watch.take) as pusher:
                report = await pusher.push([PushItem(layout, _TARGET)])
        print_summary(report)
        if not report.ok:
            return ExitCode.FAILED
        async with aiohttp.ClientSession(
            server.url, headers={"Authorization": f"Basic {token}"}
        ) as session:
            reader = _Reader(session, reference.repository.name)
            for entry in Layout(layout).entries:
                await reader.manifest(entry.ref_name or entry.digest, entry.digest)
        click.echo(
            f"read back and proved {plural(len(reader.proven), 'digest')}, {size(reader.bytes)}"
        )
    return ExitCode.OK


async def _prepare(reference: Reference, aws: AwsOptions) -> str:
    """Create the repository, and get a token to pull with."""
    registry = reference.repository.registry
    assert isinstance(registry, Registry), "the demonstration's own target"
    async with open_client(registry, aws, 1, "asyncpush-demo") as client:
        try:
            await client.create_repository(repositoryName=reference.repository.name)
        except client.exceptions.RepositoryAlreadyExistsException:
            click.echo("the repository is there from an earlier demonstration")
        answer = await client.get_authorization_token()
    return str(answer["authorizationData"][0]["authorizationToken"])


class _Reader:
    """Pulls over the distribution API and proves every digest on the way."""

    def __init__(self, session: aiohttp.ClientSession, repository: str) -> None:
        self._session = session
        self._base = f"/v2/{repository}"
        self.proven: set[str] = set()
        self.bytes = 0

    async def manifest(self, reference: str, digest: str) -> None:
        """Read a manifest by tag or digest, and all that it names."""
        async with self._session.get(f"{self._base}/manifests/{reference}") as answer:
            raw = await self._read(answer, digest)
            manifest = parse_manifest(raw, answer.headers["Content-Type"])
        if isinstance(manifest, ImageIndex):
            for child in manifest.manifests:
                await self.manifest(child.digest, child.digest)
            return
        for blob in (manifest.config, *manifest.layers):
            if blob.digest not in self.proven:
                async with self._session.get(f"{self._base}/blobs/{blob.digest}") as answer:
                    await self._read(answer, blob.digest, keep=False)

    async def _read(
        self, answer: aiohttp.ClientResponse, digest: str, *, keep: bool = True
    ) -> bytes:
        if answer.status != 200:
            raise RegistryError(f"reading back failed with HTTP {answer.status}", digest=digest)
        found = hashlib.sha256()
        kept = bytearray()
        async for chunk in answer.content.iter_chunked(MIB):
            found.update(chunk)
            self.bytes += len(chunk)
            if keep:
                kept += chunk
        if f"sha256:{found.hexdigest()}" != digest:
            raise DigestMismatchError(
                f"what was read back has the digest sha256:{found.hexdigest()}", digest=digest
            )
        self.proven.add(digest)
        return bytes(kept)


def _print_next(root: Path | None) -> None:
    store = shlex.quote(str(root / "registry")) if root else "DIR"
    click.echo(
        f"""
next, with a registry that stays:
  asyncpush serve --root {store} --port 5000 --repository team/app
and in another terminal:
  export AWS_ENDPOINT_URL_ECR=http://127.0.0.1:5000
  export AWS_ACCESS_KEY_ID={DEFAULT_KEY.access_key_id}
  export AWS_SECRET_ACCESS_KEY={DEFAULT_KEY.secret_access_key}
  asyncpush push LAYOUT {DEFAULT_KEY.account}.dkr.ecr.{_REGION}.amazonaws.com/team/app
or into your own account:
  asyncpush push LAYOUT ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY"""
    )
