"""Two forms of lower precision that need no data: dynamic int8, and 16-bit floats.

Dynamic int8 keeps weights as 8-bit integers and takes the range of each activation while running, row by row of work.
It suits transformers, whose products are large and whose ranges vary from input to input: for BERT-base on CPUs ONNX
Runtime's authors published 3.28x against 2.18x for static int8. Convolutions are left in float: their dynamic kernel is
slow and their ranges steady. Weights are kept to 7 bits for the reason given in ``variants.quantization``: pairs of
products must fit into 16 bits on processors without VNNI.

16-bit floats halve the file and, on CPUs, nothing else: ONNX Runtime computes in 32 bits and converts, which has been
slower in every report. It is a form for downloads and for accelerators. Inputs and outputs stay 32-bit floats, so that
all variants have one interface.

Both are ONNX Runtime's own converters. Inferred shapes are dropped first, as stale ones have made them fail.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel


def quantize_dynamically(file: bytes) -> bytes:
    """Return the file with the weights of its products in int8 and ranges taken while running."""
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder) / name for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        source.write_bytes(_bare(onnx.load_from_string(file)))
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(str(prepared))
        model.graph.ClearField("value_info")  # its metadata stay: by them the quantizer knows that it is prepared
        prepared.write_bytes(model.SerializeToString())
        quantize_dynamic(
            str(prepared),
            str(target),
            op_types_to_quantize=["MatMul", "Gemm", "Attention"],
            weight_type=QuantType.QInt8,
            reduce_range=True,
            extra_options={"MatMulConstBOnly": True},
        )
        return _bare(onnx.load(str(target)))


def halve(file: bytes) -> bytes:
    """Return the file with 16-bit floats inside, its inputs and outputs as before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # weights below the smallest float16 are cut to it, as is fit
        model = convert_float_to_float16(onnx.load_from_string(file), keep_io_types=True)
    ordered = OnnxModel(model)
    ordered.topological_sort()  # the converter puts what it adds at the end, where shapes cannot be inferred
    return _bare(ordered.model)


def _bare(model: onnx.ModelProto) -> bytes:
    """Return the model's bytes without what does not compute."""
    model.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    data: bytes = model.SerializeToString(deterministic=True)
    return data
