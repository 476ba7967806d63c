from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from loadtests.drift.damage import NoWeights, flip_bits
from loadtests.drift.mixes import class_mix, few_classes, hard_classes, uneven_classes
from loadtests.drift.shifts import SHIFTS

if TYPE_CHECKING:
    from loadtests.drift.mixes import Mix


def picture_rows() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).uniform(0.0, 16.0, (20, 1, 12, 12)).astype(np.float32)


@pytest.mark.parametrize("name", SHIFTS)
def test_a_stronger_shift_changes_more_and_stays_in_range(name: str) -> None:
    rows = picture_rows()
    changes = []
    for strength in (0.3, 1.0):
        worse = SHIFTS[name](rows, strength, np.random.default_rng(1))
        assert (worse.shape, worse.dtype) == (rows.shape, rows.dtype)
        assert rows.min() <= worse.min() <= worse.max() <= rows.max()
        changes.append(float(np.abs(worse - rows).mean()))
    assert 0.0 < changes[0] < changes[1]


LABELS = np.repeat(np.arange(20), 30)
RIGHT = LABELS >= 2  # the first two classes are always mistaken


def shares_of(mix: Mix, strength: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    places = mix(LABELS, RIGHT, strength, np.random.default_rng(2))
    assert len(places) == len(LABELS)
    return np.bincount(LABELS[places], minlength=20) / len(LABELS)


def test_mixes_of_classes_favour_few_or_leave_most_out_or_make_some_rare() -> None:
    assert np.sort(shares_of(class_mix, 1.0))[-2:].sum() > 0.7
    assert [int((shares_of(few_classes, strength) > 0).sum()) for strength in (0.3, 0.6)] == [7, 2]
    assert shares_of(uneven_classes, 0.6).max() > 5 / 20
    assert shares_of(hard_classes, 0.6)[:2].sum() > 4 / 20


def file_of(kind: type[np.generic]) -> bytes:
    weights = numpy_helper.from_array(np.arange(64, dtype=kind).reshape(8, 8), "w")
    scale = numpy_helper.from_array(np.ones(1, dtype=np.float32), "scale")
    graph = helper.make_graph([], "g", [], [], [weights, scale])
    return bytes(helper.make_model(graph).SerializeToString())


def arrays_of(file: bytes) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    return {item.name: numpy_helper.to_array(item) for item in onnx.load_from_string(file).graph.initializer}


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int8])
def test_flipped_bits_change_weights_alone_and_repeatably(kind: type[np.generic]) -> None:
    file = file_of(kind)
    damaged = flip_bits(file, 5, seed=3)
    before, after = arrays_of(file), arrays_of(damaged)
    assert 1 <= int((before["w"] != after["w"]).sum()) <= 5
    assert after["w"].dtype == kind
    assert np.array_equal(before["scale"], after["scale"])
    assert flip_bits(file, 5, seed=3) == damaged


def test_fewer_flips_are_among_more() -> None:
    file = file_of(np.int8)
    clean, few, many = (arrays_of(flip_bits(file, count, seed=4))["w"] for count in (0, 2, 6))
    touched = few != clean
    assert np.array_equal(few[touched], many[touched]) or (many != clean).sum() >= touched.sum()


def test_a_file_without_weights_stays_as_it_is() -> None:
    graph = helper.make_graph([], "g", [], [], [helper.make_tensor("shape", TensorProto.INT64, [2], [1, 2])])
    file = bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(NoWeights, match="no weights"):
        flip_bits(file, 3, seed=0)
