"""Shadow runs: beside live traffic, never instead of it."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.domain.inference import Knobs
from service.domain.tensors import Tensor, TensorSpec
from service.engine.backends.onnx import OnnxBackend
from service.engine.drift.drift import Drift
from service.engine.drift.keeping import KeepingSettings
from service.engine.drift.shadows import Compared, Ration, Shadows, full_of
from service.engine.drift.spare import SpareTime, processors
from service.engine.drift.taps import ModelTaps, Sample
from tests.builders import make_request, many_nodes_onnx
from tests.service.engine.conftest import Gate, ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from service.engine.backends.backend import Stop
    from service.engine.loaded import LoadedModel
    from tests.service.engine.conftest import Bench

LONGEST_S = 60.0


def sample_of(model: LoadedModel, taken_s: float, judged: tuple[str, ...] = ("quantized",), columns: int = 4) -> Sample:
    inputs = {"x": np.ones((1, columns), dtype=np.float32)}
    return Sample(model, inputs, "quantized", (np.full((1, 1), 8.0, dtype=np.float32),), judged, taken_s)


@pytest.fixture
def shadows(bench: Bench) -> Iterator[Shadows]:
    made = Shadows(lambda: True, bench.clock, cpu_ratio=1.0)
    yield made
    for stub in bench.stubs.values():
        stub.gate.set()
    made.close(LONGEST_S)


async def compared(shadows: Shadows) -> Compared:
    return await asyncio.to_thread(shadows.done.get, timeout=LONGEST_S)


async def test_sample_is_run_on_full_and_on_each_judged_variant_that_did_not_answer(
    bench: Bench, shadows: Shadows
) -> None:
    shadows.start()
    assert shadows.offer(sample_of(bench.model, bench.clock(), ("quantized", "distilled-quantized")))
    found = await compared(shadows)
    assert found.full[0].tolist() == [[4.0]]
    assert found.answers["quantized"][0].tolist() == [[8.0]]  # as it was answered: not run again
    assert found.answers["distilled-quantized"][0].tolist() == [[16.0]]
    assert (bench.stubs["full"].batches, bench.stubs["quantized"].batches) == ([1], [])
    assert shadows.scheduling in ("idle", "nice")


async def test_witnesses_that_are_in_memory_are_run_too(bench: Bench, shadows: Shadows) -> None:
    bench.model.evict("pruned")
    bench.model.drop("pruned")
    shadows.start()
    sample = replace(
        sample_of(bench.model, bench.clock()), summon=lambda *_: ("pruned", "distilled-quantized", "quantized")
    )
    assert shadows.offer(sample)
    found = await compared(shadows)
    assert set(found.answers) == {"quantized"}
    assert {name: answer[0].tolist() for name, answer in found.heard.items()} == {
        "full": [[4.0]],
        "quantized": [[8.0]],
        "distilled-quantized": [[16.0]],
    }


async def test_witness_that_fails_keeps_no_difference_from_being_counted(bench: Bench, shadows: Shadows) -> None:
    bench.stubs["distilled-quantized"].fails = lambda _: True
    shadows.start()
    assert shadows.offer(replace(sample_of(bench.model, bench.clock()), summon=lambda *_: ("distilled-quantized",)))
    found = await compared(shadows)
    assert set(found.heard) == {"full", "quantized"}
    assert shadows.counts("sums", "quantized")["failed"] == 0


async def test_stuck_shadow_run_holds_no_lane(bench: Bench, shadows: Shadows) -> None:
    gate = Gate()
    bench.stubs["full"].gate = gate
    shadows.start()
    shadows.offer(sample_of(bench.model, bench.clock()))
    await gate.reached()
    for _ in range(5):
        response = await bench.plane.infer(make_request(knobs=Knobs(variant="quantized")))
        assert response.answer.variant == "quantized"
    assert all(not lane.is_busy for lane in bench.dispatcher.desk.lanes)
    gate.set()
    await compared(shadows)


class Hanging(OnnxBackend):
    """ONNX Runtime with runs that take days."""

    def __init__(self) -> None:
        super().__init__(
            many_nodes_onnx(10**12), [TensorSpec("x", "FP32", (-1, 4))], [TensorSpec("y", "FP32", (-1, 1))], {}
        )
        self.has_begun, self.has_ended = threading.Event(), threading.Event()

    def run(self, inputs: Mapping[str, NDArray[Any]], stop: Stop | None = None) -> tuple[NDArray[Any], ...]:
        self.has_begun.set()
        try:
            return super().run(inputs, stop)
        finally:
            self.has_ended.set()


async def test_run_that_hangs_is_broken_off_and_the_next_one_is_made(
    bench: Bench, shadows: Shadows, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    bench.model.backends = {**bench.stubs, "full": hanging}
    shadows.start()
    shadows.offer(sample_of(bench.model, bench.clock()))
    hanging.has_begun.wait()
    shadows.look()  # half a minute of CPU time has not passed
    assert not hanging.has_ended.is_set()
    monkeypatch.setattr("service.engine.drift.shadows._HANGS_CPU_S", 0.1)
    while not hanging.has_ended.wait(0.01):
        shadows.look()
    bench.model.backends = bench.stubs
    shadows.offer(sample_of(bench.model, bench.clock()))
    await compared(shadows)
    assert shadows.counts("sums", "quantized")["failed"] == 1


async def test_watch_breaks_off_what_hangs(make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench(clock=time.perf_counter)
    drift = Drift(bench.registry, bench.dispatcher, KeepingSettings(), time.time)
    drift.idle_ratio = lambda: 1.0
    hanging = Hanging()
    bench.model.backends = {**bench.stubs, "full": hanging}
    monkeypatch.setattr("service.engine.drift.shadows._HANGS_CPU_S", 0.1)
    await drift.start()
    try:
        drift.shadows.offer(sample_of(bench.model, bench.clock()))
        await asyncio.to_thread(hanging.has_ended.wait)
    finally:
        drift.close(LONGEST_S)


async def test_run_that_hangs_ends_when_the_shadows_are_closed_and_no_other_begins(bench: Bench) -> None:
    others = set(threading.enumerate())
    shadows = Shadows(lambda: True, bench.clock, cpu_ratio=1.0)
    hanging = Hanging()
    bench.model.backends = {**bench.stubs, "full": hanging}
    for _ in range(3):
        shadows.offer(sample_of(bench.model, bench.clock()))
    shadows.start()
    hanging.has_begun.wait()
    await asyncio.to_thread(shadows.close, LONGEST_S)
    counts = shadows.counts("sums", "quantized")
    assert counts["failed"] == sum(counts.values()) == 1
    assert "shadows" not in [thread.name for thread in set(threading.enumerate()) - others]


async def test_run_that_fails_is_counted_and_the_next_one_is_made(bench: Bench, shadows: Shadows) -> None:
    outcomes = [True, False]
    bench.stubs["full"].fails = lambda _: outcomes.pop(0)
    shadows.start()
    for _ in range(2):
        shadows.offer(sample_of(bench.model, bench.clock()))
    await compared(shadows)
    counts = shadows.counts("sums", "quantized")
    assert counts["failed"] == 1


def test_samples_beyond_the_queue_are_dropped(bench: Bench, shadows: Shadows) -> None:
    taken = [shadows.offer(sample_of(bench.model, bench.clock())) for _ in range(70)]
    assert sum(taken) == 64
    assert shadows.counts("sums", "quantized")["full_queue"] == 6


def test_samples_beyond_the_bytes_are_dropped(bench: Bench, shadows: Shadows) -> None:
    taken = [shadows.offer(sample_of(bench.model, bench.clock(), columns=8 * 2**20)) for _ in range(3)]
    assert taken == [True, False, False]  # 32 MiB each, and a few bytes; 64 MiB are allowed


def test_nothing_is_queued_where_live_requests_wait_or_processors_are_busy_or_full_is_not_held(bench: Bench) -> None:
    calm = [False, True, True]
    shadows = Shadows(lambda: calm.pop(0), bench.clock)
    assert not shadows.offer(sample_of(bench.model, bench.clock()))
    shadows.has_spare = False
    assert not shadows.offer(sample_of(bench.model, bench.clock()))
    shadows.has_spare = True
    bench.model.evict("full")
    bench.model.drop("full")
    assert not shadows.offer(sample_of(bench.model, bench.clock()))
    counts = shadows.counts("sums", "quantized")
    assert (counts["busy"], counts["not_held"]) == (2, 1)


async def test_sample_that_waited_too_long_is_not_run(bench: Bench, manual_clock: ManualClock) -> None:
    shadows = Shadows(lambda: True, manual_clock, cpu_ratio=1.0)
    shadows.offer(sample_of(bench.model, manual_clock.now_s))
    manual_clock.now_s += 10.0
    shadows.offer(sample_of(bench.model, manual_clock.now_s))
    shadows.start()
    await compared(shadows)
    shadows.close(LONGEST_S)
    counts = shadows.counts("sums", "quantized")
    assert (counts["stale"], counts["compared"]) == (1, 1)


def test_ration_goes_into_debt_once_and_saves_up_for_half_a_second() -> None:
    ration = Ration(0.02, 0.0)
    assert ration.has_some(0.0)
    ration.spend(0.09, 0.0)  # 0.01 were there
    assert not ration.has_some(3.9)
    assert ration.has_some(4.1)
    ration.spend(0.01 + 0.01, 1000.0)
    assert not ration.has_some(1000.4)
    assert ration.has_some(1000.6)


def test_what_another_thread_spends_on_samples_is_taken_off_the_ration(bench: Bench, manual_clock: ManualClock) -> None:
    shadows = Shadows(lambda: True, manual_clock)
    assert shadows.offer(sample_of(bench.model, manual_clock.now_s))
    shadows.charge(60.0)
    assert not shadows.offer(sample_of(bench.model, manual_clock.now_s))
    assert shadows.counts("sums", "quantized")["no_cpu_time"] == 1


async def test_run_is_taken_off_the_ration(bench: Bench, manual_clock: ManualClock) -> None:
    shadows = Shadows(lambda: True, manual_clock, cpu_ratio=1e-9)  # any run takes more
    assert shadows.offer(sample_of(bench.model, manual_clock.now_s))
    shadows.start()
    await compared(shadows)
    shadows.close(LONGEST_S)
    assert not shadows.offer(sample_of(bench.model, manual_clock.now_s))
    assert shadows.counts("sums", "quantized")["no_cpu_time"] == 1


def test_no_more_answers_are_taken_than_allowed_however_many_come(bench: Bench) -> None:
    shadows = Shadows(lambda: False, bench.clock)  # each is refused, and counted
    taps = ModelTaps(bench.model, shadows, seed=0)
    tap = taps.taps["quantized"]
    tap.set(1.0, 1.0, {})
    answer = SimpleNamespace(variant="quantized", outputs=(np.ones((1, 1), dtype=np.float32),))
    ticket = SimpleNamespace(request=make_request(), waiting=SimpleNamespace(rows=1), kept=None)
    for allowed in (3.0, 2.0):
        tap.shadow_allowance.allow(allowed)
        tap.watch_allowance.allow(allowed + 1.0)
        for _ in range(50):
            taps.answered(ticket, answer)  # type: ignore[arg-type] # what it looks at of them
    assert shadows.counts("sums", "quantized")["busy"] == 3 + 2
    assert (len(taps.watched), tap.seen) == (4 + 3, 100)


def test_model_whose_full_variant_is_elsewhere_has_none_here(bench: Bench) -> None:
    assert full_of(bench.model) == "full"
    bench.model.standing.pools = {"full": "sums--full"}
    assert full_of(bench.model) == ""


def test_variant_that_answered_is_compared_where_it_is_in_memory_no_more(bench: Bench, shadows: Shadows) -> None:
    bench.model.evict("quantized")
    bench.model.drop("quantized")
    shadows.offer(sample_of(bench.model, bench.clock()))
    shadows.offer(sample_of(bench.model, bench.clock(), ("distilled-quantized",)))
    shadows.start()
    assert shadows.done.get(timeout=LONGEST_S).answers["quantized"][0].tolist() == [[8.0]]


def test_limit_of_a_container_counts_and_not_its_machine(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    allowed = processors(quota)
    for text, wanted in (("max 100000", allowed), ("50000 100000", 0.5), ("99900000 100000", allowed), ("", allowed)):
        quota.write_text(text, encoding="ascii")
        assert processors(quota) == wanted


def test_idle_share_is_that_of_the_allowed_processors_between_two_looks(tmp_path: Path) -> None:
    statistics = tmp_path / "stat"

    def write(idle: int, busy: int) -> None:
        lines = [f"cpu{core} {busy} 0 0 {idle} 0 0 0 0 0 0" for core in range(256)]
        statistics.write_text("\n".join(["cpu 1 1 1 1 1 1 1 1 1 1", *lines, "intr 5"]), encoding="ascii")

    write(100, 100)
    spare = SpareTime(statistics)
    write(130, 110)
    assert spare.look() == pytest.approx(0.75)
    write(130, 120)
    assert spare.look() == pytest.approx(0.0)
    statistics.unlink()
    assert SpareTime(statistics).look() == 1.0


async def test_same_seed_takes_the_same_answers(make_bench: Callable[..., Bench]) -> None:
    chosen = []
    for seed in (7, 7, 8):
        bench = make_bench(lanes=1)
        taps = ModelTaps(bench.model, Shadows(lambda: True, bench.clock), seed)
        for tap in taps.taps.values():
            tap.set(0.0, 0.2, {})
        bench.model.on_answer = taps.answered
        sizes = []
        for _ in range(100):
            await bench.plane.infer(make_request(knobs=Knobs(variant="quantized")))
            sizes.append(len(taps.watched))
        chosen.append(sizes)
    assert chosen[0] == chosen[1] != chosen[2]
    assert 5 < chosen[0][-1] < 40


async def test_one_row_of_many_is_taken_and_holds_the_others_no_longer(bench: Bench) -> None:
    taps = ModelTaps(bench.model, Shadows(lambda: True, bench.clock), seed=0)
    taps.taps["quantized"].set(0.0, 1.0, {})
    bench.model.on_answer = taps.answered
    await bench.plane.infer(make_request(rows=8, knobs=Knobs(variant="quantized")))
    await bench.told()
    (taken,) = taps.watched
    assert taken.inputs["x"].shape == (1, 4)
    assert taken.inputs["x"].base is None
    assert taken.outputs[0].tolist() == [[8.0]]


def test_samples_to_watch_are_bounded_by_all_that_they_hold_texts_too(bench: Bench) -> None:
    taps = ModelTaps(bench.model, Shadows(lambda: True, bench.clock), seed=0)
    text = np.empty((1, 1), dtype=np.object_)
    text[0, 0] = b"x" * 6 * 2**20
    request = make_request(knobs=Knobs(variant="quantized"))
    request = replace(request, inputs=(Tensor("x", "BYTES", text),))
    ticket = SimpleNamespace(request=request, waiting=SimpleNamespace(rows=1), kept=None)
    outcome = SimpleNamespace(variant="quantized", outputs=(np.ones((1, 1), dtype=np.float32),))
    taps.taps["quantized"].set(0.0, 1.0, {})
    for held in (1, 2, 2):  # 16 MiB are allowed
        taps.answered(ticket, outcome)  # type: ignore[arg-type] # what it looks at of them
        assert len(taps.watched) == held
    assert len(taps.take_watched()) == 2
    taps.answered(ticket, outcome)  # type: ignore[arg-type] # as above
    assert len(taps.watched) == 1


def test_of_a_cascade_the_first_stages_answer_is_kept_for_labels(bench: Bench) -> None:
    taps = ModelTaps(bench.model, Shadows(lambda: True, bench.clock), seed=0)
    taps.kept_share = 1.0
    first, second = (
        SimpleNamespace(variant=name, outputs=(np.full((1, 1), value, dtype=np.float32),))
        for name, value in (("quantized", 1.0), ("full", 2.0))
    )
    ticket = SimpleNamespace(request=make_request(), waiting=SimpleNamespace(rows=1), kept=first)
    taps.answered(ticket, second)  # type: ignore[arg-type] # what it looks at of them
    assert [(item.variant, item.output.tolist()) for item in taps.kept] == [("quantized", [[1.0]])]


async def test_answer_is_given_where_looking_at_it_fails(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    taps = ModelTaps(bench.model, Shadows(lambda: True, bench.clock), seed=0)
    taps.taps["quantized"].chance = None  # type: ignore[assignment] # any fault will do
    bench.model.on_answer = taps.answered
    for _ in range(2):
        response = await bench.plane.infer(make_request(knobs=Knobs(variant="quantized")))
        assert response.answer.variant == "quantized"
    await bench.told()
    assert taps.failed == 2
    assert [record.getMessage() for record in caplog.records] == ["looking at an answer for drift failed"]
