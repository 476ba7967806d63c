"""A search of a tiny network, from its command to a repository that loads."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loadtests.search_bench import MARKS, errors, write_page
from service.engine.opening import open_onnx_variant
from service.engine.repository import Repository, describe
from variants.errors import BuildError
from variants.evidence import LatencyRow
from variants.figures import cell, predicted_s
from variants.report import render_html
from variants.search.keeping import keep, recall
from variants.search.picture import draw
from variants.search.run import SearchOptions, SearchResult, search_model
from variants.search_cli import add_commands
from variants.sizing import measure_size
from variants.table import draw_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from variants.recipe import Inputs, Profiling, Recipe

OPTIONS = SearchOptions(trials=2, tiers=2, shapes=4)
pytestmark = pytest.mark.timeout(1800)  # the first of these tests waits for a whole search


def timed_by_work(
    files: Mapping[str, Path],
    inputs: Inputs,  # noqa: ARG001 - as ``profile_latency`` has it
    plan: Profiling,
    advance: Callable[[], None],
) -> dict[str, tuple[LatencyRow, ...]]:
    """Say that a file takes as long as it has work: on a busy machine a smaller network may seem slower than full."""
    for _ in range(plan.rounds):
        advance()
    seconds = {name: 1e-5 + 1e-9 * measure_size(path.read_bytes()).macs for name, path in files.items()}
    names = ("mean_s", "p50_s", "p90_s", "p95_s", "p99_s")
    return {
        name: (LatencyRow(batch_size=1, threads=1, warmups=0, runs=1, **dict.fromkeys(names, took_s)),)
        for name, took_s in seconds.items()
    }


@dataclass(frozen=True)
class Searched:
    result: SearchResult
    repository: Path
    tasks: list[str]


@pytest.fixture(scope="module")
def searched(
    tiny: Recipe,
    tmp_path_factory: pytest.TempPathFactory,
    listener: type[Any],
    stopped: type[BaseException],
) -> Searched:
    """A search that is stopped when its first network is scored, and goes on."""
    repository = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("variants.search.bench.profile_latency", timed_by_work)
        with pytest.raises(stopped):
            search_model(tiny, repository, OPTIONS, listener(stop_at="0: "))
    second = listener()
    return Searched(search_model(tiny, repository, OPTIONS, second), repository, second.tasks)


def test_an_interrupted_search_goes_on_where_it_stopped(searched: Searched) -> None:
    assert searched.result.asked == 2
    assert {"train full", "export full", "shapes to time", "time shapes"}.isdisjoint(searched.tasks)


def test_a_search_publishes_full_and_its_ladder_as_the_build_measures_them(searched: Searched) -> None:
    manifest = searched.result.build.manifest
    names = [variant.name for variant in manifest.variants]
    assert names == ["full", *(rung.name for rung in searched.result.ladder)]
    assert len(names) > 1
    for variant, rung in zip(manifest.variants[1:], searched.result.ladder, strict=True):
        assert variant.parent == "full"
        assert predicted_s(variant) == rung.found.p50_s
        assert variant.accuracy.rows == manifest.splits["test"].rows
        assert variant.drift is not None
    assert [rung.found.p50_s for rung in searched.result.ladder] == sorted(
        (rung.found.p50_s for rung in searched.result.ladder), reverse=True
    )


def test_every_tier_is_what_the_search_chose(searched: Searched) -> None:
    full, *tiers = searched.result.build.manifest.variants
    by_trial = {(one.trial, one.precision): one for one in searched.result.candidates}
    for variant, rung in zip(tiers, searched.result.ladder, strict=True):
        chosen = by_trial[rung.found.trial, "int8" if rung.is_quantized else "float32"]
        assert ("INT8" in variant.size.weight_bytes) == rung.is_quantized
        assert variant.size.file_bytes == pytest.approx(chosen.file_bytes, rel=0.02)  # methods of ranges differ
        if rung.pruning is not None:
            assert variant.size.macs < full.size.macs


def test_the_full_model_is_trained_once(searched: Searched) -> None:
    kept = list((searched.repository / ".work").rglob("train-full.step"))
    assert len(kept) == 1
    assert "train full" not in searched.tasks


def test_the_gateway_loads_what_a_search_published(searched: Searched) -> None:
    stored = Repository(searched.repository).find("tiny")
    assert stored.manifest is not None
    for variant in stored.manifest.published:
        backend, _ = open_onnx_variant(stored, describe(stored.manifest), variant)
        assert backend.run({"image": np.zeros((2, 1, 8, 8), np.float32)})[0].shape == (2, 10)


def test_the_same_search_again_finds_the_version_that_is_there(searched: Searched, tiny: Recipe) -> None:
    again = search_model(tiny, searched.repository, OPTIONS)
    assert not again.build.is_new
    assert again.ladder == searched.result.ladder


def test_reports_show_predicted_beside_measured(searched: Searched) -> None:
    manifest = searched.result.build.manifest
    assert "predicted p50" in render_html(manifest)
    table = draw_table(manifest, 200)[0]
    assert "predicted p50" in [column.header for column in table.columns]  # type: ignore[union-attr]  # a rich table


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_picture_is_drawn(searched: Searched, form: str, start: bytes) -> None:
    assert draw(searched.result, form).startswith(start)


def test_the_benchmark_writes_how_far_off_predictions_were(searched: Searched, tmp_path: Path) -> None:
    page, plot = tmp_path / "search.md", tmp_path / "search.svg"
    page.write_text(f"before\n{MARKS.begin}\n{MARKS.end}\nafter\n", encoding="utf-8")
    write_page(searched.result, page, plot)
    rung, text = searched.result.ladder[0], page.read_text(encoding="utf-8")
    measured_s = cell(searched.result.build.manifest.variant(rung.name), 1).p50_s
    assert errors(searched.result)[0] == pytest.approx((rung.found.p50_s - measured_s) / measured_s)
    assert f"| {rung.name} | {rung.found.network}, " in text
    assert f"{errors(searched.result)[0]:+.1%}" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert plot.is_file()


def test_the_benchmark_judges_a_kept_search_by_the_newest_version(searched: Searched, tmp_path: Path) -> None:
    kept, result = tmp_path / "search.json", searched.result
    keep(result, kept)
    again = recall(kept, searched.repository)
    assert again.build.manifest == result.build.manifest
    assert (again.candidates, again.check, again.cpu_s) == (result.candidates, result.check, result.cpu_s)
    pages = []
    for one in (result, again):
        page = tmp_path / "search.md"
        page.write_text(f"{MARKS.begin}\n{MARKS.end}\n", encoding="utf-8")
        write_page(one, page, tmp_path / "search.svg")
        pages.append(page.read_text(encoding="utf-8"))
    assert pages[0] == pages[1]


def test_the_benchmark_judges_no_other_build(searched: Searched, tmp_path: Path) -> None:
    keep(searched.result, tmp_path / "search.json")
    text = (tmp_path / "search.json").read_text(encoding="utf-8")
    key = searched.result.build.manifest.build_key
    (tmp_path / "search.json").write_text(text.replace(key, "ab" * 32), encoding="utf-8")
    with pytest.raises(BuildError, match="was not built by the search in"):
        recall(tmp_path / "search.json", searched.repository)


def test_the_command_prints_tiers_and_how_good_predictions_were(
    searched: Searched, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tiny = Path(__file__).with_name("tiny_recipe.py")
    words = ["search", str(tiny), "--output", str(searched.repository), "--trials", "2", "--tiers", "2"]
    assert run(*words, "--plot", str(tmp_path / "front.svg")) == 0
    printed = capsys.readouterr().out
    assert "rung-1" in printed
    assert re.search(r"2 networks scored in both precisions in [\d.]+ CPU-minutes; latency predicted", printed)
    assert "peak memory" in printed
    assert (tmp_path / "front.svg").is_file()


def test_a_picture_that_cannot_be_written_says_where_the_tiers_are(
    searched: Searched, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    tiny, plot = Path(__file__).with_name("tiny_recipe.py"), tmp_path / "file" / "front.svg"
    words = ["search", str(tiny), "--output", str(searched.repository), "--trials", "2", "--tiers", "2"]
    assert run(*words, "--plot", str(plot)) == 2
    told = capsys.readouterr()
    assert "rung-1" in told.out
    assert f"cannot write {plot}: " in told.err
    assert f"the tiers are in {searched.result.build.folder}" in told.err


def test_a_recipe_of_files_is_refused_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("search", "trees", "--output", str(tmp_path)) == 2
    assert "recipe 'trees' cannot be searched: it brings files and trains no network" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def run(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="tiergate")
    add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args(words)
    code: int = arguments.run(arguments)
    return code
