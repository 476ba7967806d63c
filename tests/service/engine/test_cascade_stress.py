"""Thousands of requests whose cascades are cut short in every way: each ends exactly once, nothing is left."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import pytest

from service.domain.inference import Criticality, Knobs
from service.domain.policy_file import ModelPolicy
from service.domain.variants import Cascade
from service.engine.loaded import LoadedModel
from service.policy.routing import Rules
from tests.builders import make_model, make_request, make_variant
from tests.service.engine.cascading import Classifier
from tests.service.engine.storm import REQUESTS, Mischief, storm

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.inference import InferenceRequest
    from tests.service.engine.conftest import Bench

VARIANTS = (
    make_variant("full", 0.92, 0.0015),
    make_variant("quantized", 0.90, 0.0007),
    make_variant("small", 0.86, 0.0001),
)
CASCADES = (
    Cascade("small", "full", margin=1.0, escalated_ratio=0.3, accuracy=0.915),
    Cascade("small", "quantized", margin=0.5, escalated_ratio=0.1, accuracy=0.88),
)


def add_cascading(bench: Bench, **settings: object) -> LoadedModel:
    stubs = {item.name: Classifier(scale) for scale, item in enumerate(VARIANTS, start=1)}
    bench.stubs |= stubs
    policy = ModelPolicy.model_validate({"cascades": True, "objective": "cost", "max_accuracy_loss": 0.01} | settings)
    info = make_model(VARIANTS, "digits", cascades=CASCADES)
    model = LoadedModel(info, Rules(policy, {}, 60.0), stubs)
    bench.registry.adopt(model)
    return model


@pytest.mark.parametrize("inline_s", [0.0, 0.0002], ids=["lanes", "inline"])
async def test_every_request_ends_exactly_once_whatever_befalls_its_cascade(
    make_bench: Callable[..., Bench], inline_s: float
) -> None:
    bench = make_bench(lanes=2, inline_s=inline_s, clock=time.perf_counter)
    model = add_cascading(bench, max_queued=50, default_budget_ms=5.0)
    chance = random.Random(13)  # noqa: S311 - a repeatable mix, no secret
    for number, name in enumerate(("full", "quantized", "small")):
        bench.stubs[name].fails = Mischief(number)

    def make() -> InferenceRequest:
        knobs = Knobs(
            budget_s=chance.choice([None, 0.003, 0.05]),
            timeout_s=chance.choice([None, None, 0.002, 0.01, 1.0]),
            variant=chance.choice([None, None, None, "full"]),
            criticality=chance.choice(list(Criticality)),
        )
        value = 666.0 if chance.random() < 0.02 else chance.choice([0.02, 0.2, 1.0])
        return make_request(value, chance.randint(1, 4), knobs, "digits")

    await storm(bench, chance, make, cancelled_ratio=0.1)
    await asyncio.to_thread(bench.lanes.close)
    assert bench.is_at_rest()
    assert model.queue.work_s(2) == pytest.approx(0.0, abs=1e-9)


async def test_no_request_is_refused_or_fails_for_the_sake_of_a_cascade(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(lanes=2)
    model = add_cascading(bench, max_queued=REQUESTS)
    bench.stubs["full"].fails = Mischief(1)  # one second stage in ten
    chance = random.Random(17)  # noqa: S311 - a repeatable mix, no secret
    margins = [chance.choice([0.02, 1.0, 1.0]) for _ in range(REQUESTS)]
    knobs = [Knobs(budget_s=chance.choice([5.0, 20.0])) for _ in range(REQUESTS)]
    responses = []
    for start in range(0, REQUESTS, 50):
        wave = zip(margins[start : start + 50], knobs[start : start + 50], strict=True)
        responses += await asyncio.gather(
            *[bench.plane.infer(make_request(margin, knobs=knob, model="digits")) for margin, knob in wave]
        )
    assert [len(response.outputs[0].data) for response in responses] == [1] * REQUESTS
    asked_again = [
        response.answer.variant == "full" for margin, response in zip(margins, responses, strict=True) if margin < 0.1
    ]
    assert sum(asked_again) > len(asked_again) / 2
    assert bench.events.shed == bench.events.expired == []
    assert model.standing.losses.ratio == 0.0
    await asyncio.to_thread(bench.lanes.close)
    assert bench.is_at_rest()
