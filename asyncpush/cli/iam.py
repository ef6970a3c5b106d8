"""``asyncpush iam``: the least policies, printed as AWS takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click

from asyncpush.cli.jobs import read_job, selection_options
from asyncpush.cli.output import print_error
from asyncpush.errors import AsyncpushError, UsageError
from asyncpush.iam.actions import Extra
from asyncpush.iam.document import (
    MANAGED_POLICY_CHARACTERS,
    POLICIES_OF_A_ROLE,
    Document,
    dumps,
    size,
)
from asyncpush.iam.identity import push_policies, push_policy
from asyncpush.iam.names import parse_resource
from asyncpush.iam.resource import registry_policy, repository_policy
from asyncpush.job.items import Job
from asyncpush.job.principals import principals_of
from asyncpush.plan.reference import Registry, parse_registry
from asyncpush.plan.sources import is_remote
from asyncpush.text import plural


def _with_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--with",
        "extras",
        multiple=True,
        metavar="OPTION,...",
        help=f"What is done beyond the six calls of a push: {', '.join(Extra)}.",
    )(command)


@click.group()
def iam() -> None:
    """Print the least IAM policies for what asyncpush does.

    Nothing is asked of AWS; what is printed is for aws iam and aws ecr to take.
    """


@iam.command()
@click.option(
    "--repository",
    "repositories",
    multiple=True,
    metavar="ARN|REFERENCE",
    help="Allow pushing to this repository; an ARN may end in a pattern. Repeatable.",
)
@click.option(
    "--job",
    type=click.Path(path_type=Path),
    metavar="JOB.yaml",
    help="Allow pushing to the repositories of this job.",
)
@_with_option
@selection_options
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write each policy to a file of its own there, instead of printing it.",
)
def policy(
    *,
    repositories: tuple[str, ...],
    job: Path | None,
    extras: tuple[str, ...],
    out: Path | None,
    **flags: Any,
) -> None:
    """Print the policy that whoever pushes must have.

    Without --repository and --job it is the policy of AWS's documentation, for all repositories of
    the account. --with unchanged adds the seventh action that it lists, by which a rerun is fast.
    """
    wanted = _parse_extras(extras)
    if Extra.UNCHANGED in wanted:
        _note(
            "a push does without ecr:BatchGetImage. With it, one call finds out what is"
            " unchanged of 100 tags; without it, each unchanged manifest takes a PutImage, of"
            " which ECR takes 10 a second"
        )
    if repositories and job is not None:
        raise UsageError(
            "--repository and --job exclude each other", advice="print a policy for each"
        )
    if job is not None:
        _give(_job_policies(read_job(job, flags), wanted), out)
        return
    if any(flags.values()):
        raise UsageError("--set, --only and --exclude go with --job")
    documents = [push_policy(wanted)]
    if repositories:
        documents = push_policies(map(parse_resource, repositories), wanted)
    _give([("whoever pushes", documents)], out)


@iam.command("repository-policy")
@click.option(
    "--principal",
    "principals",
    multiple=True,
    required=True,
    metavar="ARN|ACCOUNT",
    help="Who pushes from another account: a role, a user, or whom the account lets. Repeatable.",
)
@_with_option
def repository_policy_command(*, principals: tuple[str, ...], extras: tuple[str, ...]) -> None:
    """Print the policy that a repository needs to be pushed to from another account.

    The other account's principal needs its own policy as well (iam policy).
    """
    click.echo(dumps(repository_policy(principals, _parse_extras(extras))))


@iam.command("registry-policy")
@click.argument("registry", metavar="HOST")
@click.option(
    "--source-account",
    "sources",
    multiple=True,
    required=True,
    metavar="ACCOUNT",
    help="An account that replicates into this registry. Repeatable.",
)
@click.option(
    "--prefix",
    "prefixes",
    multiple=True,
    metavar="PREFIX",
    help="Only repositories whose names begin so. Repeatable.",
)
def registry_policy_command(
    *, registry: str, sources: tuple[str, ...], prefixes: tuple[str, ...]
) -> None:
    """Print the policy that a registry needs to be replicated into from another account.

    HOST is the destination: ACCOUNT.dkr.ecr.REGION.amazonaws.com.
    """
    destination = parse_registry(registry)
    if not isinstance(destination, Registry):
        raise UsageError(f"{registry} is not ECR's, and has no registry policy")
    click.echo(dumps(registry_policy(destination, sources, prefixes)))


def _parse_extras(texts: Iterable[str]) -> set[Extra]:
    known = {str(extra): extra for extra in Extra}
    names = {name.strip() for text in texts for name in text.split(",")}
    for name in sorted(names - known.keys()):
        raise UsageError(f"--with knows no {name!r}", advice=f"there is {', '.join(known)}")
    return {known[name] for name in names}


def _job_policies(job: Job, extras: set[Extra]) -> list[tuple[str, list[Document]]]:
    """The policies of each of a job's principals.

    :raises UsageError: some of the job's images do not say where they go.
    """
    if any(is_remote(source.directory) for source in job.sources):
        # Importing what asks registries takes longer than to read layouts.
        from asyncpush.cli.remote import with_remote  # noqa: PLC0415
        from asyncpush.engine.options import PushOptions  # noqa: PLC0415

        found = with_remote(partial(principals_of, job), PushOptions(registries=job.registries))
    else:
        found = principals_of(job)
    for what, error in found.problems:
        print_error(f"{what}: {error}")
    if found.problems:
        raise UsageError("no policy is printed: it would lack what these images need")
    if found.elsewhere:
        _note(
            f"{plural(len(found.elsewhere), 'repository').replace('repositorys', 'repositories')}"
            f" such as {found.elsewhere[0]} are not ECR's, and IAM has no say there"
        )
    creates = Extra.CREATE in extras
    if creates and found.aliases:
        _note(
            f"{', '.join(found.aliases)} is an alias, which no policy can name: allow"
            " kms:CreateGrant and kms:DescribeKey on its key, or give the job the key's ARN"
        )
    if not found.principals:
        raise UsageError("no image of the job goes to ECR")
    return [
        (
            principal.name,
            push_policies(
                principal.resources,
                extras,
                tagged=creates and bool(job.create.tags),
                kms_keys=principal.kms_keys if creates else (),
            ),
        )
        for principal in found.principals
    ]


def _give(groups: list[tuple[str, list[Document]]], out: Path | None) -> None:
    """Print policies, or write them to files, and say what belongs to whom.

    :param groups: the policies of each principal, behind what people call it.
    """
    policies = [(name, document) for name, documents in groups for document in documents]
    for name, documents in groups:
        if len(documents) > 1:
            _note(
                f"a policy has at most {MANAGED_POLICY_CHARACTERS:,} characters, so there are"
                f" {len(documents)} for {name}, and all of them are needed"
            )
        if len(documents) > POLICIES_OF_A_ROLE:
            _note(
                f"a role takes {POLICIES_OF_A_ROLE} policies unless its quota is raised;"
                " --repository with a pattern makes fewer, and allows more"
            )
    for number, (name, document) in enumerate(policies, 1):
        about = f"for {name}, {size(document):,} characters"
        if out is not None:
            path = out / f"policy-{number}.json"
            _write(path, document)
            click.echo(f"{path}: {about}")
            continue
        if len(policies) > 1:
            _note(f"policy {number} is {about}")
        click.echo(dumps(document))


def _write(path: Path, document: Document) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dumps(document) + "\n", encoding="utf-8")
    except OSError as exc:
        raise AsyncpushError(
            f"the policy cannot be written: {exc.strerror}", file=str(path)
        ) from exc


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)
