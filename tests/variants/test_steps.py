"""The steps that make variants: what they promise of their results."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from variants.determinism import deterministic
from variants.distillation import ask_teacher, make_lesson, vary
from variants.errors import BuildError, RecipeError
from variants.export import export_onnx, measure_parity
from variants.fitting import Lesson, fit
from variants.losses import DistillationLoss, LabelLoss
from variants.pruning import prune
from variants.quantization import fits_int16_pairs, quantize
from variants.recipe import Pruning, Quantization, Training
from variants.recipes.digits import ResidualNet
from variants.runtime import open_session, run_logits
from variants.sizing import measure_size
from variants.weights import dump_weights, load_weights

if TYPE_CHECKING:
    from variants.build import BuildResult
    from variants.manifest import ModelManifest
    from variants.recipe import Recipe

SHORT = Training(steps=8, batch_size=8)


def nothing() -> None:
    pass


def lesson(rows: int = 16) -> Lesson:
    with deterministic(5) as generator:
        inputs = torch.rand((rows, 1, 8, 8), generator=generator) * 16
    return Lesson(inputs, torch.arange(rows) % 10, LabelLoss(0.0))


def net() -> nn.Module:
    with deterministic(3):
        return ResidualNet((16, 24), blocks=1).eval()


def test_distillation_loss_equals_the_hand_calculation() -> None:
    logits, teacher = torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, 0.0]])
    p = exp(1) / (exp(1) + 1)  # softened by T = 2: logits of 1 and 0
    soft = p * log(p / (1 - p)) + (1 - p) * log((1 - p) / p)
    hard = log(1 + exp(2))  # the label is class 0
    expected = 0.75 * 4 * soft + 0.25 * hard
    loss = DistillationLoss(temperature=2.0, weight=0.75)(logits, torch.tensor([0]), teacher)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_distillation_loss_vanishes_when_the_student_is_the_teacher() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0]])
    loss = DistillationLoss(temperature=4.0, weight=1.0)(logits, torch.tensor([2]), logits)
    assert float(loss) == pytest.approx(0.0, abs=1e-6)


def test_fit_leaves_the_model_and_torch_as_they_were() -> None:
    model, threads = net(), torch.get_num_threads()
    before, state = dump_weights(model), torch.random.get_rng_state()
    fitted = fit(model, lesson(), SHORT, 0, nothing)
    assert dump_weights(model) == before
    assert dump_weights(fitted) != before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, False)


def test_fit_gives_the_same_bytes_for_the_same_seed_and_others_for_another() -> None:
    first, second, other = (dump_weights(fit(net(), lesson(), SHORT, seed, nothing)) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_fit_shows_pictures_at_half_the_side_for_the_first_share_of_steps() -> None:
    seen: list[tuple[int, ...]] = []
    model = net()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    fit(model, lesson(), replace(SHORT, coarse_share=0.5), 0, nothing)
    assert seen == [(8, 1, 4, 4)] * 4 + [(8, 1, 8, 8)] * 4


@pytest.mark.parametrize("change", [{"optimizer": "adamw", "learning_rate": 0.01}, {"precision": "bfloat16"}])
def test_fit_learns_with_other_optimizers_and_precisions(change: dict[str, Any]) -> None:
    task = lesson()
    fitted = fit(net(), task, replace(SHORT, steps=40, **change), 0, nothing)
    assert all(value.dtype == torch.float32 for value in fitted.parameters())
    with torch.inference_mode():
        before, after = (float(LabelLoss(0.0)(model(task.inputs), task.labels, None)) for model in (net(), fitted))
    assert after < before / 2


def test_a_training_refuses_a_share_beyond_all_steps() -> None:
    with pytest.raises(RecipeError, match=r"coarse_share 1\.5; allowed is 0 to 1"):
        replace(SHORT, coarse_share=1.5)


def test_prune_really_removes_channels(tiny: Recipe) -> None:
    model, material = net(), lesson()
    calls: list[int] = []
    pruned = prune(model, material, Pruning(0.5, 2, SHORT, round_to=4), 0, lambda: calls.append(1))
    widths = [layer.out_channels for layer in pruned.modules() if isinstance(layer, nn.Conv2d)]
    originals = [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert len(calls) == 16
    assert originals == [16, 16, 16, 24, 24, 24]
    assert widths == [8, 8, 8, 12, 12, 12]
    example = material.inputs[:2].numpy()
    full, small = (measure_size(export_onnx(one, tiny, example)) for one in (model, pruned))
    assert small.macs < 0.3 * full.macs
    assert small.parameters < 0.3 * full.parameters
    assert small.nonzero_parameters == small.parameters, "channels are gone, not masked"


def test_weights_come_back_at_the_width_they_were_stored() -> None:
    pruned = prune(net(), lesson(), Pruning(0.5, 1, SHORT, round_to=4), 0, nothing)
    restored = load_weights(net(), dump_weights(pruned))
    inputs = lesson().inputs
    with torch.inference_mode():
        assert torch.equal(restored(inputs), pruned(inputs))
    assert dump_weights(restored) == dump_weights(pruned)


def test_weights_are_refused_when_a_layer_cannot_be_resized() -> None:
    stored = dump_weights(nn.Bilinear(3, 2, 1))
    with pytest.raises(BuildError, match="Bilinear layer cannot be restored at another width"):
        load_weights(nn.Bilinear(4, 2, 1), stored)


def test_lesson_holds_the_teachers_answers_to_the_same_rows(tiny: Recipe) -> None:
    train, teacher = tiny.load(0).train, net()
    answers = ask_teacher(teacher, vary(tiny, train, 0), tiny.plan.teaching, 0, nothing)
    made = make_lesson(tiny, train, 0, answers)
    assert made.teacher is not None
    assert len(made.inputs) == len(made.labels) == len(made.teacher) == 2 * len(train)
    with torch.inference_mode():
        assert torch.allclose(teacher(made.inputs[:5]), made.teacher[:5], atol=1e-5)
    assert made.augment is None


def test_export_agrees_with_torch_at_any_batch_size(tiny: Recipe) -> None:
    model, inputs = net(), tiny.load(0).test.inputs
    file = export_onnx(model, tiny, inputs)
    parity = measure_parity(model, file, inputs)
    assert parity.max_error < 1e-4
    assert parity.argmax_agreement == 1.0
    together = run_logits(file, inputs[:7])
    alone = np.concatenate([run_logits(file, row[None]) for row in inputs[:7]])
    assert np.allclose(together, alone, atol=1e-5)
    session = open_session(file)
    assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]
    assert (session.get_inputs()[0].name, session.get_outputs()[0].name) == ("image", "logits")


def test_export_gives_the_same_bytes_twice_and_names_no_path(tiny: Recipe) -> None:
    inputs = tiny.load(0).test.inputs
    first, second = export_onnx(net(), tiny, inputs), export_onnx(net(), tiny, inputs)
    assert first == second
    assert b".py" not in first


def test_export_refuses_outputs_that_are_not_numbers(tiny: Recipe) -> None:
    model = net()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    inputs = tiny.load(0).test.inputs
    with pytest.raises(BuildError, match="not finite"):
        measure_parity(model, export_onnx(model, tiny, inputs), inputs)


@pytest.fixture(scope="module")
def quantized(built: BuildResult) -> onnx.ModelProto:
    return onnx.load(str(built.folder / "quantized.onnx"))


def test_quantized_file_is_int8_qdq(quantized: onnx.ModelProto, built: BuildResult) -> None:
    kinds = {node.op_type for node in quantized.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
    dequantized = {node.output[0]: node.input[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    types = {tensor.name: tensor.data_type for tensor in quantized.graph.initializer}
    convolutions = [node for node in quantized.graph.node if node.op_type == "Conv"]
    assert all(types[dequantized[node.input[1]]] == onnx.TensorProto.INT8 for node in convolutions)
    size = built.manifest.variant("quantized").size
    assert size.weight_bytes["INT8"] > 0.9 * size.parameters
    assert size.file_bytes < 0.5 * built.manifest.variant("full").size.file_bytes


def test_quantized_weights_cannot_saturate_pairs(built: BuildResult) -> None:
    assert fits_int16_pairs((built.folder / "quantized.onnx").read_bytes())
    assert built.manifest.variant("quantized").hardware.proven_isa == ("avx2", "avx512f")


def test_float_file_proves_nothing_about_int8(built: BuildResult) -> None:
    assert not fits_int16_pairs((built.folder / "full.onnx").read_bytes())
    assert built.manifest.variant("full").hardware.proven_isa == ()


def test_quantize_returns_the_worst_node_to_float_when_the_error_is_too_large(built: BuildResult, tiny: Recipe) -> None:
    parts = tiny.load(0)
    plan = Quantization(methods=("minmax",), max_kl=0.0, max_float_nodes=1)
    float_file = (built.folder / "distilled.onnx").read_bytes()
    file, chosen = quantize(float_file, parts.calibration.inputs, parts.validation.inputs, plan, nothing)
    assert len(chosen["float_nodes"]) == 1
    kept = next(node for node in onnx.load_from_string(file).graph.node if node.name == chosen["float_nodes"][0])
    types = {tensor.name: tensor.data_type for tensor in onnx.load_from_string(file).graph.initializer}
    assert types.get(kept.input[1]) == onnx.TensorProto.FLOAT


def test_quantize_takes_any_number_of_calibration_rows(built: BuildResult, tiny: Recipe) -> None:
    parts = tiny.load(0)
    file = (built.folder / "full.onnx").read_bytes()
    plan = Quantization(methods=("percentile",), max_kl=1.0)
    quantized, _ = quantize(file, parts.calibration.inputs[:39], parts.validation.inputs, plan, nothing)
    assert fits_int16_pairs(quantized)


def test_quantize_stops_when_no_node_is_left_to_return_to_float(built: BuildResult, tiny: Recipe) -> None:
    parts = tiny.load(0)
    plan = Quantization(methods=("minmax",), max_kl=-1.0, max_float_nodes=99)
    float_file = (built.folder / "distilled.onnx").read_bytes()
    file, chosen = quantize(float_file, parts.calibration.inputs[:4], parts.validation.inputs[:4], plan, nothing)
    assert len(chosen["float_nodes"]) == len(set(chosen["float_nodes"])) >= 4
    assert not fits_int16_pairs(file), "nothing is left in int8"


def test_quantized_has_the_macs_of_its_parent(manifest: ModelManifest) -> None:
    for tier in ("pruned", "distilled"):
        assert manifest.variant(f"{tier}-quantized").size.macs == manifest.variant(tier).size.macs
    assert manifest.variant("quantized").size.parameters == manifest.variant("full").size.parameters


def test_size_counts_by_hand(tiny: Recipe) -> None:
    size = measure_size(export_onnx(ResidualNet((8,), blocks=1).eval(), tiny, tiny.load(0).test.inputs))
    weights, biases = 8 * 9 + 2 * 8 * 8 * 9 + 8 * 10, 3 * 8 + 10
    assert size.macs == 64 * (8 * 9 + 2 * 8 * 8 * 9) + 8 * 10
    assert size.parameters in {weights + biases, weights + 10}, "exporters may leave out biases that are zero"
    assert size.weight_bytes == {"FLOAT": 4 * size.parameters}
    assert size.compressed_bytes < size.file_bytes
