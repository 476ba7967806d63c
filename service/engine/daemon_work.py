"""Blocking work of the event loop that must not keep the process alive.

``asyncio.to_thread`` does: whoever ends the loop waits for its threads, and a model that loads may take for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Do blocking work on a thread of its own; return its result, or raise what it raises."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again where the work is awaited
            failures.append(error)
        with contextlib.suppress(RuntimeError):  # the loop is gone when the process was told to end
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="loading", daemon=True).start()
    await done.wait()
    if failures:
        raise failures[0]
    return results[0]
