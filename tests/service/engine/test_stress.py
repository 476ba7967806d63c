"""Thousands of requests that fail, expire, are cancelled and displaced: each ends exactly once, nothing is left."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from service.domain.errors import TiergateError
from service.domain.inference import Criticality, Knobs
from service.domain.policy_file import ModelPolicy
from tests.builders import LADDER, make_request, make_variant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from tests.service.engine.conftest import Bench

REQUESTS = 2000
QUICK = tuple(make_variant(item.name, item.accuracy, item.profile.cells[0].p50_s / 20) for item in LADDER)


class Mischief:
    """Fails one run in ten, and any run of a poisoned request."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a repeatable mix, no secret

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> bool:
        return bool((inputs["x"] == 666.0).any()) or self._random.random() < 0.1


@pytest.mark.parametrize("inline_s", [0.0, 0.0002], ids=["lanes", "inline"])
async def test_every_request_ends_exactly_once_whatever_befalls_it(
    make_bench: Callable[..., Bench], inline_s: float
) -> None:
    policy = ModelPolicy(max_queued=50, default_budget_ms=5.0)
    bench = make_bench(variants=QUICK, policy=policy, lanes=2, inline_s=inline_s)
    chance = random.Random(11)  # noqa: S311 - a repeatable mix, no secret
    for number, stub in enumerate(bench.stubs.values()):
        stub.fails = Mischief(number)
    ends: Counter[str] = Counter()

    async def one() -> None:
        value = 666.0 if chance.random() < 0.02 else chance.random()
        knobs = Knobs(
            budget_s=chance.choice([None, 0.001, 0.05]),
            timeout_s=chance.choice([None, 0.0005, 0.002, 0.01, 1.0]),
            variant=chance.choice([None, None, None, "full"]),
            criticality=chance.choice(list(Criticality)),
        )
        try:
            response = await bench.plane.infer(make_request(value, chance.randint(1, 8), knobs))
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
        if chance.random() < 0.2:
            chance.choice(tasks[-20:]).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    began = sum(ends.values())
    assert began + sum(task.cancelled() for task in tasks) == REQUESTS
    assert (bench.plane.inflight, bench.queued) == (0, 0)
    assert ends["answer"] == len(bench.events.finished) > 0
    assert Counter(bench.events.refused) == Counter({name: count for name, count in ends.items() if name != "answer"})
    # A client may leave in the moment between its deadline and the error.
    assert len(bench.events.expired) <= ends["DeadlineExceeded"] + ends["CancelledError"]
    (found,) = bench.plane.statistics("sums", "")
    assert (found.success.count, found.fail.count) == (ends["answer"], began - ends["answer"])
    await asyncio.to_thread(bench.lanes.close)
    assert bench.is_at_rest()
    assert bench.model.queue.work_s(2) == pytest.approx(0.0, abs=1e-9)
