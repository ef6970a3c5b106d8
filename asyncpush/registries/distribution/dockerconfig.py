"""Credentials as docker, podman and skopeo keep them: configuration files and helpers."""

from __future__ import annotations

import base64
import binascii
import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncpush.errors import CredentialsError

_HELPER_SECONDS = 30
# docker keeps Docker Hub's credentials under the address of its old API.
_DOCKER_HUB = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password, or a token that identifies the user (``identity_token``).

    It is good until ``until``, a time of the monotonic clock.
    """

    user: str
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)
    until: float = float("inf")


@dataclass(frozen=True, slots=True)
class Place:
    """Where credentials may be kept: a file's own entry, or a helper that it names.

    :param key: the entry's key, or the server that the helper is asked about.
    """

    path: Path
    key: str
    helper: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file of credentials, as it was when it was read."""

    path: Path
    document: Mapping[str, Any]


def read_files(environ: Mapping[str, str]) -> list[ConfigFile]:
    """Read the files that may have credentials, those that are there, in their order.

    ``$REGISTRY_AUTH_FILE`` (containers-auth.json(5), keys may name a namespace) comes before
    docker's ``config.json`` in ``$DOCKER_CONFIG`` or ``~/.docker``.

    :raises CredentialsError: a file cannot be read.
    """
    found = []
    for path in _files(environ):
        document = _read(path)
        if document is not None:
            found.append(ConfigFile(path, document))
    return found


def places_of(files: Iterable[ConfigFile], host: str, repository: str) -> list[Place]:
    """Where a repository's credentials may be, the place that goes first first.

    :param host: the registry, with its port.
    """
    return [place for file in files for place in _places_in(file, host, repository)]


def look(place: Place, files: Iterable[ConfigFile], environ: Mapping[str, str]) -> Login | None:
    """The credentials in a place, or None if there are none. May run a helper: for a thread.

    :raises CredentialsError: a file or helper that should have them does not give them.
    """
    if place.helper is not None:
        return _ask_helper(place.helper, place.key, environ)
    for file in files:
        if file.path == place.path:
            return _from_auth(file.document["auths"][place.key], file.path, place.key)
    return None


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    if explicit := environ.get("REGISTRY_AUTH_FILE"):
        yield Path(explicit)
    folder = environ.get("DOCKER_CONFIG")
    if folder:
        yield Path(folder) / "config.json"
    elif home := environ.get("HOME"):
        yield Path(home) / ".docker" / "config.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as exc:
        reason = getattr(exc, "strerror", None) or "this is no JSON"
        raise CredentialsError(
            f"the file of registry credentials cannot be read: {reason}",
            advice="mend it, or sign in again with docker login",
            file=str(path),
        ) from exc
    return document if isinstance(document, dict) else None


def _places_in(file: ConfigFile, host: str, repository: str) -> Iterator[Place]:
    names = _names(host, repository)
    helpers = file.document.get("credHelpers")
    for name in names:
        if isinstance(helpers, dict) and isinstance(helpers.get(name), str):
            yield Place(file.path, name, helpers[name])
            return
    auths = file.document.get("auths")
    for name in names:
        if not isinstance(auths, dict):
            break
        for key in (name, f"https://{name}", f"https://{name}/v1/", f"https://{name}/v2/"):
            if isinstance(auths.get(key), dict):
                yield Place(file.path, key)
    store = file.document.get("credsStore")
    if isinstance(store, str) and store:
        yield Place(file.path, _DOCKER_HUB[0] if host in _DOCKER_HUB else host, store)


def _names(host: str, repository: str) -> list[str]:
    """What credentials may be kept under, the most special first."""
    parts = repository.split("/")
    paths = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    hosts = [host, *(_DOCKER_HUB if host in _DOCKER_HUB else ())]
    return [f"{host}/{path}" for path in paths] + hosts


def _from_auth(auth: Mapping[str, Any], path: Path, key: str) -> Login | None:
    token = auth.get("identitytoken")
    user, password = auth.get("username"), auth.get("password")
    if isinstance(auth.get("auth"), str) and auth["auth"]:
        try:
            text = base64.b64decode(auth["auth"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as exc:
            raise CredentialsError(
                f"the credentials of {key} are damaged",
                advice=f"sign in again with docker login {key}",
                file=str(path),
            ) from exc
        user, _, password = text.partition(":")
        password = password.rstrip("\0")
    if isinstance(token, str) and token:
        return Login(str(user or ""), "", token)
    return Login(str(user), str(password or "")) if user else None


def _ask_helper(name: str, server: str, environ: Mapping[str, str]) -> Login | None:
    """Ask a credential helper (docker-credential-helpers, protocol ``get``)."""
    program = f"docker-credential-{name}"
    if not _HELPER_NAME.fullmatch(name):
        raise CredentialsError(f"{name!r} is no name of a credential helper", registry=server)
    try:
        done = subprocess.run(  # noqa: S603 - the helper that the user's own file names
            [program, "get"],
            input=server,
            capture_output=True,
            text=True,
            timeout=_HELPER_SECONDS,
            env=dict(environ),
            check=False,
        )
    except FileNotFoundError as exc:
        raise CredentialsError(
            f"the credential helper {program} is not installed",
            advice="install it, or take it out of docker's config.json",
            registry=server,
        ) from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CredentialsError(
            f"the credential helper {program} does not answer", registry=server
        ) from exc
    if done.returncode != 0:
        # Its words, not its secrets: helpers write errors to standard output.
        words = " ".join((done.stdout or done.stderr).split())[:200]
        if "not found" in words:
            return None
        if '"Secret"' in words:
            words = f"exit code {done.returncode}"
        raise CredentialsError(f"the credential helper {program} failed: {words}", registry=server)
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError) as exc:
        raise CredentialsError(
            f"the answer of the credential helper {program} cannot be read", registry=server
        ) from exc
    return Login("", "", secret) if user == "<token>" else Login(user, secret)
