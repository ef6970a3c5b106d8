"""From the planning thread to the event loop and back."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio.from_thread

T = TypeVar("T")


def on_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do async work from a thread that :func:`anyio.to_thread.run_sync` started.

    :raises BaseException: what the work raised; cancelled with the scope that started the thread.
    """
    try:
        return anyio.from_thread.run(work)
    except concurrent.futures.CancelledError:
        # The loop's own cancellation, which this thread must hand on as such.
        anyio.from_thread.check_cancelled()
        raise
