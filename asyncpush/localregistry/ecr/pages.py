"""Paging of the JSON API: page sizes, and opaque tokens that say where the next page begins."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import TypeVar

from asyncpush.localregistry.errors import invalid_parameter
from asyncpush.localregistry.params import Params

T = TypeVar("T")

# Service model 2015-09-21: MaxResults; the API reference gives 100 as the default.
_DEFAULT, _MOST = 100, 1000


def page_size(params: Params) -> int:
    """The ``maxResults`` of a call, or the API's default."""
    return params.optional_number("maxResults", 1, _MOST) or _DEFAULT


def read_token(params: Params, length: int) -> tuple[str, ...]:
    """What the ``nextToken`` of a call says; as many empty texts for the first page.

    :raises ApiError: InvalidParameterException.
    """
    token = params.optional_text("nextToken")
    if token is None:
        return ("",) * length
    try:
        parts = json.loads(base64.b64decode(token, validate=True))
    except (binascii.Error, ValueError) as exc:
        raise _invalid() from exc
    if not isinstance(parts, list) or len(parts) != length:
        raise _invalid()
    if not all(isinstance(part, str) for part in parts):
        raise _invalid()
    return tuple(parts)


def cut_page(
    found: list[T], limit: int, position: Callable[[T], tuple[str, ...]]
) -> tuple[list[T], dict[str, str]]:
    """Make a page of what was found, which is one item more than fits if there is another page.

    :param position: where an item stands, for the token to go on behind it.
    :return: the page's items, and the ``nextToken`` member, empty for the last page.
    """
    if len(found) <= limit:
        return found, {}
    token = base64.b64encode(json.dumps(position(found[limit - 1])).encode()).decode()
    return found[:limit], {"nextToken": token}


def _invalid() -> Exception:
    return invalid_parameter("Invalid parameter at 'nextToken': it is none that was given out.")
