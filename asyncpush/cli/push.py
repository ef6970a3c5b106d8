"""``asyncpush push`` and ``asyncpush copy``: images to one repository."""

from __future__ import annotations

from typing import Any

import click

from asyncpush.cli.completion import complete_files
from asyncpush.cli.options import (
    Output,
    aws_of,
    aws_options,
    engine_options,
    output_options,
    push_options,
    referrers_of,
    referrers_options,
    source_aws_of,
    source_options,
)
from asyncpush.cli.session import Task, push_task
from asyncpush.engine.journal import fingerprint
from asyncpush.oci.select import parse_platform
from asyncpush.plan.items import PushItem
from asyncpush.plan.reference import parse_reference
from asyncpush.registries.base import RepositorySettings


@click.command()
@click.argument(
    "sources", metavar="SOURCE...", nargs=-1, required=True, shell_complete=complete_files
)
@click.argument("target")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Push that image of an index.")
@referrers_options
@aws_options
@source_options
@engine_options
@output_options
@click.pass_context
def push(
    context: click.Context,
    /,
    sources: tuple[str, ...],
    target: str,
    *,
    platform: str | None,
    **flags: Any,
) -> None:
    """Push images to an ECR repository.

    SOURCE is an OCI layout directory, a tar file as oci-archive:FILE or docker-archive:FILE (- is
    standard input), either of them in S3 as s3://BUCKET/KEY, or a repository of a registry as
    docker://HOST/REPOSITORY or an ECR reference. All its entries or tags are pushed; SOURCE:NAME or
    SOURCE@DIGEST chooses one. There may be several.

    TARGET is ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY[:TAG][@DIGEST] or a repository's ARN;
    docker://HOST/REPOSITORY[:TAG] is any other registry. Without a tag, each entry's name is its
    tag.
    """
    output = Output.of(flags)
    parse_reference(target)
    if platform is not None:
        parse_platform(platform)
    options = push_options(
        flags,
        create=RepositorySettings() if flags["create_repositories"] else None,
        aws=aws_of(flags),
        source_aws=source_aws_of(flags),
    )
    items = [PushItem(source, target, platform, referrers_of(flags)) for source in sources]
    task = Task(
        items=lambda: items,
        title=f"{' '.join(sources)} to {target}",
        fingerprint=fingerprint(items, options.aws.endpoint_url),
    )
    context.exit(push_task(task, options, output))


copy = click.Command(
    "copy",
    params=push.params,
    callback=push.callback,
    help="""Copy images from registries, S3, layouts and archives to an ECR repository.

    The same command as push. SOURCE is docker://HOST/REPOSITORY for any registry, an ECR reference
    or ARN, an OCI layout or an archive, also in S3 as s3://BUCKET/KEY; all its tags go, or with
    SOURCE:TAG or SOURCE@DIGEST one image. Nothing is written to the disk on the way. TARGET is as
    for push; without a tag, tags stay as they are.
    """,
)
