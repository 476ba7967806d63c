"""Measuring again: new times and memory for the same files, a new version, and the routing that follows."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.cli import main
from service.domain.variants import Cascade
from service.engine.opening import open_onnx_variant
from service.engine.repository import Repository, describe
from tests.builders import SUMS, ModelPlan, replace_file, write_repository
from variants.errors import BuildError
from variants.evidence import Latency, LatencyRow, Memory
from variants.figures import summary
from variants.machine import describe_machine
from variants.manifest import MANIFEST_FILE, ModelManifest, Routing, Unpacked, read_manifest
from variants.packed import pack
from variants.plans import Profiling
from variants.remeasure.changes import tell_changes
from variants.remeasure.run import Remeasured, describe_again, remeasure_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ROWS = np.ones((3, 4), np.float32)
PLAN = Profiling(batch_sizes=(1, 8), threads=(1,), rounds=2, runs=4, memory_repeats=1)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_profiled(tmp_path / "repository")


def write_profiled(root: Path, plan: ModelPlan = SUMS) -> Path:
    """Write a repository whose manifest says by which plan the model was profiled, and that all is made of full."""
    folder = write_repository(root, [plan]) / "sums" / "1"
    full, *others = read_manifest(folder).variants
    variants = (full, *(one.model_copy(update={"parent": "full"}) for one in others))
    change(folder, variants=variants, recipe_parameters={"profiling": asdict(PLAN)})
    return root


def change(folder: Path, **fields: object) -> ModelManifest:
    """Give a version's manifest other fields."""
    manifest = read_manifest(folder).model_copy(update=fields)
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")
    return manifest


def files_of(folder: Path) -> Mapping[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in {".onnx", ".packed"}}


def speed(p50_s: float, memory_bytes: int = 2**20) -> tuple[Latency, Memory]:
    names = ("mean_s", "p50_s", "p90_s", "p95_s", "p99_s")
    times = dict.fromkeys(names, p50_s)
    rows = tuple(LatencyRow(batch_size=size, threads=1, warmups=1, runs=1, **times) for size in (1, 8))
    memory = Memory(loaded_bytes=memory_bytes, peak_bytes=memory_bytes)
    return Latency(rows=rows, cold_start_s=0.1, load_average=0.0), memory


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Remeasured:
    return remeasure_model(write_profiled(tmp_path_factory.mktemp("repository")), "sums", ROWS)


def test_a_new_version_has_the_same_files_and_says_where_they_were_measured(found: Remeasured) -> None:
    old = found.folder.parent / "1"
    assert found.folder.name == "2"
    assert files_of(found.folder) == files_of(old)
    assert read_manifest(old) == found.before
    assert read_manifest(found.folder) == found.manifest
    assert (found.folder / "report.html").is_file()
    assert found.manifest.measured is not None
    assert found.manifest.measured.machine == found.manifest.profiled_on == describe_machine()
    assert found.manifest.machine == found.before.machine, "the build's machine stays known"
    assert "latency and memory measured 2" in summary(found.manifest)


def test_times_and_memory_are_measured_and_nothing_else_is_changed(found: Remeasured) -> None:
    for variant in found.manifest.variants:
        assert [(row.batch_size, row.threads, row.runs) for row in variant.latency.rows] == [(1, 1, 4), (8, 1, 4)]
        assert variant.latency.cold_start_s > 0.0
        was = found.before.variant(variant.name)
        kept = {"latency", "memory", "routing"}
        assert variant.model_dump(exclude=kept) == was.model_dump(exclude=kept)


def test_the_gateway_loads_what_was_measured_again(found: Remeasured) -> None:
    stored = Repository(found.folder.parents[1]).find("sums")
    assert stored.manifest is not None
    assert stored.manifest.version == "2"
    backend, _ = open_onnx_variant(stored, describe(stored.manifest), stored.manifest.variant("full"))
    assert backend.run({"x": ROWS})[0].tolist() == [[4.0]] * 3


def test_a_packed_variant_is_measured_as_the_file_that_it_holds(repository: Path) -> None:
    folder = repository / "sums" / "1"
    file = (folder / "full.onnx").read_bytes()
    replace_file(folder, "distilled", pack(file, []))
    (folder / "distilled.onnx").rename(folder / "distilled.packed")
    manifest = read_manifest(folder)
    held = Unpacked(bytes=len(file), sha256=manifest.variant("full").sha256)
    routing = Routing(state="dominated", reason="smaller to download", dominated_by="full")
    packed = {"file": "distilled.packed", "unpacked": held, "routing": routing}
    change(folder, variants=tuple(
        one.model_copy(update=packed) if one.name == "distilled" else one for one in manifest.variants
    ))  # fmt: skip
    found = remeasure_model(repository, "sums", ROWS)
    assert files_of(found.folder) == files_of(folder)
    assert found.manifest.variant("distilled").latency.rows[0].runs == 4
    assert found.manifest.variant("distilled").routing == routing


