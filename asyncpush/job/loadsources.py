"""The sources of a job file: layouts that its globs find, images that it names, what is chosen."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from asyncpush.documents.yaml import Key
from asyncpush.job.collector import Collector
from asyncpush.job.document import Defaults, KeptPlatforms, Source
from asyncpush.job.sources import Destination, JobSource
from asyncpush.job.template import REGISTRY_NAMES
from asyncpush.oci.select import parse_platform
from asyncpush.plan.choose import Rules, parse_age
from asyncpush.plan.images import ImagePattern, parse_images
from asyncpush.plan.listing import SourceAccess
from asyncpush.plan.reference import AnyRegistry, Registry, without_password
from asyncpush.plan.s3 import is_s3, parse_s3
from asyncpush.plan.semver import parse_range
from asyncpush.plan.sources import REGISTRY, S3, source_kind, split_source


class SourceLoader:
    """Makes sources of what a job file says of them.

    :param mistakes: takes what cannot be meant.
    :param defaults: what sources have that do not say otherwise.
    :param names: names of the job's targets, in their order; None for one without.
    :param targets: the targets; None for one that cannot be meant.
    """

    def __init__(
        self,
        mistakes: Collector,
        defaults: Defaults,
        names: list[str | None],
        targets: list[Destination | None],
    ) -> None:
        self._mistakes = mistakes
        self._defaults = defaults
        self._names = names
        self._targets = targets

    def load(self, source: Source, where: Key) -> Iterator[JobSource]:
        """One source for each layout, archive or text of images.

        :param where: its place in the document.
        """
        defaults = self._defaults
        platforms = source.platforms if source.platforms is not None else defaults.platforms
        each: tuple[str, ...] = ()
        keep: tuple[str, ...] = ()
        if isinstance(platforms, KeptPlatforms):
            keep = self._platforms(platforms.keep, (*where, "platforms", "keep"))
        else:
            each = self._platforms(platforms or (), (*where, "platforms"))
        shared = JobSource(
            directory="",
            entries=tuple(source.entries or defaults.entries or ()),
            exclude=tuple(source.exclude or defaults.exclude or ()),
            platforms=each,
            keep=keep,
            destinations=self._destinations(source, where),
            rules=self._rules(source, (*where, "tags")),
            referrers=_referrers(source.referrers),
        )
        if source.layouts is not None:
            for pattern, key in _listed(source.layouts, (*where, "layouts")):
                access = self._access(source, None, where)
                if (access.profile or access.role_arn) and not is_s3(pattern):
                    self._mistakes.add(
                        f"{pattern} is on this machine, and is read without AWS credentials",
                        where,
                        "leave profile and role_arn out; they are for s3:// and images of ECR",
                    )
                for directory, selector in self._layouts(pattern, key):
                    yield replace(shared, directory=directory, selector=selector, access=access)
            return
        for text, key in _listed(source.images or (), (*where, "images")):
            if is_s3(text):
                self._mistakes.add(
                    f"{text} is a layout or an archive, not a repository of a registry",
                    key,
                    "write layouts: instead of images:",
                )
                continue
            with self._mistakes.at(key):
                images = parse_images(text)
                self._check_pulls(source, images, where)
                yield replace(
                    shared,
                    directory=without_password(text),
                    entries=(),
                    exclude=(),
                    images=images,
                    access=self._access(source, images.registry, where),
                )

    def _destinations(self, source: Source, where: Key) -> tuple[Destination, ...]:
        chosen = self._targets
        if source.targets is not None:
            chosen = []
            for i, name in enumerate(source.targets):
                if name not in self._names:
                    known = [n for n in self._names if n]
                    self._mistakes.unknown("targets", name, known, (*where, "targets", i))
                else:
                    chosen.append(self._targets[self._names.index(name)])
        return tuple(target for target in chosen if target is not None)

    def _platforms(self, texts: Sequence[str], where: Key) -> tuple[str, ...]:
        parsed = []
        for i, platform in enumerate(texts):
            with self._mistakes.at((*where, i)):
                parse_platform(platform)
                parsed.append(platform)
        return tuple(parsed)

    def _rules(self, source: Source, where: Key) -> Rules:
        choice = source.tags
        if choice is None:
            return Rules()
        found: dict[str, Any] = {}
        for name, text, parse in (
            ("versions", choice.semver, parse_range),
            ("newer_than", choice.newer_than, parse_age),
            ("pulled_within", choice.pulled_within, parse_age),
        ):
            if text is not None:
                with self._mistakes.at((*where, "semver" if name == "versions" else name)):
                    found[name] = parse(text)
        if choice.pulled_within is not None and source.layouts is not None:
            self._mistakes.add(
                "nothing records when a layout was read",
                (*where, "pulled_within"),
                "leave it out; it is for images of ECR",
            )
        return Rules(
            include=tuple(choice.include or ()),
            exclude=tuple(choice.exclude or ()),
            newest=choice.newest,
            **found,
        )

    def _access(self, source: Source, registry: AnyRegistry | None, where: Key) -> SourceAccess:
        """How a source is asked; without a registry, templates have no values but texts."""
        role = self._mistakes.template(source.role_arn, (*where, "role_arn"), REGISTRY_NAMES)
        external = self._mistakes.template(
            source.external_id, (*where, "external_id"), REGISTRY_NAMES
        )
        if role is not None:
            self._mistakes.check_role(role, (*where, "role_arn"))
        values: dict[str, str | None] = {}
        if isinstance(registry, Registry):
            values = {"account": registry.account, "region": registry.region}
        elif registry is not None and (source.profile or source.role_arn):
            self._mistakes.add(
                f"{registry} is not ECR's, and takes no AWS credentials",
                where,
                "leave profile and role_arn out; docker login signs in there",
            )
            return SourceAccess()
        with self._mistakes.at((*where, "role_arn")):
            return SourceAccess(
                profile=source.profile,
                role_arn=role.render(values) if role else None,
                external_id=external.render(values) if external else None,
                plain_http=bool(source.plain_http),
            )
        return SourceAccess()

    def _check_pulls(self, source: Source, images: ImagePattern, where: Key) -> None:
        pulled = source.tags is not None and source.tags.pulled_within is not None
        if pulled and not isinstance(images.registry, Registry):
            self._mistakes.add(
                f"{images.registry} does not record pulls; private ECR alone lists them",
                (*where, "tags", "pulled_within"),
                "choose by semver or newest",
            )

    def _layouts(self, pattern: str, where: Key) -> list[tuple[str, str | None]]:
        """The sources that a glob means: layout directories, or behind a prefix archives.

        :return: each with what chooses its entries.
        """
        kind, pattern = source_kind(pattern)
        if kind == REGISTRY:
            self._mistakes.add(
                f"{without_password(pattern)} is a repository of a registry, not a layout",
                where,
                "write images: instead of layouts:",
            )
            return []
        if kind == S3:
            return self._in_s3(pattern, where)
        full = os.path.join(self._mistakes.path.parent, pattern)  # noqa: PTH118 - a glob is no path
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
            self._mistakes.add(
                f"the glob {pattern} has {what}", where, "mend the glob, or leave it out"
            )
        return layouts

    def _in_s3(self, text: str, where: Key) -> list[tuple[str, str | None]]:
        """The one layout or archive that an address in S3 means."""
        with self._mistakes.at(where):
            found = parse_s3(text)
            if not any(character in found.key for character in "*?"):
                return [split_source(text)]
            self._mistakes.add(
                f"{text} is a pattern, and patterns are for layouts on this machine",
                where,
                "list the prefixes: layouts: [s3://BUCKET/PREFIX, ...]",
            )
        return []


def _listed(value: str | Sequence[str], where: Key) -> Iterator[tuple[str, Key]]:
    """One text or several, each with its place in the document."""
    if isinstance(value, str):
        yield value, where
        return
    for i, text in enumerate(value):
        yield text, (*where, i)


def _referrers(value: bool | list[str] | None) -> tuple[str, ...] | None:  # noqa: FBT001
    """Artifact types; empty for all of them, None for none."""
    if isinstance(value, list):
        return tuple(value) or None
    return () if value else None


def _glob(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - sorted, and ** as written


def _prefixed(kind: str, path: str) -> str:
    path = os.path.normpath(path)
    return path if kind == "oci" else f"{kind}:{path}"
