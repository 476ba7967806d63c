"""Number formats of static int8 by the instruction set that it is meant for.

How 8-bit products are added decides what a processor may be given. x86 multiplies unsigned activations with signed
weights. With VNNI four products go into 32 bits and nothing is lost; without it pairs go into 16 bits and saturate, so
weights must stay within 7 bits (``variants.quantization``). ARM's instructions multiply signed with signed and like
both sides signed. WebAssembly's relaxed dot product wants 7-bit weights as AVX2 does. WebGPU has no int8 kernels that
give right answers for QDQ files: a float file belongs there, of 16 bits where the device has them.

``portable``, the default, is right everywhere and costs one bit of the weights; the others keep that bit and are right
on their own class alone, until ``variants.saturation`` has shown what they lose elsewhere. The formats are those that
ONNX Runtime's own guide to quantization recommends for each instruction set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from onnxruntime.quantization import QuantType

Preset = Literal["portable", "vnni", "arm64"]


@dataclass(frozen=True, slots=True)
class Formats:
    """What activations and weights are kept in; ``is_reduced`` keeps weights to 7 bits."""

    activations: Any
    weights: Any
    is_reduced: bool


PRESETS: Final[dict[Preset, Formats]] = {
    "portable": Formats(QuantType.QUInt8, QuantType.QInt8, is_reduced=True),
    "vnni": Formats(QuantType.QUInt8, QuantType.QInt8, is_reduced=False),
    "arm64": Formats(QuantType.QInt8, QuantType.QInt8, is_reduced=False),
}