def test_a_variant_that_a_gate_kept_back_keeps_its_evidence(repository: Path) -> None:
    folder = repository / "sums" / "1"
    (folder / "distilled.onnx").unlink()
    routing = Routing(state="rejected", reason="misses gate accuracy")
    manifest = read_manifest(folder)
    change(folder, variants=tuple(
        one.model_copy(update={"routing": routing}) if one.name == "distilled" else one for one in manifest.variants
    ))  # fmt: skip
    found = remeasure_model(repository, "sums", ROWS)
    assert set(files_of(found.folder)) == {"full.onnx", "quantized.onnx"}
    assert found.manifest.variant("distilled") == found.before.variant("distilled")


def test_a_file_that_was_changed_is_refused_and_nothing_is_left_behind(repository: Path) -> None:
    (repository / "sums" / "1" / "quantized.onnx").write_bytes(b"something else")
    with pytest.raises(BuildError, match=r"quantized\.onnx has SHA-256 .* changed after the build"):
        remeasure_model(repository, "sums", ROWS)
    assert [entry.name for entry in (repository / "sums").iterdir()] == ["1"]
    assert not list((repository / ".work").glob("*measure*"))


def test_a_manifest_without_a_plan_is_refused(tmp_path: Path) -> None:
    repository = write_repository(tmp_path)
    with pytest.raises(BuildError, match=r"'sums' has no plan to profile by in recipe_parameters\.profiling"):
        remeasure_model(repository, "sums", ROWS)


def test_routing_follows_the_new_times(tmp_path: Path) -> None:
    cascades = (Cascade("distilled", "full", 0.5, 0.1, 0.92), Cascade("quantized", "full", 0.5, 0.1, 0.92))
    folder = write_profiled(tmp_path, replace(SUMS, cascades=cascades)) / "sums" / "1"
    before = read_manifest(folder)
    times = {"full": speed(0.03), "quantized": speed(0.001), "distilled": speed(0.002)}
    after = describe_again(before, times, 2)
    assert after.variant("distilled").routing.state == "dominated"
    assert after.variant("distilled").routing.dominated_by == "quantized"
    assert after.variant("quantized").routing.state == "routable"
    assert [one.variant for one in after.cascades] == ["quantized"]
    told = "\n".join(tell_changes(Remeasured(folder, before, after)))
    assert "quantized: p50 9000.0 us, now 1000.0 us (-88.9%)" in told
    assert "variants have changed places, by more than 5 %, in 2 of 2 cells" in told
    assert "distilled: routable, now dominated: dominated by quantized" in told
    assert "1 of 2 cascades are left out" in told


def test_variants_that_take_the_same_time_have_not_changed_places(tmp_path: Path) -> None:
    before = read_manifest(write_profiled(tmp_path) / "sums" / "1")
    times = {"full": speed(0.03), "quantized": speed(0.0099), "distilled": speed(0.0101)}
    told = "\n".join(tell_changes(Remeasured(tmp_path, before, describe_again(before, times, 2))))
    assert "in 0 of 2 cells" in told


def test_the_command_needs_neither_torch_nor_onnx(repository: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=ROWS)
    absent = "('torch', 'onnx', 'sklearn', 'scipy', 'matplotlib', 'torch_pruning', 'optuna')"
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); from service.cli import main; sys.exit(main())"
    words = ["measure", "sums", "--repository", str(repository), "--rows", str(tmp_path / "rows.npz"), "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ModelManifest.model_validate(json.loads(done.stdout)) == read_manifest(repository / "sums" / "2")


def test_the_command_says_what_changed(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "rows.npz", inputs=ROWS)
    assert main(["measure", "sums", "--repository", str(repository), "--rows", str(tmp_path / "rows.npz")]) == 0
    told = capsys.readouterr().out
    assert "full: p50 30000.0 us, now " in told
    assert f"published in {repository / 'sums' / '2'}" in told


@pytest.mark.parametrize(
    ("model", "rows", "told"),
    [
        ("other", None, "no model 'other' in "),
        ("sums", None, "'sums' was built by no bundled recipe, so that its rows are not known here: give --rows FILE"),
        ("sums", "absent.npz", "cannot read the rows in 'absent.npz'"),
    ],
)
def test_the_command_refuses_what_it_cannot_measure(
    repository: Path, capsys: pytest.CaptureFixture[str], model: str, rows: str | None, told: str
) -> None:
    given = [] if rows is None else ["--rows", rows]
    assert main(["measure", model, "--repository", str(repository), *given]) == 2
    assert told in capsys.readouterr().err
    assert [entry.name for entry in (repository / "sums").iterdir()] == ["1"]
