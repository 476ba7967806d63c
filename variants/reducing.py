"""The forms of lower precision that a float file gets, as far as the recipe's plan asks for them.

Static int8 needs calibration rows; dynamic int8, 4-bit weights and 16-bit floats need none. A file without products of
matrices (trees, say) has nothing to gain and gets no form. Where a recipe brings a file that was trained elsewhere, a
library may fail on an operator that nobody foresaw: such a form is left out with a note, and the others are made all
the same. The packed form, for downloads, is of the full model alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import onnx

from variants.downloading import pack_for_download
from variants.errors import StepFailed, naming_step
from variants.packed import unpack
from variants.parity import compare_files
from variants.precision import halve, quantize_dynamically
from variants.quantization import quantize
from variants.recipe import Quantization, brings_files
from variants.weight_only import ACCURACY_LEVEL, BLOCK, pack_weights
from variants.workshop import Made, record_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from variants.manifest import Step, Tier
    from variants.recipe import Download
    from variants.workshop import Workshop

CALIBRATED: Final = "quantize"
DOWNLOAD: Final = "download"
PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
PACKED: Final = frozenset({"Gemm", "MatMul"})
TIERS: Final[dict[Tier, Tier]] = {
    "full": "quantized",
    "pruned": "pruned-quantized",
    "distilled": "distilled-quantized",
}


def reduce(shop: Workshop, parent: Made) -> list[Made]:
    """Return the forms of ``parent``, a float file; each is kept on disk when it is done."""
    if not _has(parent.file, PRODUCTS):
        return []
    forms = (_attempt(shop, parent, form) for form in _forms(shop, parent))
    return [made for made in forms if made is not None]


@dataclass(frozen=True, slots=True)
class _Form:
    """One way to reduce a file: ``run`` returns the new file and what was chosen, in ``total`` parts."""

    name: str
    step: str
    total: int
    run: Callable[[Callable[[], None]], tuple[bytes, dict[str, Any]]]


def _forms(shop: Workshop, parent: Made) -> Iterator[_Form]:
    plan, precisions = shop.recipe.plan.quantization, shop.recipe.plan.precisions
    if plan is not None and brings_files(shop.recipe) and parent.tier == "pruned":
        precisions = ()  # cut to be fast, as static int8 is; the other forms are of the whole file
    if plan is not None:
        yield _static(shop, parent, replace(plan, also=()), "quantized")
        for preset in plan.also:
            yield _static(shop, parent, replace(plan, preset=preset, also=()), f"quantized-{preset}")
    if "dynamic" in precisions:
        yield _free("dynamic", "quantize-dynamic", parent, quantize_dynamically, weights="int8", ranges="dynamic")
    if "half" in precisions:
        yield _free("half", "halve", parent, halve, weights="float16")
    if "int4" in precisions and _has(parent.file, PACKED):
        numbers = {"block": BLOCK, "accuracy_level": ACCURACY_LEVEL}
        yield _free("int4", "pack-weights", parent, pack_weights, weights="uint4", **numbers)


def _static(shop: Workshop, parent: Made, plan: Quantization, name: str) -> _Form:
    def run(advance: Callable[[], None]) -> tuple[bytes, dict[str, Any]]:
        rows = shop.parts.calibration.inputs, shop.parts.validation.inputs
        file, chosen = quantize(parent.file, *rows, plan, advance, shop.scoring.divergence)
        return file, {**asdict(plan), **chosen}

    return _Form(name, CALIBRATED, len(plan.methods), run)


def _free(name: str, step: str, parent: Made, convert: Callable[[bytes], bytes], **chosen: Any) -> _Form:  # noqa: ANN401 - as JSON has them
    """Return a form that needs no data."""
    return _Form(name, step, 1, lambda _: (convert(parent.file), chosen))


def _attempt(shop: Workshop, parent: Made, form: _Form) -> Made | None:
    try:
        return _make(shop, parent, form)
    except StepFailed as error:
        if not brings_files(shop.recipe):
            raise
        shop.progress.note(f"left out: {error}")
        return None


def quantize_rung(shop: Workshop, parent: Made, name: str) -> Made:
    """Return the static int8 form of ``parent``, called ``name``, all of whose nodes stay int8.

    What a node in float would cost is not in the latency that a search chose the tier for; what int8 loses is in its
    accuracy.
    """
    plan = replace(shop.recipe.plan.quantization or Quantization(), also=(), max_float_nodes=0)
    return _make(shop, parent, _static(shop, parent, plan, "quantized"), name)


def _make(shop: Workshop, parent: Made, form: _Form, name: str = "") -> Made:
    name = name or (form.name if parent.tier == "full" else f"{parent.name}-{form.name}")

    def make(advance: Callable[[], None]) -> bytes:
        file, chosen = form.run(advance)
        return json.dumps(chosen).encode() + b"\n" + file

    kept = shop.keep(f"{form.step} {name}", form.total, make)
    head, _, file = kept.payload.partition(b"\n")
    with naming_step(f"parity {name}"):
        parity = compare_files(parent.file, file, shop.parts.test.inputs, shop.scoring)
    return Made(
        name=name,
        tier=TIERS[parent.tier],
        file=file,
        parent=parent,
        steps=(record_step(form.step, json.loads(head), shop.seed),),
        parity=parity,
        train_s=0.0,
        build_s=kept.took_s,
        is_calibrated=form.step == CALIBRATED,
    )


def make_download(shop: Workshop, parent: Made, plan: Download, sparse: tuple[bytes, Step] | None) -> Made:
    """Return the packed form of ``parent``, or of ``sparse``, the same model fitted with zeros and how it was."""
    source, fitted = (parent.file, ()) if sparse is None else (sparse[0], (sparse[1],))

    def make(_: Callable[[], None]) -> bytes:
        file, packed = pack_for_download(source, plan, is_pruned=sparse is not None)
        return len(file).to_bytes(8) + packed

    kept = shop.keep(DOWNLOAD, 1, make)
    packed = kept.payload[8:]
    file = unpack(packed, int.from_bytes(kept.payload[:8]))
    with naming_step(f"parity {DOWNLOAD}"):
        parity = compare_files(parent.file, file, shop.parts.test.inputs, shop.scoring)
    return Made(
        name=DOWNLOAD,
        tier="pruned-quantized",
        file=file,
        parent=parent,
        steps=(*fitted, record_step("pack", asdict(plan), shop.seed)),
        parity=parity,
        train_s=0.0,
        build_s=kept.took_s,
        packed=packed,
    )


def _has(file: bytes, kinds: frozenset[str]) -> bool:
    return any(node.op_type in kinds for node in onnx.load_from_string(file).graph.node)
