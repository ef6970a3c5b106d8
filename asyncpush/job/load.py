"""From a job file to a job: every mistake that can be known without a registry is found here."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncpush.documents.problems import located, validate
from asyncpush.documents.yaml import Lines, read_document
from asyncpush.engine.options import RegistrySettings
from asyncpush.errors import AsyncpushError, DocumentError, UsageError
from asyncpush.job.document import JobDocument, RegistryGroup, Source, Target
from asyncpush.job.items import Destination, Job, JobSource
from asyncpush.job.template import IMAGE_NAMES, REGISTRY_NAMES, Template, parse_template
from asyncpush.oci.select import parse_platform
from asyncpush.plan.limits import MIB
from asyncpush.plan.reference import AnyRegistry, Registry, parse_registry
from asyncpush.plan.sources import REGISTRY, parse_remote, source_kind, split_source
from asyncpush.registries.base import RepositorySettings
from asyncpush.registries.ecr.options import AwsOptions, check_endpoint

_ROLE = re.compile(r"arn:aws[a-z0-9-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+")


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
    return _Loader(path, lines, document, settings, environ).load()


@dataclass
class _Loader:
    path: Path
    lines: Lines
    document: JobDocument
    settings: Mapping[str, str]
    environ: Mapping[str, str]
    problems: list[UsageError] = field(default_factory=list)
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
        self._check_unique([n for n in names if n], ("targets",))
        sources: list[JobSource] = []
        for i, source in enumerate(document.sources):
            sources += self._source(source, ("sources", i), names, targets)
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

    def _named(self, group: RegistryGroup, where: tuple[str | int, ...]) -> list[AnyRegistry]:
        """The registries that a group names."""
        registries: list[AnyRegistry] = []
        if group.hosts is not None:
            for i, host in enumerate(group.hosts):
                with self._at((*where, "hosts", i)):
                    registries.append(parse_registry(host))
        else:
            for account in group.accounts or ():
                for i, region in enumerate(group.regions or ()):
                    with self._at((*where, "regions", i)):
                        host = f"{account}.dkr.ecr.{region}.{_domain(region)}"
                        registries.append(parse_registry(host))
        return registries

    def _group(self, group: RegistryGroup, where: tuple[str | int, ...]) -> None:
        registries = self._named(group, where)
        role = self._template(group.role_arn, (*where, "role_arn"), REGISTRY_NAMES)
        example = {"account": "0" * 12, "region": "x"}
        if role is not None and not _ROLE.fullmatch(role.render(example)):
            self._add(
                f"{role.source} is no role's ARN",
                (*where, "role_arn"),
                "write arn:aws:iam::{account}:role/NAME",
            )
        endpoint = None
        if group.endpoint_url is not None:
            with self._at((*where, "endpoint_url")):
                check_endpoint(group.endpoint_url)
                endpoint = group.endpoint_url
        external = self._template(group.external_id, (*where, "external_id"), REGISTRY_NAMES)
        for registry in registries:
            values = {}
            if isinstance(registry, Registry):
                if group.plain_http:
                    self._add(
                        f"{registry} is ECR's, and takes no plain HTTP",
                        (*where, "plain_http"),
                        "leave it out; endpoint_url names another address of the API",
                    )
                values = {"account": registry.account, "region": registry.region}
            elif group.role_arn or group.profile or group.endpoint_url or group.transport:
                self._add(
                    f"{registry} is not ECR's, and takes no AWS credentials and no transport",
                    where,
                    "leave profile, role_arn, endpoint_url and transport out; docker login signs in"
                    " there",
                )
                continue
            if registry in self.registries:
                self._add(f"{registry} is here for the second time", where)
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
                self._add(f"the name {group.name} is here for the second time", (*where, "name"))
            self.groups[group.name] = registries

    def _target(self, target: Target, where: tuple[str | int, ...]) -> Destination | None:
        defaults = self.document.defaults
        registries = list(self.registries)
        if target.registries is not None:
            registries = []
            for i, name in enumerate(target.registries):
                if name not in self.groups:
                    self._unknown("registries", name, self.groups, (*where, "registries", i))
                registries += self.groups.get(name, ())
        text = target.repository or defaults.repository
        if text is None:
            self._add("the target has no repository", where, "give it one, or one in defaults")
            return None
        repository = self._template(text, (*where, "repository"), IMAGE_NAMES)
        texts = target.tags if target.tags is not None else defaults.tags
        tags = None
        if texts is not None:
            parsed = [
                self._template(tag, (*where, "tags", i), IMAGE_NAMES) for i, tag in enumerate(texts)
            ]
            tags = tuple(tag for tag in parsed if tag is not None)
        if repository is None:
            return None
        return Destination(tuple(dict.fromkeys(registries)), repository, tags)

    def _source(
        self,
        source: Source,
        where: tuple[str | int, ...],
        names: list[str | None],
        targets: list[Destination | None],
    ) -> Iterator[JobSource]:
        defaults = self.document.defaults
        chosen = targets
        if source.targets is not None:
            chosen = []
            for i, name in enumerate(source.targets):
                if name not in names:
                    known = [n for n in names if n]
                    self._unknown("targets", name, known, (*where, "targets", i))
                else:
                    chosen.append(targets[names.index(name)])
        platforms = source.platforms if source.platforms is not None else defaults.platforms
        parsed = []
        for i, platform in enumerate(platforms or ()):
            with self._at((*where, "platforms", i)):
                parse_platform(platform)
                parsed.append(platform)
        single = isinstance(source.layouts, str)
        patterns = [source.layouts] if isinstance(source.layouts, str) else source.layouts
        for i, pattern in enumerate(patterns):
            key = (*where, "layouts") if single else (*where, "layouts", i)
            for directory, selector in self._layouts(pattern, key):
                yield JobSource(
                    directory=directory,
                    selector=selector,
                    entries=tuple(source.entries or defaults.entries or ()),
                    exclude=tuple(source.exclude or defaults.exclude or ()),
                    platforms=tuple(parsed),
                    destinations=tuple(target for target in chosen if target is not None),
                )

    def _layouts(self, pattern: str, where: tuple[str | int, ...]) -> list[tuple[str, str | None]]:
        """The sources that a glob means: layout directories, or behind a prefix archives.

        :return: each with what chooses its entries.
        """
        kind, pattern = source_kind(pattern)
        if kind == REGISTRY:
            with self._at(where):
                parse_remote(pattern)
                return [(pattern, None)]
            return []
        full = os.path.join(self.path.parent, pattern)  # noqa: PTH118 - a glob is no path
        if not glob.has_magic(pattern):
            path, selector = split_source(full)
            return [(_prefixed(kind, path), selector)]
        found, selector = _glob(full), None
        if not found:
            # A name may stand behind the glob as it does behind a path.
            path, colon, rest = full.partition(":")
            if colon and glob.has_magic(path):
                found, selector = _glob(path), rest
        layouts = [
            (_prefixed(kind, path), selector)
            for path in found
            if kind != "oci"
            or any(
                os.path.exists(os.path.join(path, name))  # noqa: PTH110, PTH118
                for name in ("oci-layout", "index.json")
            )
        ]
        if not layouts:
            what = f"{len(found)} matches, none of them an OCI layout" if found else "no match"
            self._add(f"the glob {pattern} has {what}", where, "mend the glob, or leave it out")
        return layouts

    def _template(
        self, text: str | None, where: tuple[str | int, ...], names: tuple[str, ...]
    ) -> Template | None:
        if text is None:
            return None
        with self._at(where):
            return parse_template(text, names, self.environ, self.settings)
        return None

    def _check_unique(self, names: list[str], where: tuple[str | int, ...]) -> None:
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._add(f"the name {name} is here for the second time", where)

    def _unknown(
        self, kind: str, name: str, known: Sequence[str] | Mapping[str, Any], where: Any
    ) -> None:
        close = difflib.get_close_matches(name, list(known), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        advice = f"there is {', '.join(known)}" if known else f"give one of the {kind} a name"
        self._add(f"no {kind} have the name {name}{hint}", where, advice)

    def _add(self, message: str, where: tuple[str | int, ...], advice: str = "") -> None:
        self.problems.append(
            located(UsageError(message, advice=advice), self.path, self.lines, where)
        )

    def _at(self, where: tuple[str | int, ...]) -> _Collecting:
        def collect(error: AsyncpushError) -> None:
            self._add(error.message, where, error.advice)

        return _Collecting(collect)


class _Collecting:
    """Turns an error inside of the context into one of the job's problems."""

    def __init__(self, collect: Callable[[AsyncpushError], None]) -> None:
        self._collect = collect

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, value: BaseException | None, traceback: object) -> bool:
        if isinstance(value, AsyncpushError):
            self._collect(value)
            return True
        return False


def _glob(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - sorted, and ** as written


def _prefixed(kind: str, path: str) -> str:
    path = os.path.normpath(path)
    return path if kind == "oci" else f"{kind}:{path}"


def _domain(region: str) -> str:
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
