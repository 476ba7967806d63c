"""The bench on a built repository: parts are kept by themselves, and written to the page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtests import build_bench
from loadtests.building import page, timing
from loadtests.building.fresh import compare
from loadtests.building.kept import read_results, write_results
from loadtests.building.picture import draw
from loadtests.building.subjects import RECIPES, BenchError
from tests.builders import DIGEST, write_repository
from tests.loadtests.building.built import results
from variants.manifest import MANIFEST_FILE, read_manifest
from variants.plans import Profiling

if TYPE_CHECKING:
    from pathlib import Path


def test_the_page_names_every_bar_and_where_figures_come_from(tmp_path: Path) -> None:
    place = tmp_path / "page.md"
    place.write_text(f"before\n{page.MARKS.begin}\n{page.MARKS.end}\nafter\n", encoding="utf-8")
    draw(results(), tmp_path / "build.png")
    page.rewrite(place, results(), tmp_path / "build.png")
    written = place.read_text(encoding="utf-8")
    assert "| images, pruned-quantized | >= 10x smaller file" in written
    assert "latency: `bench`, commit abc, 2026-11-22" in written
    assert "(build.png)" in written
    assert written.startswith("before")
    assert written.endswith("after\n")


def test_a_ratio_is_that_of_each_round_so_that_a_bad_second_falls_on_both() -> None:
    weather = np.array([1.0, 1.1, 5.0, 1.0, 3.0, 1.2, 1.0, 1.0, 2.0])
    one = {"blocks_s": {"full": list(12e-3 * weather), "small": list(3e-3 * weather)}}
    found = timing.ratio(one, "full", "small")
    assert (found.value, found.low, found.high) == pytest.approx((4.0, 4.0, 4.0))


def test_rows_are_compared_one_by_one() -> None:
    full, small = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert compare(small, full) == {"right": 2, "lost": 1, "gained": 1}


def test_a_file_of_something_else_is_not_taken_for_results(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("[]", encoding="utf-8")
    with pytest.raises(BenchError, match="holds no results"):
        read_results(other)


def test_the_bench_keeps_what_other_parts_and_models_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = write_repository(tmp_path / "repository")
    monkeypatch.setitem(RECIPES, "sums", "a recipe that is not asked for")
    rows = tmp_path / f"sums-0-{DIGEST[:12]}.npz"
    np.savez(rows, inputs=np.ones((3, 4), np.float32), labels=np.zeros(3, np.int64))
    kept = tmp_path / "build.json"
    before = results()
    write_results(kept, before)
    given = ["--model", "sums", "--repository", str(repository), "--work", str(tmp_path), "--results", str(kept)]
    assert build_bench.main(["--part", "saturation", "latency", *given]) == 0
    parts = read_results(kept)
    assert parts["latency"]["images"] == before["latency"]["images"]
    assert parts["saturation"] == before["saturation"]  # the sums have no int8
    cells = parts["latency"]["sums"]["found"]
    assert [(one["batch"], one["threads"]) for one in cells] == [(1, 1), (8, 1)]
    assert all(len(blocks) >= 9 and min(blocks) > 0.0 for one in cells for blocks in one["blocks_s"].values())


def test_the_bench_has_a_model_measured_again_and_judges_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = write_repository(tmp_path / "repository")
    folder = repository / "sums" / "1"
    plan = asdict(Profiling(batch_sizes=(1,), threads=(1,), rounds=2, runs=4, memory_repeats=1))
    manifest = read_manifest(folder).model_copy(update={"recipe_parameters": {"profiling": plan}})
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")
    monkeypatch.setitem(RECIPES, "sums", "a recipe that is not asked for")
    np.savez(tmp_path / f"sums-0-{DIGEST[:12]}.npz", inputs=np.ones((3, 4), np.float32), labels=np.zeros(3, np.int64))
    kept = tmp_path / "build.json"
    given = ["--model", "sums", "--repository", str(repository), "--work", str(tmp_path), "--results", str(kept)]
    write_results(kept, results())
    assert build_bench.main(["--part", "measure", "latency", *given]) == 0
    parts, again = read_results(kept), read_manifest(repository / "sums" / "2")
    assert again.measured is not None
    assert parts["build"]["sums"]["measured_at"] == again.measured.at
    (cell,) = parts["latency"]["sums"]["found"]
    assert cell["predicted_s"] == {variant.name: variant.latency.rows[0].p50_s for variant in again.variants}
    assert f"latency measured again {again.measured.at[:10]}" in page.text(parts)
