"""``asyncpush serve``: the local registry as a program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import click

from asyncpush.cli.exitcodes import ExitCode
from asyncpush.cli.run import run
from asyncpush.errors import AsyncpushError, UsageError
from asyncpush.localregistry import (
    DEFAULT_KEY,
    PLAIN_REGISTRY,
    PUBLISHED_RATES,
    DistributionOptions,
    LocalRegistry,
    LocalRegistryOptions,
    Registry,
    load_keys,
)
from asyncpush.localregistry.distribution_options import Authentication, Mounting


@click.command()
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("asyncpush-registry"),
    metavar="DIR",
    show_default=True,
    help="Where content and metadata are kept.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=5000,
    show_default=True,
    help="Port on 127.0.0.1; 0 takes a free one.",
)
@click.option(
    "--keys",
    "keys_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Access keys and their policies, as JSON; default: one key that may do everything.",
)
@click.option(
    "--repository",
    "repositories",
    multiple=True,
    metavar="NAME",
    help="Create this repository, if it is missing, for the first key's account; repeatable.",
)
@click.option(
    "--region",
    default="us-east-1",
    show_default=True,
    help="Region of --repository, and of callers of /v2/ whose credentials tell none.",
)
@click.option(
    "--immutable", is_flag=True, help="Make --repository repositories with immutable tags."
)
@click.option(
    "--refuse-artifacts", is_flag=True, help="Refuse artifacts, as ECR has done in places."
)
@click.option(
    "--rates", is_flag=True, help="Enforce ECR's published rates, with throttling errors."
)
@click.option("--anonymous-pull", is_flag=True, help="Let anybody pull without a token.")
@click.option(
    "--open",
    "plain",
    is_flag=True,
    help="Let anybody pull and push over /v2/, create repositories with their first push, and keep"
    " to the specification where ECR does not.",
)
@click.option(
    "--auth",
    type=click.Choice(["basic", "bearer"]),
    default="basic",
    show_default=True,
    help="How /v2/ authenticates; bearer adds a token service at /token.",
)
@click.option(
    "--bearer-lifetime",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="How long a token of the token service lives.",
)
@click.option(
    "--mounting",
    type=click.Choice(["off", "on", "ecr"]),
    help="Which blobs /v2/ mounts from other repositories: none, any, or those that ECR would,"
    " once the account setting BLOB_MOUNTING is ENABLED.  [default: ecr; on with --open]",
)
@click.option(
    "--blob-mounting", is_flag=True, help="Begin with BLOB_MOUNTING ENABLED in every account."
)
@click.option(
    "--cut-missing",
    is_flag=True,
    help="Cut the connection of a push to a missing repository, as ECR has done.",
)
@click.option(
    "--replication-delay",
    type=click.FloatRange(0),
    default=0,
    show_default=True,
    metavar="SECONDS",
    help="How long after a push its replication begins.",
)
@click.option(
    "--log",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Append every call to this file as a line of JSON.",
)
@click.pass_context
def serve(
    context: click.Context,
    *,
    root: Path,
    port: int,
    keys_file: Path | None,
    repositories: tuple[str, ...],
    region: str,
    immutable: bool,
    refuse_artifacts: bool,
    rates: bool,
    anonymous_pull: bool,
    plain: bool,
    auth: Authentication,
    bearer_lifetime: int,
    mounting: Mounting | None,
    blob_mounting: bool,
    cut_missing: bool,
    replication_delay: float,
    log: Path | None,
) -> None:
    """Run the local registry: a strict stand-in for Amazon ECR on 127.0.0.1.

    It runs until it is interrupted. What it acknowledged is kept under --root, also when it is
    killed.
    """
    try:
        keys = load_keys(keys_file) if keys_file else [DEFAULT_KEY]
        distribution = PLAIN_REGISTRY if plain else DistributionOptions()
        options = LocalRegistryOptions(
            refuse_artifacts=refuse_artifacts,
            rates=PUBLISHED_RATES if rates else {},
            distribution=replace(
                distribution,
                anonymous_pull=anonymous_pull,
                authentication=auth,
                bearer_lifetime=bearer_lifetime,
                mounting=mounting or distribution.mounting,
                blob_mounting=blob_mounting,
                missing_repository="cut" if cut_missing else "answer",
            ),
            replication_delay=replication_delay,
            default_registry=Registry(keys[0].account, region),
            call_log=log,
        )
        registry = LocalRegistry(root, keys, options)
    except ValueError as exc:
        raise UsageError(str(exc)) from exc

    async def work() -> None:
        try:
            async with registry.run(port=port) as server:
                for name in repositories:
                    await server.ensure_repository(
                        keys[0].account, region, name, immutable=immutable
                    )
                click.echo(f"local registry listens on {server.url}")
                if plain:
                    host = server.url.removeprefix("http://")
                    click.echo(f"  asyncpush push LAYOUT docker://{host}/NAME")
                if keys_file is None:
                    click.echo(f"  export AWS_ENDPOINT_URL_ECR={server.url}")
                    click.echo(f"  export AWS_ACCESS_KEY_ID={DEFAULT_KEY.access_key_id}")
                    click.echo(f"  export AWS_SECRET_ACCESS_KEY={DEFAULT_KEY.secret_access_key}")
                await anyio.sleep_forever()
        except OSError as exc:
            raise AsyncpushError(
                f"the local registry cannot run: {exc.strerror or exc}",
                advice="choose another --log"
                if log is not None and exc.filename == str(log)
                else "choose another --port or --root",
                file=exc.filename,
            ) from exc
        except ValueError as exc:
            raise UsageError(str(exc)) from exc

    run(work)
    # Being interrupted is how a server ends well.
    context.exit(ExitCode.OK)
