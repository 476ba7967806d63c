"""Profiles have every cell, in order, and plausible figures; nothing here depends on how fast the machine is."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from variants.contention import Others
from variants.errors import BuildError
from variants.figures import summary
from variants.machine import describe_machine, detect_isa, proven_isa, verified_isa
from variants.profiling import measure_footprints, measure_speed, profile_latency
from variants.progress import LineProgress, SilentProgress
from variants.recipe import Profiling
from variants.report import render_html

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from variants.build import BuildResult
    from variants.manifest import ModelManifest
    from variants.recipe import Recipe


def test_profile_has_every_cell(built: BuildResult, tiny: Recipe) -> None:
    files = {name: built.folder / f"{name}.onnx" for name in ("full", "distilled")}
    plan = Profiling(batch_sizes=(1, 200), threads=(1, 2), rounds=3, runs=6, cell_s=60.0, single_row_s=60.0)
    rounds: list[int] = []
    rows = profile_latency(files, tiny.load(0).test.inputs, plan, lambda: rounds.append(1))
    assert len(rounds) == 3
    for cells in rows.values():
        assert [(row.threads, row.batch_size, row.runs) for row in cells] == [
            (1, 1, 6), (1, 200, 6), (2, 1, 6), (2, 200, 6)
        ]  # fmt: skip
        assert all(0 < row.p50_s <= row.p90_s <= row.p95_s <= row.p99_s for row in cells)


def test_profile_stops_a_cell_that_is_out_of_time(built: BuildResult, tiny: Recipe) -> None:
    plan = Profiling(batch_sizes=(1,), threads=(1,), rounds=2, runs=1000, single_row_s=0.0)
    rows = profile_latency({"full": built.folder / "full.onnx"}, tiny.load(0).test.inputs, plan, lambda: None)
    assert rows["full"][0].runs == 4, "two runs in each round at least"


def test_memory_and_cold_start_are_measured(manifest: ModelManifest) -> None:
    for variant in manifest.variants:
        assert variant.memory.peak_bytes >= variant.memory.loaded_bytes > 0
        assert variant.latency.cold_start_s > 0


def test_probe_that_fails_is_reported(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(BuildError, match=r"measuring the memory of broken\.onnx failed"):
        measure_footprints({"broken": tmp_path / "broken.onnx"}, 1, lambda: None)


def test_verified_isa_is_the_path_that_executed() -> None:
    isa = ("avx2", "fma", "avx512f", "avx512_vnni")
    assert verified_isa(isa, is_int8=True) == ("avx512_vnni",)
    assert verified_isa(isa, is_int8=False) == ("avx512f",)
    assert verified_isa(("asimd",), is_int8=True) == ("asimd",)
    assert verified_isa((), is_int8=True) == ()


def test_proven_isa_needs_the_bound() -> None:
    assert proven_isa(fits_int16_pairs=True) == ("avx2", "avx512f")
    assert proven_isa(fits_int16_pairs=False) == ()


def test_load_average_is_the_highest_reading_around_profiling(
    built: BuildResult, tiny: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([0.25, 1.5, 0.75])
    monkeypatch.setattr("os.getloadavg", lambda: (next(readings), 0.0, 0.0))
    files = {"distilled": built.folder / "distilled.onnx"}
    latency, _ = measure_speed(files, tiny.load(0).test.inputs, tiny.plan.profiling, SilentProgress())["distilled"]
    assert latency.load_average == 1.5


def test_a_profile_of_a_busy_machine_says_so(built: BuildResult, tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = describe_machine().cores

    @contextmanager
    def busy() -> Iterator[Others]:
        yield Others(cores=float(cores))

    monkeypatch.setattr("variants.profiling.watch_others", busy)
    told = io.StringIO()
    files = {"distilled": built.folder / "distilled.onnx"}
    speed = measure_speed(files, tiny.load(0).test.inputs, tiny.plan.profiling, LineProgress(told))
    assert speed["distilled"][0].others_cores == cores
    assert f"other processes took {cores:.1f} of {cores} cores" in told.getvalue()
    assert "tiergate measure MODEL" in told.getvalue()


def test_reports_say_that_the_machine_was_busy(manifest: ModelManifest) -> None:
    full, *others = manifest.variants
    machine = manifest.machine.model_copy(update={"cores": 2})
    for taken, is_said in ((None, False), (0.02, False), (1.6, True)):
        latency = full.latency.model_copy(update={"others_cores": taken})
        variants = (full.model_copy(update={"latency": latency}), *others)
        changed = manifest.model_copy(update={"machine": machine, "variants": variants})
        assert ("other processes took 1.6 of 2 cores" in summary(changed)) == is_said
        assert ("other processes took 1.6 of 2 cores" in render_html(changed)) == is_said


def test_machine_names_only_known_instruction_sets() -> None:
    assert len(set(detect_isa())) == len(detect_isa())
