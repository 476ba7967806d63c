"""A model that is unloaded leaves the memory of a whole gateway."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

from service.app import Gateway
from service.settings import Settings
from tests.drifting import write_winds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_S = 300.0


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Leave it to references alone: what is there when a gateway starts is never collected."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


async def until(holds: Callable[[], bool]) -> None:
    """Look again and again, in a thread, so that the event loop is free."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.to_thread(threading.Event().wait, 0.02)


@pytest.mark.usefixtures("no_collector")
async def test_backends_of_a_model_that_is_unloaded_are_gone_without_the_collector(tmp_path: Path) -> None:
    write_winds(tmp_path)
    gateway = Gateway(Settings(repository=tmp_path, lanes=1, pin_lanes=False))
    registry = gateway.registry
    await gateway.start()
    try:
        for _ in range(2):  # the model that was there at the start, and one that came later
            left = [weakref.ref(backend) for backend in registry.get("winds").backends.values()]
            # Drift watches, which ties a model to its taps.
            await until(lambda: registry.get("winds").on_answer is not None)
            await asyncio.to_thread(registry.unload, "winds")
            await until(lambda: not any(item() for item in left))  # noqa: B023 - asked before the next turn
            await asyncio.to_thread(registry.load, "winds")
    finally:
        await gateway.close()
