"""A storm of requests for stress tests: what makes their runs fail, and what counts how each of them ended."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from service.domain.errors import TiergateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from service.domain.inference import InferenceRequest
    from tests.service.engine.conftest import Bench

REQUESTS = 2000


class Mischief:
    """Fails one run in ten, and any run of a poisoned request."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a repeatable mix, no secret

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> bool:
        return bool((inputs["x"] == 666.0).any()) or self._random.random() < 0.1


async def storm(
    bench: Bench, chance: random.Random, make: Callable[[], InferenceRequest], cancelled_ratio: float
) -> Counter[str]:
    """Send requests, cancel some, and return how those that began ended; each must have ended exactly once."""
    ends: Counter[str] = Counter()

    async def one() -> None:
        try:
            response = await bench.plane.infer(make())
        except TiergateError as error:
            ends[type(error).__name__] += 1
        except asyncio.CancelledError:
            ends["CancelledError"] += 1
        else:
            ends["answer"] += 1
            assert len(response.outputs[0].data) == len(response.request.inputs[0].data)  # type: ignore[union-attr]

    tasks: list[asyncio.Task[None]] = []
    for _ in range(REQUESTS):
        tasks.append(asyncio.create_task(one()))
        if chance.random() < 0.3:
            await asyncio.sleep(0)  # lets some begin, some wait, some end
        if chance.random() < cancelled_ratio:
            chance.choice(tasks[-20:]).cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        assert found is None or isinstance(found, asyncio.CancelledError)

    began = sum(ends.values())
    assert began + sum(task.cancelled() for task in tasks) == REQUESTS
    assert (bench.plane.inflight, bench.queued) == (0, 0)
    assert ends["answer"] == len(bench.events.finished) > 0
    assert Counter(bench.events.refused) == Counter({name: count for name, count in ends.items() if name != "answer"})
    return ends
