"""The descriptions of AWS's services: megabytes of JSON that botocore reads for each client."""

from __future__ import annotations

import functools
from typing import Any

from botocore.loaders import JSONFileLoader, Loader

_load_file = JSONFileLoader.load_file
_list_services = Loader.list_available_services
_services: dict[tuple[str, ...], list[str]] = {}


@functools.cache
def _content(path: str) -> Any:
    return _load_file(JSONFileLoader(), path)


def _services_of(loader: Loader, type_name: str) -> list[str]:
    folders = (type_name, *loader.search_paths)
    if folders not in _services:
        _services[folders] = _list_services(loader, type_name)
    return _services[folders]


def read_once() -> None:
    """Have this process read each of them once, whatever the number of its clients."""
    JSONFileLoader.load_file = lambda self, path: _content(path)
    Loader.list_available_services = _services_of
