"""Whether an int8 variant answers on a processor as it did where it was measured.

Sums of 8-bit products are whole numbers. Where they are added in 32 bits they are exact, so that all processors that do
so give the same answers: x86 with VNNI or AMX. Older x86 adds two neighbouring products in 16 bits first, which are cut
off where they do not fit, silently (``variants.saturation`` has the formula). A variant is right there only if

- its accuracy was measured on that very path,
- or its weights are so small that no pair can leave 16 bits,
- or what emulating the cut lost was found to be small.

ARM is taken for unknown where a variant was neither measured there nor has such weights: its kernels differ by
processor, and none was tried here. ``variants.edge`` goes by the same rules when it tells clients what to run.

Where this is wrong: the paths' names say what a processor has, and ONNX Runtime is trusted to take the best of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

PATHS: Final = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimddp", "asimd")
"""What may multiply bytes, the best first; of these a processor executes the first that it has."""

_EXACT: Final = frozenset({"amx_int8", "avx512_vnni", "avx_vnni"})
_CUT: Final = frozenset({"avx512f", "avx2"})


@dataclass(frozen=True, slots=True)
class Int8Evidence:
    """What a manifest knows of an int8 file: paths that were measured, paths on which its weights exclude the cut.

    ``loss`` is the accuracy (0..1) lost in an emulation of the cut, ``None`` where none was made; ``is_small`` what the
    build thought of it.
    """

    measured: Collection[str]
    proven: Collection[str]
    loss: float | None = None
    is_small: bool = False


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Whether a variant is known to be right on a processor, and why.

    ``can_be_precise`` tells that ONNX Runtime's ``session.x64quantprecision`` adds in 32 bits there, which is slower.
    """

    is_right: bool
    why: str
    can_be_precise: bool = False


def judge_int8(evidence: Int8Evidence, isa: Collection[str]) -> Arithmetic:
    """Return whether an int8 variant is right on a processor with these instruction sets; none: it is not known."""
    path = next((name for name in PATHS if name in isa), "")
    if path in evidence.measured:
        return Arithmetic(True, f"measured on {path}")
    if path in _EXACT:
        return Arithmetic(True, f"{path} adds products in 32 bits")
    if evidence.proven:
        return Arithmetic(True, "its weights exclude saturation")
    if path and path not in _CUT:
        return Arithmetic(False, f"its answers on {path} were never measured")
    where = f"on {path}" if path else "on this processor, which is not known,"
    if evidence.loss is None:
        return Arithmetic(False, f"{where} sums of its products may be cut off at 16 bits", can_be_precise=True)
    lost = f"where sums are cut off at 16 bits it loses {100 * evidence.loss:.2f} points, by emulation"
    return Arithmetic(evidence.is_small, lost, can_be_precise=not evidence.is_small)
