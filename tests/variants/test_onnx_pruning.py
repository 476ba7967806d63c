"""One-shot pruning of a given file: smaller, repaired, refused where nothing can go, and a variant like any other."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import numpy_helper, parser

from variants.build import build_model
from variants.errors import LeftOut
from variants.onnx_pruning import OneShot, prune_file
from variants.progress import LineProgress
from variants.recipe import Profiling
from variants.runtime import run_logits
from variants.scoring import Classes
from variants.sizing import measure_size
from variants.sources.given import GivenModel
from variants.sources.models import Given, load_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from variants.manifest import ModelManifest
    from variants.recipe import Floats

INPUTS, HIDDEN, BASIS, CLASSES = 12, 64, 16, 3
PLAN = OneShot(macs_ratios=(0.5,))


def rows(count: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, INPUTS)).astype(np.float32)


def normal(*shape: int) -> Floats:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def parsed(text: str, weights: dict[str, Floats]) -> bytes:
    graph = f"g (float[n, {INPUTS}] x) => (float[n, {CLASSES}] y) {{ {text} }}"
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {graph}')
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    content: bytes = model.SerializeToString()
    return content


def redundant() -> bytes:
    """Return a network whose 64 hidden units say only what 16 directions say: half of them can be spared."""
    mixing = normal(BASIS, HIDDEN)
    weights = {"up": normal(INPUTS, BASIS), "mix": mixing, "bias": normal(HIDDEN), "down": normal(HIDDEN, CLASSES)}
    return parsed("b = MatMul(x, up) c = Relu(b) h = MatMul(c, mix) i = Add(h, bias) y = MatMul(i, down)", weights)


def residual() -> bytes:
    """Return a stream of 64 that two blocks add to."""
    weights = {"stem": normal(INPUTS, HIDDEN), "head": normal(HIDDEN, CLASSES), "end": normal(CLASSES)}
    weights |= {f"{name}{block}": 0.05 * normal(HIDDEN, HIDDEN) for name in ("in", "out") for block in (1, 2)}
    text = "s0 = MatMul(x, stem) "
    for block in (1, 2):
        text += f"a{block} = MatMul(s{block - 1}, in{block}) r{block} = Relu(a{block}) "
        text += f"o{block} = MatMul(r{block}, out{block}) s{block} = Add(s{block - 1}, o{block}) "
    return parsed(text + "y = Gemm(s2, head, end)", weights)


def held() -> bytes:
    """Return a network whose hidden units cannot be told apart: a softmax runs over them."""
    weights = {"up": normal(INPUTS, HIDDEN), "down": normal(HIDDEN, CLASSES)}
    return parsed("a = MatMul(x, up) s = Softmax(a) y = MatMul(s, down)", weights)


def shrunk(file: bytes, count: int = 256) -> tuple[bytes, dict[str, object]]:
    return prune_file(file, (rows(count, 0), rows(64, 1)), PLAN, Classes())


@pytest.mark.parametrize("make", [redundant, residual])
def test_half_of_the_multiplications_go_and_the_answers_stay(make: Callable[[], bytes]) -> None:
    smaller, chosen = shrunk(make())
    before, after = measure_size(make()), measure_size(smaller)
    assert after.macs <= 0.55 * before.macs
    assert chosen["macs_ratio"] == pytest.approx(after.macs / before.macs, abs=1e-4)
    test = rows(500, 2)
    same = (run_logits(smaller, test).argmax(1) == run_logits(make(), test).argmax(1)).mean()
    assert same > 0.9


def test_what_stays_takes_over_what_went(monkeypatch: pytest.MonkeyPatch) -> None:
    test = rows(500, 2)
    wanted = run_logits(redundant(), test)
    repaired = np.abs(run_logits(shrunk(redundant())[0], test) - wanted).mean()
    monkeypatch.setattr("variants.onnx_pruning.repair", lambda *_: None)
    cut = np.abs(run_logits(shrunk(redundant())[0], test) - wanted).mean()
    assert repaired < 0.1 * cut


def test_the_same_file_and_rows_give_the_same_bytes() -> None:
    assert shrunk(residual())[0] == shrunk(residual())[0]


def test_the_smallest_that_agrees_is_taken_and_else_the_last() -> None:
    given = residual(), (rows(256, 0), rows(64, 1))
    picky = prune_file(*given, OneShot((0.5, 0.7, 0.9), agreement=1.01), Classes())[1]
    easy = prune_file(*given, OneShot((0.5, 0.7, 0.9), agreement=0.0), Classes())[1]
    assert picky["macs_ratio"] == pytest.approx(0.9, abs=0.05)
    assert easy["macs_ratio"] == pytest.approx(0.5, abs=0.05)


def test_a_file_with_nothing_to_remove_is_left_out_and_says_what_holds_it() -> None:
    with pytest.raises(LeftOut, match=r"the 64 channels of 'MatMul_0' \(MatMul\) reach node 'Softmax_1' \(Softmax\)"):
        shrunk(held())


def built(file: bytes, folder: Path) -> tuple[ModelManifest, str]:
    """Build a file as ``tiergate build`` does, profiled in no time; return what was told besides."""
    (folder / "net.onnx").write_bytes(file)
    np.savez(folder / "rows.npz", x=rows(400, 0))
    recipe = load_source(Given(source=folder / "net.onnx", calibration=folder / "rows.npz"))
    assert isinstance(recipe, GivenModel)
    quick = Profiling(batch_sizes=(1,), threads=(1,), rounds=1, runs=3, single_row_s=0.05, memory_repeats=1)
    recipe = replace(recipe, plan=replace(recipe.plan, profiling=quick, precisions=()))
    told = io.StringIO()
    return build_model(recipe, folder / "repository", progress=LineProgress(told)).manifest, told.getvalue()


def test_a_given_file_gets_a_pruned_variant_and_its_int8_form(tmp_path: Path) -> None:
    manifest, _ = built(residual(), tmp_path)
    assert [(item.name, item.tier, item.parent) for item in manifest.variants] == [
        ("full", "full", None),
        ("pruned", "pruned", "full"),
        ("quantized", "quantized", "full"),
        ("pruned-quantized", "pruned-quantized", "pruned"),
    ]
    full, pruned = manifest.variants[:2]
    assert pruned.size.macs < 0.85 * full.size.macs
    (step,) = pruned.steps
    assert step.name == "prune"
    assert step.parameters["macs_ratio"] == pytest.approx(pruned.size.macs / full.size.macs, abs=1e-4)
    assert pruned.accuracy.value > 0.9
    assert [gate.name for gate in pruned.routing.gates] == ["accuracy"]


def test_what_cannot_be_pruned_is_built_without(tmp_path: Path) -> None:
    manifest, told = built(held(), tmp_path)
    assert [item.name for item in manifest.variants] == ["full", "quantized"]
    assert "left out: pruned: nothing of it can be pruned: the 64 channels of 'MatMul_0'" in told
