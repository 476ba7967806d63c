"""Requests under a memory budget that is smaller than the ladder: answered all, whatever is evicted meanwhile."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import DeadlineExceeded, Draining, ModelNotReady, Overloaded
from service.domain.inference import Knobs
from service.domain.policy_file import PolicyFile
from service.engine import holding
from service.engine.backends.stub import StubBackend
from tests.builders import ModelPlan, VariantPlan, make_request, replace_file, sums_onnx, write_repository
from tests.service.engine.held import MIB, SCALES, SUMS, HeldBench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path


@pytest.fixture
async def make_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., HeldBench]]:
    monkeypatch.setattr(holding, "_REVIEW_EVERY_S", 1e6)  # only the tests review
    async with AsyncExitStack() as stack:

        def make(
            budget_mib: float | None, models: Sequence[ModelPlan] = (SUMS,), policy: PolicyFile | None = None
        ) -> HeldBench:
            root = write_repository(tmp_path / "repository", models)
            bench = HeldBench(root, None if budget_mib is None else int(budget_mib * MIB), policy)
            stack.push_async_callback(bench.close)
            bench.start()
            return bench

        yield make


def hold_runs(bench: HeldBench, variant: str, gate: threading.Event) -> list[int]:
    """Hold the runs of a variant at a gate; return the list of batches that grows with each."""
    backend = bench.registry.get("sums").backends[variant]
    assert isinstance(backend, StubBackend)
    backend.gate = bench.gates["held back"] = gate
    return backend.batches


async def until(condition: Callable[[], bool]) -> None:
    """Let the other threads go on until a condition holds; the test's own timeout ends what never does."""
    while not condition():
        await asyncio.to_thread(lambda: None)


