"""What a manifest says that a variant takes is what a serving process gains by loading it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.builders import ModelPlan, VariantPlan, onnx_model, replace_file, write_model
from tests.service.engine.loading import gain_of

if TYPE_CHECKING:
    from pathlib import Path

WIDTHS = {"first": 256, "tiny": 384, "small": 1280, "large": 2304}
SLACK_BYTES = 64 << 10


def wide_onnx(width: int) -> bytes:
    """Return a file whose weights are mostly one square matrix of that width."""
    rng = np.random.default_rng(width)

    def weights(rows: int, columns: int, name: str) -> Any:  # noqa: ANN401 - protobuf ships no types
        return numpy_helper.from_array(rng.standard_normal((rows, columns)).astype(np.float32), name)

    nodes = [
        helper.make_node("MatMul", ["x", "widen"], ["h0"]),
        helper.make_node("MatMul", ["h0", "square"], ["h1"]),
        helper.make_node("MatMul", ["h1", "narrow"], ["y"]),
    ]
    return onnx_model(nodes, [weights(4, width, "widen"), weights(width, width, "square"), weights(width, 1, "narrow")])


def probed_bytes(path: Path, beside: Path) -> int:
    """Return what a build would write into the manifest."""
    command = [sys.executable, "-m", "variants.probe", str(path), str(beside)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(json.loads(done.stdout)["loaded_bytes"])


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from the kernel's own account")
def test_what_a_process_gains_by_loading_is_what_the_probe_measured(tmp_path: Path) -> None:
    plans = tuple(VariantPlan(name, "full", 0.9, 0.001) for name in WIDTHS)
    folder = write_model(tmp_path, replace(ModelPlan(), variants=plans))
    for name, width in WIDTHS.items():
        replace_file(folder, name, wide_onnx(width))
    for name in list(WIDTHS)[1:]:
        probed = probed_bytes(folder / f"{name}.onnx", folder / "first.onnx")
        assert probed >= WIDTHS[name] ** 2 * 4
        assert gain_of(tmp_path, "sums", name) == pytest.approx(probed, rel=0.10, abs=SLACK_BYTES)
