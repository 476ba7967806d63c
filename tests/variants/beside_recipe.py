"""A recipe of files whose making shows what runs beside what: processes leave marks in the folder that it stands in.

It is copied to a folder of its own and loaded by its path. Nothing is trained, so that it costs nothing but processes.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from variants.errors import LeftOut
from variants.recipe import DataParts, Draft, Examples, FilePlan, Inputs, Profiling, Ready, Thresholds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from variants.manifest import Tier

FOLDER = Path(__file__).parent
PATIENCE_S = 300.0
ALONE = "full"


def make_file(size: int) -> bytes:
    """Return a file whose answer is the place of the larger of two values, and that holds ``size`` numbers besides."""
    weights = numpy_helper.from_array(np.eye(2, dtype=np.float32), "W")
    spare = numpy_helper.from_array(np.zeros(size, dtype=np.float32), "spare")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"], name="product")],
        "larger",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 2])],
        [weights, spare],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    content: bytes = made.SerializeToString(deterministic=True)
    return content


def leave_mark(name: str) -> None:
    """Write this process's number, whole or not at all; an earlier one's stays."""
    aside = FOLDER / f"{name}.{os.getpid()}"
    aside.write_text(str(os.getpid()))
    with (FOLDER / f"{name}.marks").open("a") as marks:
        marks.write(f"{os.getpid()}\n")
    aside.rename(FOLDER / f"{name}.mark")


def meet(name: str) -> None:
    """Wait until another process has left its mark."""
    for _ in range(int(PATIENCE_S / 0.02)):
        if (FOLDER / f"{name}.mark").exists():
            return
        threading.Event().wait(0.02)
    raise TimeoutError(f"nobody else made {name}")


class Beside:
    """``first`` and ``second`` are made only beside each other; what ``third`` does, the file ``third`` says."""

    name, metric, dataset, labels = "beside", "accuracy", "pairs", ("left", "right")
    plan = FilePlan(
        thresholds=Thresholds(min_full=0.5),
        quantization=None,
        precisions=("half",),
        profiling=Profiling(batch_sizes=(1,), threads=(1,), rounds=2, runs=3, cell_s=0.05, memory_repeats=1),
    )

    def load(self, seed: int) -> DataParts:
        rows: Inputs = np.random.default_rng(seed).normal(size=(200, 2)).astype(np.float32)
        labels = rows.argmax(1)
        ends = {"train": (0, 0), "calibration": (0, 40), "validation": (40, 80), "test": (80, 200)}
        return DataParts(**{name: Examples(rows[at:end], labels[at:end]) for name, (at, end) in ends.items()})

    def draft(self, parts: DataParts, seed: int) -> Iterator[Draft]:  # noqa: ARG002 - the protocol's form
        def draft(number: int, name: str, tier: Tier, parent: str | None) -> Draft:
            return Draft(name, tier, parent, "take", {}, lambda: self._make(name, number))

        yield draft(1, ALONE, "full", None)
        yield draft(2, "first", "pruned", "full")
        yield draft(3, "second", "pruned", "full")
        yield draft(4, "third", "pruned", "first")

    def _make(self, name: str, number: int) -> Ready:
        leave_mark(name)
        todo = FOLDER / name
        what = todo.read_text() if todo.exists() else ""
        if name in ("first", "second") and not what:
            meet("second" if name == "first" else "first")
        if what.startswith("after "):
            meet(what.removeprefix("after "))
            raise RuntimeError("broken")
        if what == "leave out":
            raise LeftOut("there is no third way")
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "stay":
            threading.Event().wait(PATIENCE_S)
        return Ready(make_file(number))


RECIPE = Beside()