async def test_without_a_budget_everything_is_held(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(None)
    assert bench.state() == dict.fromkeys(SCALES, "ready")
    assert bench.events.held == [("full", "model"), ("quantized", "model"), ("distilled", "model")]


async def test_what_finds_no_room_is_verified_and_evicted(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(8)
    assert bench.state() == {"full": "ready", "quantized": "evicted", "distilled": "ready"}
    assert bench.opened == ["sums/full", "sums/distilled"]
    assert bench.plane.artifact("sums", "quantized", Knobs()).path.read_bytes() == sums_onnx(2.0)
    (row,) = bench.registry.index()
    assert (row.state, row.reason) == ("READY", "variant quantized: evicted: loaded when a request needs it")
    assert bench.plane.is_model_ready("sums--quantized", "")
    (report,) = [item for item in bench.plane.explain("sums", Knobs()).candidates if item.variant == "quantized"]
    assert (report.is_candidate, report.why) == (False, "evicted: loaded when a request needs it")


async def test_a_pin_brings_its_variant_and_the_least_used_makes_room(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(8)
    response = await bench.ask("quantized")
    assert (response.answer.variant, response.outputs[0].data.tolist()) == ("quantized", [[8.0]])
    assert bench.held() == {"quantized", "distilled"}
    assert (bench.events.evicted, bench.events.held[-1]) == (["full"], ("quantized", "demand"))
    assert bench.holding.held_bytes == 3 * MIB


async def test_a_tier_or_a_floor_brings_what_it_needs(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(8)
    response = await bench.plane.infer(make_request(knobs=Knobs(tier="quantized")))
    assert response.answer.variant == "quantized"
    assert (await bench.ask(min_accuracy=0.93)).answer.variant == "quantized", "what is held is good enough"
    assert (await bench.ask(min_accuracy=0.945)).answer.variant == "full"


async def test_without_a_pin_what_is_held_answers(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(7)
    await bench.ask("quantized")  # takes the place of the full one
    response = await bench.ask()
    assert response.answer.variant == "quantized"
    assert bench.held() == {"quantized", "distilled"}


async def test_those_who_wait_share_one_load(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(8)
    bench.opening.clear()
    tasks = [asyncio.create_task(bench.ask("quantized")) for _ in range(20)]
    await until(lambda: bench.dispatcher.parking.is_busy_with(bench.registry.get("sums"), ()))
    bench.opening.set()
    assert {response.answer.variant for response in await asyncio.gather(*tasks)} == {"quantized"}
    assert bench.opened.count("sums/quantized") == 1


async def test_the_hard_deadline_holds_while_a_variant_is_loaded(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(8)
    bench.opening.clear()
    with pytest.raises(DeadlineExceeded):
        await bench.ask("quantized", timeout_s=0.02)
    bench.opening.set()
    assert (await bench.ask("quantized")).answer.variant == "quantized"


async def test_a_client_that_leaves_frees_its_place(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(8)
    bench.opening.clear()
    task = asyncio.create_task(bench.ask("quantized"))
    model, parking = bench.registry.get("sums"), bench.dispatcher.parking
    await until(lambda: parking.is_busy_with(model, ()))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not parking.is_busy_with(model, ())


async def test_no_more_wait_for_a_variant_than_for_a_lane(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(8, policy=PolicyFile.model_validate({"default": {"max_queued": 2}}))
    bench.opening.clear()
    tasks = [asyncio.create_task(bench.ask("quantized")) for _ in range(3)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    assert [type(task.exception()) for task in done] == [Overloaded]
    assert (await bench.ask(budget_s=1e-4)).answer.variant != "quantized", "who needs nothing evicted is let in"
    bench.opening.set()
    await asyncio.wait(tasks)


async def test_runs_on_an_evicted_variant_finish_first(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(8)
    gate = threading.Event()
    batches = hold_runs(bench, "full", gate)
    warm = len(batches)
    running = [asyncio.create_task(bench.ask("full")) for _ in range(5)]
    await until(lambda: len(batches) > warm)  # a lane is inside
    coming = asyncio.create_task(bench.ask("quantized"))
    await until(lambda: bench.state()["full"] == "evicted")
    late = asyncio.create_task(bench.ask("full"))
    assert "sums/quantized" not in bench.opened
    assert bench.holding.held_bytes == 7 * MIB
    gate.set()
    answers = await asyncio.gather(*running, coming, late)
    assert [item.answer.variant for item in answers] == ["full"] * 5 + ["quantized", "full"]
    assert bench.most_bytes <= 8 * MIB


async def test_demand_brings_a_more_accurate_variant_when_it_pays(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(7)
    await bench.ask("quantized")
    assert bench.held() == {"quantized", "distilled"}
    for _ in range(40):
        await bench.ask(budget_s=10.0)
    bench.holding.review()
    assert bench.held() == {"full", "distilled"}
    assert bench.events.held[-1] == ("full", "swap")
    assert (await bench.ask(budget_s=10.0)).answer.variant == "full"


async def test_room_that_becomes_free_is_filled(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(8.5, (SUMS, ModelPlan("others", variants=(VariantPlan("full", "full", 0.9, 0.1, 4.0),))))
    assert (bench.held(), bench.holding.held_bytes) == ({"full", "distilled"}, 8 * MIB)
    await bench.ask("quantized")
    assert (bench.held(), bench.holding.held_bytes) == ({"quantized", "distilled"}, 4 * MIB)
    bench.holding.review()
    assert bench.held() == {"quantized", "distilled"}, "the full one does not fit"
    await bench.plane.unload_model("others")
    bench.holding.review()
    assert bench.holding.held_bytes == 3 * MIB


async def test_what_fits_into_free_room_comes_back_unasked(make_held: Callable[..., HeldBench]) -> None:
    small = VariantPlan("distilled", "distilled", 0.86, 0.0001, scale=3.0, memory_bytes=3 * MIB)
    bench = make_held(7, (ModelPlan(variants=(*SUMS.variants[:2], small)),))
    assert bench.held() == {"quantized", "distilled"}
    await bench.ask("full")
    assert bench.held() == {"full"}
    bench.holding.review()
    assert bench.held() == {"full"}
    await bench.ask("distilled")
    assert bench.held() == {"distilled"}
    bench.holding.review()
    assert (bench.held(), bench.events.held[-1]) == ({"quantized", "distilled"}, ("quantized", "room"))


async def test_a_variant_whose_file_broke_fails_with_the_reason_and_the_others_serve(
    make_held: Callable[..., HeldBench],
) -> None:
    bench = make_held(8)
    path = bench.root / "sums" / "1" / "quantized.onnx"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"x")
    with pytest.raises(
        ModelNotReady, match=r"'quantized' of model 'sums' cannot be loaded: quantized\.onnx has sha256"
    ):
        await bench.ask("quantized")
    assert (bench.state()["quantized"], bench.events.failed) == ("failed", ["quantized"])
    assert (await bench.ask(min_accuracy=0.9)).answer.variant == "full"
    with pytest.raises(ModelNotReady, match=r"is not ready: quantized\.onnx has sha256"):  # at once: it rests
        await bench.ask("quantized")
    path.write_bytes(good)
    bench.registry.get("sums").health["quantized"].out_until_s = 0.0  # the rest is over
    assert (await bench.ask("quantized")).answer.variant == "quantized"
    assert bench.state()["quantized"] == "ready"


async def test_equal_weights_are_held_once(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(9, (SUMS, ModelPlan("twins", variants=SUMS.variants)))
    assert bench.opened == ["sums/full", "sums/quantized", "sums/distilled"]
    assert bench.holding.held_bytes == 9 * MIB
    mine, theirs = bench.registry.get("sums").backends, bench.registry.get("twins").backends
    assert all(mine[name] is theirs[name] for name in SCALES)
    await bench.plane.unload_model("sums")
    bench.holding.review()
    assert (bench.holding.held_bytes, bench.state("twins")) == (9 * MIB, dict.fromkeys(SCALES, "ready"))


async def test_a_reload_of_the_same_files_loads_nothing_twice(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(8)
    before = bench.registry.get("sums").backends["full"]
    await bench.plane.load_model("sums")
    bench.holding.review()
    assert bench.registry.get("sums").backends["full"] is before
    assert (bench.opened, bench.holding.held_bytes) == (["sums/full", "sums/distilled"], 7 * MIB)


async def test_a_reload_of_other_files_keeps_the_budget(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(8)
    replace_file(bench.root / "sums" / "1", "full", sums_onnx(4.0))
    await bench.plane.load_model("sums")
    assert (await bench.ask("full")).answer.variant == "full"
    assert bench.most_bytes <= 8 * MIB


async def test_a_model_that_cannot_hold_one_variant_is_refused_with_the_numbers(
    make_held: Callable[..., HeldBench],
) -> None:
    bench = make_held(1.5, (SUMS, ModelPlan("tight", variants=(SUMS.variants[1],))))
    assert bench.state() == {"full": "failed", "quantized": "failed", "distilled": "ready"}
    with pytest.raises(ModelNotReady, match=r"quantized: it needs 2\.0 MiB; the memory budget is 1\.5 MiB"):
        bench.registry.get("tight")


async def test_models_that_do_not_fit_together_are_refused_with_the_numbers(
    make_held: Callable[..., HeldBench],
) -> None:
    more = (ModelPlan("more", variants=(VariantPlan("distilled", "distilled", 0.8, 0.001, 7.0, memory_bytes=MIB),)),)
    bench = make_held(1.5, (*more, SUMS))
    assert bench.registry.get("more").info.name == "more"
    with pytest.raises(
        ModelNotReady, match=r"distilled: it needs 1\.0 MiB of a memory budget of 1\.5 MiB, of which 1\.0"
    ):
        bench.registry.get("sums")


async def test_a_pin_that_cannot_fit_beside_the_other_models_is_refused_with_the_numbers(
    make_held: Callable[..., HeldBench],
) -> None:
    other = ModelPlan("other", variants=(VariantPlan("quantized", "quantized", 0.9, 0.001, 5.0, memory_bytes=3 * MIB),))
    bench = make_held(8, (SUMS, other))
    with pytest.raises(ModelNotReady, match=r"it needs 6\.0 MiB of a memory budget of 8\.0 MiB"):
        await bench.ask("full")
    assert (await bench.ask(model="other")).answer.variant == "quantized"


async def test_closing_ends_those_that_wait_for_a_variant(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(8)
    bench.opening.clear()
    task = asyncio.create_task(bench.ask("quantized"))
    await until(lambda: bench.dispatcher.parking.is_busy_with(bench.registry.get("sums"), ()))
    bench.dispatcher.abandon()
    with pytest.raises(Draining):
        await task


async def test_thousands_of_mixed_requests_all_get_what_they_asked_for(make_held: Callable[..., HeldBench]) -> None:
    others = ModelPlan("others", variants=SUMS.variants[1:])
    bench = make_held(7, (SUMS, others, ModelPlan("twins", variants=SUMS.variants)))
    chance = random.Random(5)  # noqa: S311 - a repeatable mix, no secret
    answers: Counter[str] = Counter()

    async def one() -> None:
        model = chance.choice(["sums", "others", "twins"])
        names = [item.variant.name for item in bench.registry.states(model, 0.0)]
        pin = chance.choice([None, None, *names])
        response = await bench.ask(pin, model, budget_s=chance.choice([0.001, 1.0]))
        variant = response.answer.variant
        assert pin in (None, variant)
        assert response.outputs[0].data.tolist() == [[4 * SCALES[variant]]]
        answers[variant] += 1

    for _ in range(20):
        await asyncio.gather(*[one() for _ in range(100)])
        bench.holding.review()
    assert sum(answers.values()) == 2000
    assert set(answers) == set(SCALES)
    assert len(bench.events.evicted) > 10
    assert bench.most_bytes <= 7 * MIB
    assert bench.holding.held_bytes <= 7 * MIB


async def test_a_request_that_needs_nothing_evicted_asks_nobody(make_held: Callable[..., HeldBench]) -> None:
    bench = make_held(None)
    parking = bench.dispatcher.parking
    del bench.dispatcher.parking
    assert (await bench.ask("full")).answer.variant == "full"
    bench.dispatcher.parking = parking
