"""The download tier: zeros by schedule and pattern, shared values, and a packed form that gives back the same bytes."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from variants.determinism import deterministic
from variants.downloading import pack_for_download
from variants.errors import RecipeError
from variants.fitting import Lesson
from variants.losses import LabelLoss
from variants.packed import MAGIC, Cut, PackedError, pack, unpack
from variants.recipe import Download, Training
from variants.runtime import run_logits
from variants.sparsity import mask, scheduled_sparsity, sparsify

if TYPE_CHECKING:
    from numpy.typing import NDArray


def layered(width: int = 160) -> bytes:
    """Return ``y = relu(x A) B`` for rows of 32, of random weights."""
    random = np.random.default_rng(0)
    weights = {"A": random.normal(size=(32, width)), "B": random.normal(size=(width, 32))}
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "A"], ["h"]),
        onnx.helper.make_node("Relu", ["h"], ["r"]),
        onnx.helper.make_node("MatMul", ["r", "B"], ["y"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "layered",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 32])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 32])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    content: bytes = onnx.helper.make_model(
        graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)]
    ).SerializeToString(deterministic=True)
    return content


def weights_of(file: bytes) -> list[NDArray[np.float32]]:
    return [numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(file).graph.initializer]


@pytest.fixture(scope="module")
def packed() -> tuple[bytes, bytes]:
    return pack_for_download(layered(), Download(sparsity=0.9, values=8), is_pruned=False)


def test_the_packed_form_gives_back_the_file_that_was_measured(packed: tuple[bytes, bytes]) -> None:
    file, stored = packed
    assert unpack(stored, len(file)) == file
    assert run_logits(file, np.ones((3, 32), np.float32)).shape == (3, 32)


def test_the_packed_form_is_of_few_weights_and_values_and_much_smaller(packed: tuple[bytes, bytes]) -> None:
    file, stored = packed
    for weight in weights_of(file):
        assert np.count_nonzero(weight) == pytest.approx(0.1 * weight.size, abs=1)
        assert len(np.unique(weight)) <= 9
    assert len(stored) < len(file) / 25


def test_shared_values_are_near_the_weights_they_stand_for() -> None:
    file, _ = pack_for_download(layered(), Download(sparsity=0.0, values=64), is_pruned=True)
    errors = [np.abs(new - old).mean() for new, old in zip(weights_of(file), weights_of(layered()), strict=True)]
    assert max(errors) < 0.03, "of weights with a standard deviation of 1"


def test_gaps_of_any_length_come_back() -> None:
    symbols = np.full(5000, -1)
    symbols[[0, 1, 255, 256, 511, 1300, 4999]] = [0, 1, 2, 0, 1, 2, 0]
    codebook = np.array([-1.5, 0.25, 3.0], np.float32)
    file = b"before" + np.append(codebook, np.float32(0.0))[symbols].tobytes() + b"after"
    assert unpack(pack(file, [Cut(6, symbols, codebook)]), len(file)) == file


def test_nothing_cut_out_is_still_a_packed_file() -> None:
    assert unpack(pack(b"anything", []), 8) == b"anything"


def test_unpack_refuses_a_file_larger_than_allowed(packed: tuple[bytes, bytes]) -> None:
    file, stored = packed
    with pytest.raises(PackedError, match=rf"it holds {len(file)} bytes; {len(file) - 1} are allowed"):
        unpack(stored, len(file) - 1)


def test_unpack_refuses_every_cut_and_survives_every_flip(packed: tuple[bytes, bytes]) -> None:
    file, stored = packed
    for end in range(0, len(stored), 97):
        with pytest.raises(PackedError):
            unpack(stored[:end], len(file))
    for place in range(0, len(stored), 31):
        broken = bytearray(stored)
        broken[place] ^= 0xFF
        try:
            assert len(unpack(bytes(broken), len(file))) == len(file)
        except PackedError:
            continue


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": [[0, 2**40, 1, 1]]},
        {"tensors": [[-8, 4, 1, 1]]},
        {"tensors": [[0, 4, 5, 1]]},
        {"tensors": [[0, 4, 1, 257]]},
        {"tensors": [[0, 2**62, 0, 0], [0, 2**62, 0, 0]]},
        {"tensors": "none"},
        {"bytes": -1},
        {"streams": [[2**50, 10]] * 4},
        {"streams": []},
    ],
)
def test_unpack_refuses_counts_that_contradict_each_other(
    packed: tuple[bytes, bytes], change: dict[str, object]
) -> None:
    file, stored = packed
    start = len(MAGIC) + 4
    (length,) = struct.unpack_from("<I", stored, len(MAGIC))
    header = json.dumps(json.loads(stored[start : start + length]) | change).encode()
    with pytest.raises(PackedError):
        unpack(MAGIC + struct.pack("<I", len(header)) + header + stored[start + length :], len(file))


def test_zeros_come_quickly_at_first_and_slowly_at_the_end() -> None:
    shares = [scheduled_sparsity(step, 10, 0.9) for step in range(12)]
    assert shares[0] == 0.0
    assert shares[5] == pytest.approx(0.9 * (1 - 0.5**3))
    assert shares[10] == shares[11] == pytest.approx(0.9)
    assert shares[1] - shares[0] > 10 * (shares[10] - shares[9])


def test_a_pattern_keeps_the_largest_of_every_four() -> None:
    weight = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.1, 0.2, -0.3, 0.0, 9.0]])
    assert mask(weight, 0.5, (2, 4)).tolist() == [[False, True, True, False, False, True, True, False, True]]


@pytest.mark.parametrize(("plan", "share"), [(Download(0.8), 0.2), (Download(0.5, pattern=(1, 4)), 0.25)])
def test_sparsify_fits_the_weights_that_stay(plan: Download, share: float) -> None:
    plan = Download(plan.sparsity, pattern=plan.pattern, training=Training(steps=12, batch_size=8))
    with deterministic(3) as generator:
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
        inputs = torch.rand((16, 1, 8, 8), generator=generator)
    calls: list[int] = []
    material = Lesson(inputs, torch.arange(16) % 4, LabelLoss(0.0))
    sparse = sparsify(model, material, plan, 0, lambda: calls.append(1))
    weight, small = sparse.get_parameter("1.weight"), sparse.get_parameter("3.weight")
    assert len(calls) == 12
    assert float((weight != 0).float().mean()) == pytest.approx(share, abs=0.01)
    assert bool((small != 0).all()), "a layer of few weights is left alone"
    assert not torch.equal(weight[weight != 0], model.get_parameter("1.weight")[weight != 0])
    assert not any(item._forward_pre_hooks for item in sparse.modules())


def test_embeddings_are_thinned_as_other_layers_are() -> None:
    plan = Download(0.75, training=Training(steps=12, batch_size=8))
    with deterministic(3):
        model = nn.Sequential(nn.Embedding(64, 32), nn.Flatten(), nn.Linear(4 * 32, 3))
    tokens = torch.arange(16 * 4).reshape(16, 4)
    sparse = sparsify(model, Lesson(tokens, torch.arange(16) % 3, LabelLoss(0.0)), plan, 0, lambda: None)
    assert float((sparse.get_parameter("0.weight") != 0).float().mean()) == pytest.approx(0.25, abs=0.01)


def test_a_download_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(RecipeError, match=r"sparsity 1\.0"):
        Download(1.0)
    with pytest.raises(RecipeError, match=r"pattern \(4, 2\)"):
        Download(pattern=(4, 2))
