"""Dependencies report nothing to their makers, whichever part of the project is imported first."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.builders import sums_onnx

if TYPE_CHECKING:
    from pathlib import Path

_RUN = """
import sys
import {package}
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


@pytest.mark.parametrize("package", ["service", "variants", "loadtests.h2load"])
def test_the_runtime_leaves_no_trace_of_telemetry(tmp_path: Path, package: str) -> None:
    model, folder = tmp_path / "sums.onnx", tmp_path / "temporary"
    model.write_bytes(sums_onnx())
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", _RUN.format(package=package), str(model)],
        env={**environment, "TMPDIR": str(folder)},
        check=True,
        timeout=300,
    )
    assert not list(folder.iterdir())  # with telemetry on, the runtime keeps its session's name here
