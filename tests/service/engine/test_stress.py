"""Thousands of requests that fail, expire, are cancelled and displaced: each ends exactly once, nothing is left."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import pytest

from service.domain.inference import Criticality, Knobs
from service.domain.policy_file import ModelPolicy
from tests.builders import LADDER, make_request, make_variant
from tests.service.engine.storm import Mischief, storm

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.inference import InferenceRequest
    from tests.service.engine.conftest import Bench

QUICK = tuple(make_variant(item.name, item.accuracy, item.profile.cells[0].p50_s / 20) for item in LADDER)


@pytest.mark.parametrize("inline_s", [0.0, 0.0002], ids=["lanes", "inline"])
async def test_every_request_ends_exactly_once_whatever_befalls_it(
    make_bench: Callable[..., Bench], inline_s: float
) -> None:
    policy = ModelPolicy(max_queued=50, default_budget_ms=5.0)
    bench = make_bench(variants=QUICK, policy=policy, lanes=2, inline_s=inline_s, clock=time.perf_counter)
    chance = random.Random(11)  # noqa: S311 - a repeatable mix, no secret
    for number, stub in enumerate(bench.stubs.values()):
        stub.fails = Mischief(number)

    def make() -> InferenceRequest:
        value = 666.0 if chance.random() < 0.02 else chance.random()
        knobs = Knobs(
            budget_s=chance.choice([None, 0.001, 0.05]),
            timeout_s=chance.choice([None, 0.0005, 0.002, 0.01, 1.0]),
            variant=chance.choice([None, None, None, "full"]),
            criticality=chance.choice(list(Criticality)),
        )
        return make_request(value, chance.randint(1, 8), knobs)

    ends = await storm(bench, chance, make, cancelled_ratio=0.2)
    # A client may leave in the moment between its deadline and the error.
    assert len(bench.events.expired) <= ends["DeadlineExceeded"] + ends["CancelledError"]
    (found,) = bench.plane.statistics("sums", "")
    assert (found.success.count, found.fail.count) == (ends["answer"], ends.total() - ends["answer"])
    await asyncio.to_thread(bench.lanes.close)
    assert bench.is_at_rest()
    assert bench.model.queue.work_s(2) == pytest.approx(0.0, abs=1e-9)
