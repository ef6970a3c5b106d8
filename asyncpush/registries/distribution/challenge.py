"""What a registry asks for when it answers 401: the WWW-Authenticate header (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAM = re.compile(rf'\s*({_NAME})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_NAME}))\s*')
_SCHEME = re.compile(rf"\s*({_NAME})(?=\s|,|$)\s*")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate; ``scheme`` and the names of ``params`` are in lower case."""

    scheme: str
    params: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read WWW-Authenticate headers; what cannot be read is left out.

    :param headers: each header's value; one may hold several challenges.
    """
    return [challenge for header in headers for challenge in _parse(header)]


def _parse(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = 0
    while at < len(text):
        if text[at] in ", \t":
            at += 1
        elif found and (param := _PARAM.match(text, at)):
            name, quoted, plain = param.groups()
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            params = dict(found[-1].params)
            params.setdefault(name.lower(), value)
            found[-1] = Challenge(found[-1].scheme, params)
            at = param.end()
        elif scheme := _SCHEME.match(text, at):
            found.append(Challenge(scheme[1].lower(), {}))
            at = scheme.end()
        else:
            # Something else, such as a token68: up to the next comma it is nobody's.
            comma = text.find(",", at)
            at = len(text) if comma < 0 else comma + 1
    return found
