"""From a job file to a job: every mistake that can be known without a registry is found here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asyncpush.documents.problems import validate
from asyncpush.documents.yaml import Key, read_document
from asyncpush.engine.options import RegistrySettings
from asyncpush.errors import DocumentError
from asyncpush.job.collector import Collector
from asyncpush.job.document import JobDocument, RegistryGroup, Target
from asyncpush.job.items import Job
from asyncpush.job.loadsources import SourceLoader
from asyncpush.job.sources import Destination, JobSource
from asyncpush.job.template import IMAGE_NAMES, REGISTRY_NAMES
from asyncpush.plan.limits import MIB
from asyncpush.plan.reference import AnyRegistry, Registry, parse_registry
from asyncpush.registries.base import RepositorySettings
from asyncpush.registries.ecr.options import AwsOptions, check_endpoint


class JobError(DocumentError):
    """A job file that cannot be meant; ``problems`` has every mistake in it."""

    kind = "job"


def load_job(path: Path, settings: Mapping[str, str], environ: Mapping[str, str]) -> Job:
    """Read and check a job file.

    :param path: the file, YAML or JSON.
    :param settings: values of ``{set.KEY}``.
    :param environ: values of ``{env.NAME}``.
    :raises JobError: it holds mistakes.
    :raises UsageError: it cannot be read.
    """
    content, lines = read_document(path, "job file")
    try:
        document = validate(JobDocument, content, path, lines)
    except DocumentError as exc:
        raise JobError(exc.problems) from None
    loader = _Loader(path=path, lines=lines, document=document, settings=settings, environ=environ)
    return loader.load()


@dataclass(kw_only=True)
class _Loader(Collector):
    document: JobDocument
    registries: dict[AnyRegistry, RegistrySettings] = field(default_factory=dict)
    groups: dict[str, list[AnyRegistry]] = field(default_factory=dict)

    def load(self) -> Job:
        document = self.document
        for i, group in enumerate(document.registries):
            self._group(group, ("registries", i))
        targets = [
            self._target(target, ("targets", i)) for i, target in enumerate(document.targets)
        ]
        names = [target.name for target in document.targets]
        self.check_unique([n for n in names if n], ("targets",))
        sources: list[JobSource] = []
        loader = SourceLoader(self, document.defaults, names, targets)
        for i, source in enumerate(document.sources):
            sources += loader.load(source, ("sources", i))
        if self.problems:
            raise JobError(self.problems)
        options = document.options.model_dump(exclude_none=True)
        if memory := options.pop("memory_mib", None):
            options["memory"] = memory * MIB
        if (temp_space := options.pop("temp_space_mib", None)) is not None:
            options["temp_space"] = temp_space * MIB
        if part_size := options.pop("part_size_mib", None):
            options["part_size"] = round(part_size * MIB)
        create = document.create_repositories
        return Job(
            name=document.name or self.path.stem,
            options=options,
            registries=self.registries,
            create=RepositorySettings(**create.model_dump()),
            sources=sources,
        )

    def _named(self, group: RegistryGroup, where: Key) -> list[AnyRegistry]:
        """The registries that a group names."""
        registries: list[AnyRegistry] = []
        if group.hosts is not None:
            for i, host in enumerate(group.hosts):
                with self.at((*where, "hosts", i)):
                    registries.append(parse_registry(host))
        else:
            for account in group.accounts or ():
                for i, region in enumerate(group.regions or ()):
                    with self.at((*where, "regions", i)):
                        host = f"{account}.dkr.ecr.{region}.{_domain(region)}"
                        registries.append(parse_registry(host))
        return registries

    def _group(self, group: RegistryGroup, where: Key) -> None:
        registries = self._named(group, where)
        role = self.template(group.role_arn, (*where, "role_arn"), REGISTRY_NAMES)
        if role is not None:
            self.check_role(role, (*where, "role_arn"))
        endpoint = None
        if group.endpoint_url is not None:
            with self.at((*where, "endpoint_url")):
                check_endpoint(group.endpoint_url)
                endpoint = group.endpoint_url
        external = self.template(group.external_id, (*where, "external_id"), REGISTRY_NAMES)
        for registry in registries:
            values = {}
            if isinstance(registry, Registry):
                if group.plain_http:
                    self.add(
                        f"{registry} is ECR's, and takes no plain HTTP",
                        (*where, "plain_http"),
                        "leave it out; endpoint_url names another address of the API",
                    )
                values = {"account": registry.account, "region": registry.region}
            elif group.role_arn or group.profile or group.endpoint_url or group.transport:
                self.add(
                    f"{registry} is not ECR's, and takes no AWS credentials and no transport",
                    where,
                    "leave profile, role_arn, endpoint_url and transport out; docker login signs in"
                    " there",
                )
                continue
            if registry in self.registries:
                self.add(f"{registry} is here for the second time", where)
            self.registries[registry] = RegistrySettings(
                aws=AwsOptions(
                    profile=group.profile,
                    endpoint_url=endpoint,
                    role_arn=role.render(values) if role else None,
                    external_id=external.render(values) if external else None,
                ),
                quotas={**(self.document.quotas or {}), **(group.quotas or {})},
                transport=group.transport,
                plain_http=bool(group.plain_http),
            )
        if group.name is not None:
            if group.name in self.groups:
                self.add(f"the name {group.name} is here for the second time", (*where, "name"))
            self.groups[group.name] = registries

    def _target(self, target: Target, where: Key) -> Destination | None:
        defaults = self.document.defaults
        registries = list(self.registries)
        if target.registries is not None:
            registries = []
            for i, name in enumerate(target.registries):
                if name not in self.groups:
                    self.unknown("registries", name, self.groups, (*where, "registries", i))
                registries += self.groups.get(name, ())
        text = target.repository or defaults.repository
        if text is None:
            self.add("the target has no repository", where, "give it one, or one in defaults")
            return None
        repository = self.template(text, (*where, "repository"), IMAGE_NAMES)
        texts = target.tags if target.tags is not None else defaults.tags
        tags = None
        if texts is not None:
            parsed = [
                self.template(tag, (*where, "tags", i), IMAGE_NAMES) for i, tag in enumerate(texts)
            ]
            tags = tuple(tag for tag in parsed if tag is not None)
        if repository is None:
            return None
        return Destination(
            tuple(dict.fromkeys(registries)), repository, tags, tuple(target.immutable_tags or ())
        )


def _domain(region: str) -> str:
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
