"""From a command to the event loop: uvloop where there is one, and signals that cancel."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Awaitable, Callable

import anyio

_HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None


def run(work: Callable[[], Awaitable[None]], on_signal: Callable[[], None] = lambda: None) -> bool:
    """Run async work to its end, or until SIGINT or SIGTERM cancels it.

    :param on_signal: called when it is about to be cancelled.
    :return: False if a signal ended it.
    """
    return anyio.run(_until_signal, work, on_signal, backend_options={"use_uvloop": _HAS_UVLOOP})


async def _until_signal(work: Callable[[], Awaitable[None]], on_signal: Callable[[], None]) -> bool:
    ended = False
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    on_signal()
                    tasks.cancel_scope.cancel()
                    return

        tasks.start_soon(watch)
        try:
            await work()
            ended = True
        except Exception as exc:  # noqa: BLE001 - raised again below, outside of the task group
            failure = exc
        tasks.cancel_scope.cancel()
    # One failure in nested task groups is one failure to whoever reads of it.
    while isinstance(failure, ExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    if failure is not None:
        raise failure
    return ended
