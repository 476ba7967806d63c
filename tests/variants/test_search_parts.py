"""What a search is made of: blocks that can go, shapes, a predictor of latency, a choice of tiers, a study on disk."""

from __future__ import annotations

import random
from dataclasses import replace
from math import log
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from variants.cli import LARGEST_SEED
from variants.errors import RecipeError
from variants.pruning import prunable_widths
from variants.recipe import Pruning
from variants.recipes.digits import ResidualNet
from variants.residual import find_blocks, leave_out
from variants.search.choosing import Candidate, choose_ladder, find_front
from variants.search.prediction import Predictor, count_work, fit_predictor
from variants.search.space import PRECISIONS, Space, find_space
from variants.search.study import Study

if TYPE_CHECKING:
    from pathlib import Path

    from variants.recipe import Recipe

ROWS = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Masked(nn.Module):
    """A residual block that is called with a mask too, as those of transformers are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = x + self.inner(x) * mask
        return found


class MaskedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Masked(6), Masked(6)])
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x, torch.ones(1))
        found: torch.Tensor = self.head(x)
        return found


def candidate(accuracy: float, p50_us: float, trial: int = 0, **other: int) -> Candidate:
    sizes = {"file_bytes": 1000, "memory_bytes": 1000, **other}
    return Candidate(trial, {"width 8": trial}, "int8", accuracy, 0.0, 100, p50_us * 1e-6, **sizes)


def convolution_and_product() -> bytes:
    """Return a file of one convolution to 20 channels at 6x6 places, and a product of 720 by 10."""
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "weight"], ["logits"]),
    ]
    weights = {"kernel": np.zeros((20, 1, 3, 3), np.float32), "weight": np.zeros((720, 10), np.float32)}
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    file: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    return file


def space(**levels: tuple[int, ...]) -> Space:
    by_width = {int(name[1:]): chosen for name, chosen in levels.items()}
    layers = {width: (f"layer{width}",) for width in by_width}
    return Space(layers, by_width, {"4": ("first", "second")}, Pruning(ratio=0.5, iterations=3, training=None))


def test_residual_blocks_are_those_that_hand_on_their_input() -> None:
    found = find_blocks(ResidualNet((8, 16), blocks=2).eval(), ROWS)
    assert found == {"features.3": (8, 8, 8), "features.4": (8, 8, 8), "features.6": (16, 4, 4)}  # 5 halves the image


def test_plain_networks_have_no_residual_block() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Sequential(nn.Linear(64, 64), nn.ReLU()))
    assert find_blocks(plain, ROWS) == {}


def test_blocks_that_take_a_mask_can_be_left_out() -> None:
    model, x = MaskedNet().eval(), torch.randn(2, 6)
    assert list(find_blocks(model, x)) == ["blocks.0", "blocks.1"]
    shorter = leave_out(model, ["blocks.1"])
    assert torch.equal(shorter(x), model.head(model.blocks[0](x, torch.ones(1))))
    assert isinstance(model.blocks[1], Masked), "the model itself must stay as it is"


def test_a_space_names_layers_by_width_and_falls_in_equal_steps(tiny: Recipe) -> None:
    model = tiny.make_model().eval()
    found = find_space(tiny, model, ROWS)
    assert found.levels == {16: (16, 12, 8, 4), 24: (24, 20, 16, 12, 8, 4)}
    assert found.dimensions == {"width 16": 3, "width 24": 5, "blocks 16x8x8": 1}
    assert set(found.layers[16]) == {name for name, width in prunable_widths(model, ROWS[:1]).items() if width == 16}


def test_a_choice_becomes_ratios_and_blocks() -> None:
    shape = space(w8=(8, 4), w32=(32, 24, 16)).shape({"width 8": 0, "width 32": 2, "blocks 4": 1})
    assert shape.ratios == (("layer32", 0.5),)
    assert shape.without == ("second",)  # the last goes first


def test_a_spread_has_as_many_small_networks_as_large_ones() -> None:
    everything = space(w8=tuple(range(16, 0, -1)), w32=tuple(range(32, 0, -1)))
    most = everything.dimensions
    found = everything.spread(40, random.Random(1))  # noqa: S311 - a sample, no secret
    assert all(0 <= choice[name] <= most[name] for choice in found for name in most)
    shares = [sum(choice[name] / most[name] for name in most) / len(most) for choice in found]
    ends = sum(share <= 0.2 for share in shares), sum(share >= 0.8 for share in shares)
    assert min(ends) >= 5, "a fifth of 40 is 8; of choices by chance alone one or two are so near an end"


def test_the_choice_of_nothing_is_the_full_model() -> None:
    everything = space(w8=(8, 4))
    shape = everything.shape(dict.fromkeys(everything.dimensions, 0))
    assert shape.is_full
    assert everything.plan(shape, None) is None


def test_a_model_with_nothing_to_vary_is_refused_by_name(tiny: Recipe) -> None:
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10)).eval()
    with pytest.raises(RecipeError, match="'tiny' cannot be searched: its model has no layer wider than 4 channels"):
        find_space(tiny, narrow, ROWS)


def test_a_predictor_finds_the_costs_that_made_the_times() -> None:
    chance = random.Random(1)  # noqa: S311 - amounts of work, no secret
    true = {"constant": 4e-6, "a": 3e-9, "b": 7e-8, "never": 0.0}
    works = [{"constant": 1.0, "a": chance.uniform(0, 1e5), "b": chance.uniform(0, 1e3)} for _ in range(12)]
    works[3]["never"] = 5.0
    times = [Predictor(true).predict(work) for work in works]
    fitted = fit_predictor(works[:10], times[:10])
    assert [fitted.predict(work) for work in works[10:]] == pytest.approx(times[10:], rel=1e-6)


def test_work_counts_whole_vectors_and_quarter_weights_of_int8() -> None:
    file = convolution_and_product()
    plain, int8 = count_work(file, "float32"), count_work(file, "int8")
    convolution = next(amount for kind, amount in plain.items() if kind.startswith("Conv (3, 3) at 36"))
    assert convolution in {32 * 9 * 36, 24 * 9 * 36}  # 20 channels are computed as 32, or as 24 in narrower vectors
    assert plain["MiB of weights above 0"] == pytest.approx(4 * int8["MiB of weights above 0"])
    assert "MiB of weights above 1" not in plain


def test_the_front_keeps_what_is_better_in_one_objective() -> None:
    kept = [candidate(0.9, 10), candidate(0.95, 20), candidate(0.9, 12, file_bytes=500)]
    worse = [candidate(0.9, 11), candidate(0.94, 20, memory_bytes=2000)]
    assert find_front([*worse, *kept]) == sorted(kept, key=lambda one: one.p50_s)


def test_nearness_to_full_decides_between_the_equally_right_and_never_outweighs_a_row() -> None:
    near, far = replace(candidate(0.9, 10), divergence=0.1), replace(candidate(0.9, 10), divergence=50.0)
    assert near.score > far.score > candidate(0.89, 10).score


def test_a_ladder_is_the_subset_of_the_largest_area() -> None:
    chance = random.Random(3)  # noqa: S311 - times, no secret
    times = sorted(chance.uniform(10, 900) for _ in range(9))
    front = [candidate(0.5 + 0.05 * n, time, trial=n) for n, time in enumerate(times)]

    def area(chosen: list[Candidate]) -> float:
        ends = [*(one.p50_s for one in chosen[1:]), 1e-3]
        return sum(one.score * log(end / one.p50_s) for one, end in zip(chosen, ends, strict=True))

    best = max(
        (area([front[i], front[j], front[k]]), [k, j, i])
        for i in range(9)
        for j in range(i + 1, 9)
        for k in range(j + 1, 9)
    )
    assert [one.trial for one in choose_ladder(front, 3, 1e-3)] == best[1]


def test_a_ladder_leaves_out_what_is_no_faster_than_full_or_no_better_than_a_faster_one() -> None:
    one, slower, beyond = candidate(0.9, 10), candidate(0.8, 20, file_bytes=1), candidate(0.99, 2000)
    assert choose_ladder([one, slower, beyond], 5, 1e-3) == [one]


def answers(study: Study, times: int) -> list[dict[str, int]]:
    """Ask ``times`` times, and tell scores that depend on nothing but the network."""
    asked = []
    for _ in range(times):
        trial, choice = study.ask()
        asked.append(choice)
        size = 100 - 10 * sum(choice.values())
        own = [
            Candidate(trial.number, choice, precision, size / 200, 0.0, 100, size / 1e6, size, size)
            for precision in PRECISIONS
        ]
        study.tell(trial, study.recall(choice) or own, 2.0)
    return asked


def test_an_interrupted_study_goes_on_and_asks_for_the_same_networks(tmp_path: Path) -> None:
    shapes = space(w8=(8, 6, 4, 2), w32=(32, 24, 16))
    whole = answers(Study(tmp_path / "whole", shapes, 5), 20)
    first = Study(tmp_path / "parts", shapes, 5)
    asked = answers(first, 18)
    first.ask()  # stopped while this one is scored
    second = Study(tmp_path / "parts", shapes, 5)
    assert second.asked == 18
    assert second.cpu_s == 36.0
    assert asked + answers(second, 2) == whole
    assert whole[0] == dict.fromkeys(shapes.dimensions, 0)
    assert second.candidates[0].choice == whole[0]


def test_a_study_hears_of_both_precisions_of_each_network_once(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", space(w8=(8, 4)), 0)
    answers(study, 12)  # more than there are networks
    pairs = [(tuple(one.choice.items()), one.precision) for one in study.candidates]
    assert len(set(pairs)) == 2 * len({choice for choice, _ in pairs})
    assert study.recall({"width 8": 0, "blocks 4": 0})[1].precision == "int8"


def test_the_largest_seed_makes_a_study(tmp_path: Path) -> None:
    assert answers(Study(tmp_path / "study", space(w8=(8, 4)), LARGEST_SEED), 2)
