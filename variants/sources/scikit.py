"""Scikit-learn estimators and pipelines as ONNX files.

An estimator is built and fitted by a recipe, in the process that converts it: nothing is read from a pickle or a joblib
file, which could run code. ``skl2onnx`` converts it. A classifier's file gives ``logits``, the logarithms of its class
probabilities, so that it answers like a network does; a regressor's gives ``values`` (rows, 1).

Scikit-learn compares in 64-bit floats and the file in 32, so that a value within a rounding of a threshold may take
the other branch; and conversions have had defects (skl2onnx 1.20 lists some of histogram gradient boosting). Every file
is therefore compared with its estimator, and a recipe's parity gate decides.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from variants.errors import MissingPart, RecipeError
from variants.parity import compare_outputs, parity_rows
from variants.recipe import Draft, Ready
from variants.runtime import run_logits
from variants.scoring import CLASSES

if TYPE_CHECKING:
    from variants.manifest import Tier
    from variants.recipe import DataParts, Floats, Inputs
    from variants.scoring import Scoring

OPSETS: Final = {"": 18, "ai.onnx.ml": 3}
LEAST: Final = 1e-4
"""A probability below counts as this, since the logarithm of zero is no number: less than one row in ten thousand."""
LONGEST: Final = 10_000
FULL: Final = "full"


def draft_estimator(name: str, tier: Tier, estimator: Any, parts: DataParts, scoring: Scoring = CLASSES) -> Draft:  # noqa: ANN401 - scikit-learn ships no types
    """Return the draft of an unfitted ``estimator``, which is fitted to ``parts.train`` when its file is made."""

    def make() -> Ready:
        estimator.fit(parts.train.inputs, parts.train.labels)
        file = convert(estimator, parts.train.inputs[:1])
        inputs = parity_rows(parts.test.inputs)
        return Ready(file, compare_outputs(answers_of(estimator, inputs), run_logits(file, inputs), scoring))

    parent = None if name == FULL else FULL
    return Draft(name, tier, parent, "fit", {"estimator": estimator.__repr__(N_CHAR_MAX=LONGEST)}, make)


def answers_of(estimator: Any, inputs: Inputs) -> Floats:  # noqa: ANN401 - scikit-learn ships no types
    """Return what the fitted estimator answers, in the form of its file: (rows, classes) or (rows, 1)."""
    if hasattr(estimator, "predict_proba"):
        return np.asarray(np.log(np.maximum(estimator.predict_proba(inputs), LEAST)), dtype=np.float32)
    return np.asarray(estimator.predict(inputs), dtype=np.float32).reshape(len(inputs), -1)


def convert(estimator: Any, example: Inputs) -> bytes:  # noqa: ANN401 - scikit-learn ships no types
    """Return a fitted estimator as ONNX bytes; ``example`` is (1, features) float32.

    Raises:
        MissingPart: skl2onnx is not installed.
        RecipeError: A part of the estimator has no conversion.
    """
    try:
        from skl2onnx import to_onnx  # noqa: PLC0415 - only recipes of estimators need it
        from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator  # noqa: PLC0415 - the same
    except ImportError:
        raise MissingPart(
            "scikit-learn's models need 'skl2onnx', which is not installed; get it with: pip install 'tiergate[build]'"
        ) from None
    is_classifier = hasattr(estimator, "predict_proba")
    options = {"zipmap": False} if is_classifier else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of protobuf, about numpy's numbers in attributes
            model = to_onnx(estimator, example, options=options, target_opset=OPSETS)
    except (MissingConverter, MissingShapeCalculator) as error:
        first = str(error).strip().splitlines()[0]
        raise RecipeError(f"skl2onnx cannot convert {type(estimator).__name__}: {first}") from error
    return _with_logits(model) if is_classifier else _renamed(model, model.graph.output[0].name, "values")


def _with_logits(model: onnx.ModelProto) -> bytes:
    """Take the logarithm of the probabilities, the second output, and leave the label out."""
    graph = model.graph
    probabilities = graph.output[1]
    graph.initializer.append(helper.make_tensor("least", TensorProto.FLOAT, [], [LEAST]))
    graph.node.append(helper.make_node("Clip", [probabilities.name, "least"], ["clipped"], name="clip"))
    graph.node.append(helper.make_node("Log", ["clipped"], ["logits"], name="log"))
    classes = probabilities.type.tensor_type.shape.dim[1].dim_value
    return _finish(model, helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes]))


def _renamed(model: onnx.ModelProto, old: str, new: str) -> bytes:
    model.graph.node.append(helper.make_node("Identity", [old], [new], name="answer"))
    return _finish(model, helper.make_tensor_value_info(new, TensorProto.FLOAT, ["batch", 1]))


def _finish(model: onnx.ModelProto, output: onnx.ValueInfoProto) -> bytes:
    """Return the bytes of a model with one output, its input called ``features`` with a batch of any size."""
    graph = model.graph
    del graph.output[:]
    graph.output.append(output)
    old = graph.input[0].name
    for node in graph.node:
        node.input[:] = ["features" if name == old else name for name in node.input]
    graph.input[0].name = "features"
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
