"""Who pushes what: the repositories of a job by the credentials that it pushes to them with."""

from __future__ import annotations

from dataclasses import dataclass, field

from asyncpush.errors import AsyncpushError
from asyncpush.iam.names import key_of, resource_of
from asyncpush.job.items import Job
from asyncpush.plan.reference import AnyRegistry, Registry, Repository
from asyncpush.plan.sources import Sources
from asyncpush.registries.ecr.options import AwsOptions


@dataclass(slots=True)
class Principal:
    """One set of credentials.

    :param name: the role or profile, as people call it.
    :param resources: ARNs of the repositories that it pushes to.
    :param kms_keys: ARNs of keys that encrypt repositories which the job creates.
    """

    name: str
    resources: set[str] = field(default_factory=set)
    kms_keys: set[str] = field(default_factory=set)


@dataclass(slots=True)
class JobPrincipals:
    """The credentials of a job.

    :param problems: whatever of the job does not say where it goes.
    :param elsewhere: repositories that are not ECR's.
    :param aliases: aliases of keys, which no policy can name.
    """

    principals: list[Principal]
    problems: list[tuple[str, AsyncpushError]]
    elsewhere: list[Repository]
    aliases: list[str]


def principals_of(job: Job, sources: Sources | None = None) -> JobPrincipals:
    """Read where each of a job's images goes; manifests and blobs are not looked at.

    :param sources: opens what the images come from; None opens what is on this machine.
    """
    repositories, problems = _repositories(job, sources or Sources())
    found: dict[str, Principal] = {}
    elsewhere, aliases = [], set()
    for repository in repositories:
        registry = repository.registry
        if not isinstance(registry, Registry):
            elsewhere.append(repository)
            continue
        name = _name(job, registry)
        principal = found.setdefault(name, Principal(name))
        principal.resources.add(resource_of(repository))
        if job.create.kms_key is not None and job.create.encryption != "AES256":
            key = key_of(job.create.kms_key, registry)
            if key is None:
                aliases.add(job.create.kms_key)
            else:
                principal.kms_keys.add(key)
    ordered = [found[name] for name in sorted(found)]
    return JobPrincipals(ordered, problems, elsewhere, sorted(aliases))


def _repositories(
    job: Job, sources: Sources
) -> tuple[list[Repository], list[tuple[str, AsyncpushError]]]:
    repositories: dict[Repository, None] = {}
    problems: list[tuple[str, AsyncpushError]] = []
    sources.open_ahead([item.opens for item in job.items()])
    for item in job.items():
        try:
            for entry in item.resolve(sources):
                try:
                    repositories[entry.destination()[0]] = None
                except AsyncpushError as exc:
                    problems.append((f"{entry.name} -> {entry.target}", exc))
        except AsyncpushError as exc:
            problems.append((item.label, exc))
    return list(repositories), problems


def _name(job: Job, registry: AnyRegistry) -> str:
    settings = job.registries.get(registry)
    aws = settings.aws if settings is not None else AwsOptions()
    if aws.role_arn is not None:
        return f"role {aws.role_arn}"
    return f"profile {aws.profile}" if aws.profile is not None else "the default credentials"
